package loop

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mountEntry is a line of /proc/self/mountinfo; see proc_pid_mountinfo(5).
type mountEntry struct {
	ID     uint64
	Root   string // what of the file system is mounted; in btrfs a subvolume
	Dir    string
	Type   string
	Source string
}

// maxMountLine is more than the kernel's longest line.
const maxMountLine = 1 << 20

func parseMounts(r io.Reader) ([]mountEntry, error) {
	var all []mountEntry
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxMountLine)
	for lines.Scan() {
		// ID parent major:minor root dir options [optional…] - type source superoptions
		left, right, ok := bytes.Cut(lines.Bytes(), []byte(" - "))
		a, b := strings.Split(string(left), " "), strings.Split(string(right), " ")
		if !ok || len(a) < 6 || len(b) < 2 {
			return nil, fmt.Errorf("mountinfo: %q is no line of it", lines.Text())
		}
		id, err := strconv.ParseUint(a[0], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("mountinfo: %w", err)
		}
		all = append(all, mountEntry{ID: id, Root: unescape(a[3]), Dir: unescape(a[4]), Type: b[0], Source: unescape(b[1])})
	}
	return all, lines.Err()
}

// unescape undoes the kernel's \040 for a space and the like.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func mounts() ([]mountEntry, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseMounts(f)
}

// loopNumber returns the number of the loop device from which e is mounted.
func (e *mountEntry) loopNumber() (int, bool) {
	if e.Type != "btrfs" {
		return 0, false
	}
	return loopNumber(e.Source)
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
func mountsOf(number int) ([]mountEntry, error) {
	all, err := mounts()
	if err != nil {
		return nil, err
	}
	var found []mountEntry
	for _, e := range all {
		if n, ok := e.loopNumber(); ok && n == number {
			found = append(found, e)
		}
	}
	return found, nil
}

// place is a directory, held open, and what is mounted exactly there.
type place struct {
	dir   string // without symbolic links
	file  *os.File
	mount *mountEntry // nil when dir is an ordinary directory
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
