package index

// inventoryItem is an item of a stream, and what it became.
type inventoryItem struct {
	sum     uint64 // of the packed item
	version uint32 // 0 for what has to be looked at again
	size    uint16 // of the packed item in bytes; 0 where it is longer than that holds
}

// itemList holds items one after the other, in 14 bytes each: there may be
// millions.
type itemList struct {
	sums     []uint64
	versions []uint32
	sizes    []uint16
}

func newItemList(capacity int) itemList {
	return itemList{make([]uint64, 0, capacity), make([]uint32, 0, capacity), make([]uint16, 0, capacity)}
}

func (l *itemList) len() int { return len(l.sums) }

func (l *itemList) at(i int) inventoryItem {
	return inventoryItem{l.sums[i], l.versions[i], l.sizes[i]}
}

func (l *itemList) add(it inventoryItem) {
	l.sums = append(l.sums, it.sum)
	l.versions = append(l.versions, it.version)
	l.sizes = append(l.sizes, it.size)
}

// reuse gives an empty list in the memory of this one.
func (l *itemList) reuse() itemList {
	return itemList{l.sums[:0], l.versions[:0], l.sizes[:0]}
}
