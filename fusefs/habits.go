package fusefs

import "sync"

// habits remembers which threads look at what they list. To give attributes
// along with the names makes `ls -l` one request instead of one a name, but
// makes the kernel remember every file that find(1) only passes by, which takes
// most of the time of a crawl.
//
// A thread's first listing has the attributes. Then it gets names alone, as
// long as it does not look at one of the files in them: what lists a hundred
// directories shows its habit in the second.
type habits struct {
	mu sync.Mutex
	of map[uint32]*habit // by thread
}

type habit struct {
	listed int
	dir    uint64 // listed last
	looks  bool   // at files it got names of
	bare   bool   // it gets names alone
}

// habitsKept is how many threads are remembered; then all are forgotten.
const habitsKept = 1000

// list notes that a thread lists a directory from a position on, and tells
// whether it is to get attributes along.
func (h *habits) list(thread uint32, dir, pos uint64) (attributes bool) {
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
	if pos == 0 {
		s.listed++
		s.dir = dir
	}
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

// namesOnly tells what list has told the thread last.
func (h *habits) namesOnly(thread uint32) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.of[thread]
	return s != nil && s.bare
}
