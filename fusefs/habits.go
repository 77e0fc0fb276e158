package fusefs

import "sync"

// habits remembers which threads look at what they list. To give attributes
// along with the names makes `ls -l` one request instead of one a name, but
// makes the kernel remember every file that find(1) only passes by, which takes
// most of the time of a crawl.
//
// A thread's first listing has the attributes. Then it gets those of
// directories alone, which it will enter, as long as it does not look at one of
// the files: what lists a hundred directories shows its habit in the second.
type habits struct {
	mu    sync.Mutex
	of    map[uint32]*habit   // by thread
	named map[uint64]struct{} // directories of which the kernel may keep a listing without attributes
}

type habit struct {
	listed int
	dir    uint64 // opened last
	looks  bool   // at files it got names of
	bare   bool   // it gets names alone
}

// What is remembered is bounded; at the bound all is forgotten.
const (
	habitsKept = 1000
	namedKept  = 1 << 16
)

// open notes that a thread opens a directory to list it, and tells whether it
// is to get the attributes of files along.
func (h *habits) open(thread uint32, dir uint64) (attributes bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.of[thread]
	if s == nil {
		if h.of == nil || len(h.of) == habitsKept {
			h.of = make(map[uint32]*habit)
		}
		s = &habit{}
		h.of[thread] = s
	}
	s.listed++
	s.dir = dir
	s.bare = s.listed > 1 && !s.looks
	return !s.bare
}

// look notes that a thread looks at a file in a directory. Directories don't
// count: whoever goes down a tree looks at these.
func (h *habits) look(thread uint32, dir uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.of[thread]; s != nil && s.bare && s.dir == dir {
		s.looks = true
	}
}

// namesOnly tells what open has told the thread last.
func (h *habits) namesOnly(thread uint32) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.of[thread]
	return s != nil && s.bare
}

// stale tells whether a listing that the kernel keeps of a directory has to go,
// since it lacks the attributes that are to be given now. It notes what the
// kernel will have.
func (h *habits) stale(dir uint64, attributes bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, bare := h.named[dir]
	switch {
	case attributes:
		delete(h.named, dir)
		return bare
	case h.named == nil || len(h.named) == namedKept:
		h.named = make(map[uint64]struct{})
	}
	h.named[dir] = struct{}{}
	return false
}
