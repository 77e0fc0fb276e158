package index

import "iter"

// bitset holds small positive numbers.
type bitset struct{ words []uint64 }

func (b *bitset) set(n int64) {
	w := int(n / 64)
	if w >= len(b.words) {
		b.words = append(b.words, make([]uint64, w-len(b.words)+1+len(b.words)/4)...)
	}
	b.words[w] |= 1 << (n % 64)
}

func (b *bitset) clear(n int64) {
	if w := int(n / 64); w < len(b.words) {
		b.words[w] &^= 1 << (n % 64)
	}
}

func (b *bitset) has(n int64) bool {
	w := int(n / 64)
	return w < len(b.words) && b.words[w]&(1<<(n%64)) != 0
}

// without iterates over the numbers in b that are not in other.
func (b *bitset) without(other *bitset) iter.Seq[int64] {
	return func(yield func(int64) bool) {
		for w := 0; w < len(b.words); w++ { //nolint:intrange // b may grow meanwhile
			if b.words[w] == 0 {
				continue
			}
			for n := int64(w) * 64; n < int64(w+1)*64; n++ {
				if b.has(n) && !other.has(n) && !yield(n) {
					return
				}
			}
		}
	}
}
