package fusefs

import (
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// openDirs keeps descriptors of directories that names were just looked up,
// made or removed in, so that the next does not walk there from the root. None
// is used longer after it was opened than the kernel would believe a name: a
// directory that was moved below the mount is found to be gone as soon.
type openDirs struct {
	mu  sync.Mutex
	all map[*liveNode]*openDir
}

type openDir struct {
	fd     int // O_PATH
	opened time.Time
	users  int // calls under way, and one more while it is kept
}

const (
	dirsKept    = 64
	dirsKeptFor = believed
)

// dir calls fn with a descriptor (O_PATH) of the directory n.
func (n *liveNode) dir(fn func(fd int) error) syscall.Errno { return n.dirBy(n.walk, fn) }

// dirBy is dir with a way of opening the directory if no descriptor is kept.
func (n *liveNode) dirBy(open func(flags int) (int, error), fn func(fd int) error) syscall.Errno {
	if n.IsRoot() {
		return errnoOf(fn(n.tree.root))
	}
	d := n.tree.dirs.take(n)
	if d == nil {
		fd, err := open(unix.O_PATH | unix.O_DIRECTORY)
		if err != nil {
			return errnoOf(err)
		}
		d = n.tree.dirs.add(n, fd)
	}
	defer n.tree.dirs.leave(d)
	return errnoOf(fn(d.fd))
}

// take gives a directory that is kept, if it is; leave must follow.
func (o *openDirs) take(n *liveNode) *openDir {
	o.mu.Lock()
	defer o.mu.Unlock()
	d := o.all[n]
	if d == nil || time.Since(d.opened) > dirsKeptFor {
		return nil
	}
	d.users++
	return d
}

// add keeps a descriptor; leave must follow.
func (o *openDirs) add(n *liveNode, fd int) *openDir {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.all == nil {
		o.all = make(map[*liveNode]*openDir)
	}
	if len(o.all) == 0 {
		time.AfterFunc(dirsKeptFor, o.tidy)
	}
	for old, d := range o.all { // the one there was, and any that are too many
		if old == n || len(o.all) >= dirsKept {
			o.drop(old, d)
		}
	}
	d := &openDir{fd: fd, opened: time.Now(), users: 2}
	o.all[n] = d
	return d
}

func (o *openDirs) leave(d *openDir) {
	o.mu.Lock()
	defer o.mu.Unlock()
	d.leave()
}

func (d *openDir) leave() {
	if d.users--; d.users == 0 {
		_ = unix.Close(d.fd) // O_PATH: there is nothing to lose
	}
}

func (o *openDirs) drop(n *liveNode, d *openDir) {
	delete(o.all, n)
	d.leave()
}

// closeAll closes what no call uses.
func (o *openDirs) closeAll() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for n, d := range o.all {
		o.drop(n, d)
	}
}

// tidy closes what is too old, as long as there is something.
func (o *openDirs) tidy() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for n, d := range o.all {
		if time.Since(d.opened) > dirsKeptFor {
			o.drop(n, d)
		}
	}
	if len(o.all) > 0 {
		time.AfterFunc(dirsKeptFor, o.tidy)
	}
}
