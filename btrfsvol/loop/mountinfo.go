package loop

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/internal/mountinfo"
)

func mounts() ([]mountinfo.Mount, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var all []mountinfo.Mount
	for line := range strings.Lines(string(table)) {
		m, ok := mountinfo.Parse(line)
		if !ok {
			return nil, fmt.Errorf("mountinfo: %q is no line of it", line)
		}
		all = append(all, m)
	}
	return all, nil
}

// loopOf returns the number of the loop device from which m is mounted.
func loopOf(m *mountinfo.Mount) (int, bool) {
	if m.Type != "btrfs" {
		return 0, false
	}
	return loopNumber(m.Source)
}

// loopNumber goes by what a name leads to: it may be a link from
// /dev/disk/by-uuid.
func loopNumber(path string) (int, bool) {
	const loopMajor = 7
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK || unix.Major(st.Rdev) != loopMajor {
		return 0, false
	}
	return int(unix.Minor(st.Rdev)), true
}

// mountsOf returns the mounts of a loop device that this process sees.
func mountsOf(number int) ([]mountinfo.Mount, error) {
	all, err := mounts()
	if err != nil {
		return nil, err
	}
	var found []mountinfo.Mount
	for i := range all {
		if n, ok := loopOf(&all[i]); ok && n == number {
			found = append(found, all[i])
		}
	}
	return found, nil
}

// place is a directory, held open, and what is mounted exactly there.
type place struct {
	dir   string // without symbolic links
	file  *os.File
	mount *mountinfo.Mount // nil when dir is an ordinary directory
}

// openPlace opens a directory. While it is open nothing there can be
// unmounted.
func openPlace(dir string) (*place, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	p := &place{file: os.NewFile(uintptr(fd), dir)}
	if err := p.look(); err != nil {
		p.file.Close()
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return p, nil
}

func (p *place) look() (err error) {
	if p.dir, err = os.Readlink(p.link()); err != nil {
		return err
	}
	var st unix.Statx_t
	fd := int(p.file.Fd())
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
		return err
	}
	if st.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		return nil
	}
	all, err := mounts()
	if err != nil {
		return err
	}
	for i := range all {
		if all[i].ID == st.Mnt_id {
			p.mount = &all[i]
			return nil
		}
	}
	return fmt.Errorf("its mount %d is not in mountinfo", st.Mnt_id)
}

// link names the directory however it is renamed or mounted over.
func (p *place) link() string { return fmt.Sprintf("/proc/self/fd/%d", p.file.Fd()) }

func (p *place) close() { p.file.Close() }
