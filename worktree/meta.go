package worktree

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/snapshot"
)

func procSelf(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// setMeta gives the file that fd refers to, which may be an O_PATH descriptor
// of anything, all metadata of e but its inode flags. What this caller or this
// file system may not do is counted, not an error. It returns the inode.
//
// The order matters: a change of owner clears setuid bits and capabilities;
// user attributes need the write permission that the final mode may not give;
// ACLs and the mode's group bits are one thing seen twice; times come last.
func (a *applier) setMeta(fd int, e *snapshot.Entry) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, err
	}
	m := metaSetter{fd: fd, e: e, st: &st, link: isLink(e.Mode)}
	for _, step := range []func() error{m.owner, m.attributes, m.mode, m.acls, m.times} {
		if err := step(); err != nil {
			return 0, err
		}
	}
	if m.unowned || m.unset {
		a.mu.Lock()
		defer a.mu.Unlock()
		if m.unowned {
			a.res.Unowned++
		}
		if m.unset {
			a.res.Unset++
		}
	}
	return st.Ino, nil
}

type metaSetter struct {
	fd      int
	e       *snapshot.Entry
	st      *unix.Stat_t
	link    bool
	lost    uint32 // mode bits that must not be given without the owner they speak of
	unowned bool
	unset   bool
}

func (m *metaSetter) owner() error {
	e := m.e
	if m.st.Uid == e.UID && m.st.Gid == e.GID {
		return nil
	}
	chown := func(uid, gid int) error { return unix.Fchownat(m.fd, "", uid, gid, unix.AT_EMPTY_PATH) }
	err := chown(int(e.UID), int(e.GID))
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	m.unowned = true
	if m.st.Uid != e.UID {
		m.lost |= unix.S_ISUID
	}
	if m.st.Gid != e.GID && chown(-1, int(e.GID)) != nil {
		m.lost |= unix.S_ISGID
	}
	return nil
}

// attributes removes what should not be there and sets all but ACLs.
func (m *metaSetter) attributes() error {
	have, err := fdXattrs(m.fd)
	if err != nil {
		return err
	}
	want := map[string]bool{}
	for _, x := range m.e.Xattrs {
		want[x.Name] = true
	}
	m.writable(have)
	for _, x := range have {
		if !want[x.Name] {
			if err := m.try(unix.Removexattr(procSelf(m.fd), x.Name)); err != nil {
				return err
			}
		}
	}
	return m.set(have, false)
}

func (m *metaSetter) acls() error { return m.set(nil, true) }

func (m *metaSetter) set(have []snapshot.Xattr, acls bool) error {
	for _, x := range m.e.Xattrs {
		if strings.HasPrefix(x.Name, "system.posix_acl_") != acls {
			continue
		}
		same := func(h snapshot.Xattr) bool { return h.Name == x.Name && string(h.Value) == string(x.Value) }
		if slices.ContainsFunc(have, same) {
			continue
		}
		if err := m.try(unix.Setxattr(procSelf(m.fd), x.Name, x.Value, 0)); err != nil {
			return fmt.Errorf("set attribute %s: %w", x.Name, err)
		}
	}
	return nil
}

// writable lets the owner change user attributes of a file that nobody may
// write to; mode puts the final bits back right after.
func (m *metaSetter) writable(have []snapshot.Xattr) {
	if len(have)+len(m.e.Xattrs) > 0 && !m.link && m.st.Mode&0o200 == 0 {
		if unix.Chmod(procSelf(m.fd), m.st.Mode&0o7777|0o200) == nil {
			m.st.Mode |= 0o200
		}
	}
}

// try forgives what depends on rights and on the file system.
func (m *metaSetter) try(err error) error {
	for _, forgiven := range []error{unix.EPERM, unix.EACCES, unix.ENOTSUP} {
		if errors.Is(err, forgiven) {
			m.unset = true
			return nil
		}
	}
	if errors.Is(err, unix.ENODATA) {
		return nil
	}
	return err
}

func (m *metaSetter) mode() error {
	if m.link {
		return nil
	}
	return unix.Chmod(procSelf(m.fd), m.e.Mode&0o7777&^m.lost)
}

func (m *metaSetter) times() error {
	atime := unix.Timespec{Nsec: unix.UTIME_OMIT}
	if m.e.Atime != 0 {
		atime = unix.NsecToTimespec(m.e.Atime)
	}
	return unix.UtimesNanoAt(m.fd, "", []unix.Timespec{atime, unix.NsecToTimespec(m.e.Mtime)}, unix.AT_EMPTY_PATH)
}

// The kernel's inode flags, from linux/fs.h.
const (
	kernelImmutable = 0x10
	kernelAppend    = 0x20
	kernelNoDump    = 0x40
	kernelOurs      = kernelImmutable | kernelAppend | kernelNoDump
)

func kernelFlags(flags uint32) (k uint32) {
	if flags&snapshot.FlagNoDump != 0 {
		k |= kernelNoDump
	}
	if flags&snapshot.FlagImmutable != 0 {
		k |= kernelImmutable
	}
	if flags&snapshot.FlagAppend != 0 {
		k |= kernelAppend
	}
	return k
}

// clearFlags takes away the inode flags that forbid changes, if had says that
// there are any.
func clearFlags(dir int, name string, had uint32) error {
	if had&(snapshot.FlagImmutable|snapshot.FlagAppend) == 0 {
		return nil
	}
	return setFlags(dir, name, had&snapshot.FlagNoDump)
}

func setFlags(dir int, name string, flags uint32) error {
	fd, err := openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	now, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return err
	}
	want := now&^kernelOurs | kernelFlags(flags)
	if want == now {
		return nil
	}
	return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(want))
}

// finishFlags sets inode flags at the very end: an immutable file cannot be
// renamed or linked, nor an immutable directory filled.
func (a *applier) finishFlags() {
	for _, x := range a.flagged {
		if !isRegular(x.New.Mode) && !isDir(x.New.Mode) {
			continue
		}
		err := a.root.at(x.Path, func(dir int, name string) error { return setFlags(dir, name, x.New.Flags) })
		if err != nil {
			a.res.Unset++
			a.o.Log.Debug("inode flags not set", "path", x.Path, "err", err)
		}
	}
}
