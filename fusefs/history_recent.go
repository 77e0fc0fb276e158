package fusefs

import (
	"container/list"
	"sync"
)

// recentFiles are the regular files read lately, by node id, each with its
// content once that was opened. Opening a file means nothing to the history
// side: in a repository mount the kernel does not even tell, which saves half of
// the requests that reading a small file takes.
type recentFiles struct {
	mu    sync.Mutex
	all   map[uint64]*list.Element // of *historyFile
	order list.List                // front: used last
}

// filesKept bounds their number. One that was dropped is opened anew by the
// next read.
const filesKept = 256

// take gives a file, if it is there; leave must follow.
func (r *recentFiles) take(id uint64) (*historyFile, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	place, ok := r.all[id]
	if !ok {
		return nil, false
	}
	r.order.MoveToFront(place)
	h := place.Value.(*historyFile)
	h.users++
	return h, true
}

// add gives the file itself, or the one that is there meanwhile; leave must
// follow.
func (r *recentFiles) add(h *historyFile) *historyFile {
	r.mu.Lock()
	defer r.mu.Unlock()
	if place, ok := r.all[h.id]; ok {
		h = place.Value.(*historyFile)
	} else {
		if r.all == nil {
			r.all = make(map[uint64]*list.Element)
		}
		r.all[h.id] = r.order.PushFront(h)
		h.users = 1 // it is here
	}
	h.users++
	for len(r.all) > filesKept {
		r.drop(r.order.Back())
	}
	return h
}

func (r *recentFiles) leave(h *historyFile) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.release(h)
}

// release needs mu held. Closing does not wait for anything.
func (r *recentFiles) release(h *historyFile) {
	if h.users--; h.users == 0 {
		h.close()
	}
}

// drop needs mu held.
func (r *recentFiles) drop(place *list.Element) {
	h := r.order.Remove(place).(*historyFile)
	delete(r.all, h.id)
	r.release(h)
}

// dropAll closes what no read uses.
func (r *recentFiles) dropAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.order.Len() > 0 {
		r.drop(r.order.Back())
	}
}
