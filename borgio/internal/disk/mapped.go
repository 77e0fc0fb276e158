package disk

import (
	"fmt"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio/internal/buffer"
)

// Large objects are mapped instead of read: that saves a copy, which costs more
// than checking them does. They are mapped one by one, since mapped pages count
// as the process's memory.

// mapRange maps n bytes of a file at off, or gives nil where that cannot be
// done: past the file's end, or on a file system that does not know how.
func mapRange(f *os.File, off int64, n int) *buffer.Buffer {
	if st, err := f.Stat(); err != nil || off+int64(n) > st.Size() {
		return nil
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return nil
	}
	lead := int(off % int64(os.Getpagesize()))
	var m []byte
	cerr := conn.Control(func(fd uintptr) { // another reader may close f, and its number be another file's
		// All of the range at once from the disk, instead of page after page.
		_ = unix.Fadvise(int(fd), off, int64(n), unix.FADV_WILLNEED)
		m, err = unix.Mmap(int(fd), off-int64(lead), n+lead, unix.PROT_READ, unix.MAP_SHARED|unix.MAP_POPULATE)
	})
	if cerr != nil || err != nil {
		return nil
	}
	return buffer.Of(m[lead:], func() { _ = unix.Munmap(m) })
}

// ErrFault is that a mapped page could not be read; it is EIO, as of read(2).
var ErrFault = fmt.Errorf("mapped file: %w", unix.EIO)

// OnFault runs fn, in which a mapped page may turn out to be unreadable: a bad
// disk, or a file that was cut short by somebody. That gives ErrFault; else the
// process would die of it.
func OnFault(fn func()) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch p := recover().(type) {
		case nil:
		case interface{ Addr() uintptr }: // only the panic of a fault has one
			err = ErrFault
		default:
			panic(p)
		}
	}()
	fn()
	return nil
}
