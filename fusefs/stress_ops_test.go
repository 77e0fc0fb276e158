package fusefs

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// stressOps are what the stress does, by name.
func stressOps(t *testing.T, sides [2]*side) map[string]func(*side, *dice) string {
	flags := []int{
		unix.O_RDWR | unix.O_CREAT, unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL, unix.O_RDONLY, unix.O_RDWR | unix.O_TRUNC,
		unix.O_RDWR | unix.O_APPEND | unix.O_CREAT, unix.O_RDONLY | unix.O_DIRECTORY, unix.O_RDWR | unix.O_DIRECT | unix.O_CREAT,
		unix.O_RDWR | unix.O_CREAT | unix.O_NOFOLLOW | unix.O_SYNC, unix.O_RDONLY | unix.O_NOATIME,
	}
	if takesTmpfile(t, sides[0].root) {
		flags = append(flags, unix.O_RDWR|unix.O_TMPFILE, unix.O_RDWR|unix.O_TMPFILE|unix.O_EXCL)
	}
	open := func(s *side, d *dice) string {
		s.close(d.slot)
		fd, err := unix.Openat(s.dir(d), d.a, flags[d.pick%len(flags)]|unix.O_NONBLOCK|unix.O_CLOEXEC, uint32(d.pick)&0o7777)
		if err == nil {
			s.open[d.slot] = fd
		}
		return said(err)
	}
	all := map[string]func(*side, *dice) string{
		"open": open, "open 2": open, "open 3": open, "open 4": open, "open 5": open,
		"close": func(s *side, d *dice) string { s.close(d.slot); return "ok" },
	}
	for _, more := range []map[string]func(*side, *dice) string{dataOps(), nameOps(), metaOps()} {
		for name, op := range more {
			all[name] = op
		}
	}
	return all
}

// takesTmpfile tells whether O_TMPFILE is known; through FUSE from Linux 6.2 on.
func takesTmpfile(t *testing.T, dir int) bool {
	t.Helper()
	fd, err := unix.Openat(dir, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == unix.EOPNOTSUPP {
		t.Log("no O_TMPFILE here")
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(fd)
	return true
}

// dataOps work on open files.
func dataOps() map[string]func(*side, *dice) string {
	return map[string]func(*side, *dice) string{
		"pwrite": func(s *side, d *dice) string {
			buf, off := buffer(s.open[d.slot], d)
			n, err := unix.Pwrite(s.open[d.slot], buf, off)
			return said(err, n)
		},
		"write": func(s *side, d *dice) string {
			buf, _ := buffer(s.open[d.slot], d)
			n, err := unix.Write(s.open[d.slot], buf)
			return said(err, n)
		},
		"pread": func(s *side, d *dice) string {
			buf, off := buffer(s.open[d.slot], d)
			n, err := unix.Pread(s.open[d.slot], buf, off)
			return said(err, n, sha256.Sum256(buf[:max(n, 0)]))
		},
		"read": func(s *side, d *dice) string {
			buf, _ := buffer(s.open[d.slot], d)
			n, err := unix.Read(s.open[d.slot], buf)
			return said(err, n, sha256.Sum256(buf[:max(n, 0)]))
		},
		"seek": func(s *side, d *dice) string {
			if _, why := regular(s.open[d.slot]); why != "" {
				return why
			}
			off, err := unix.Seek(s.open[d.slot], d.off&^4095, d.pick%3)
			return said(err, off)
		},
		"ftruncate": func(s *side, d *dice) string { return said(unix.Ftruncate(s.open[d.slot], d.off)) },
		"fallocate": func(s *side, d *dice) string {
			modes := []uint32{
				0, unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE,
				unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_PUNCH_HOLE,
			}
			return said(unix.Fallocate(s.open[d.slot], modes[d.pick%len(modes)], d.off, int64(d.size)))
		},
		"seek hole": seekHole,
		"copy": func(s *side, d *dice) string {
			from, to := d.off, d.off/3
			n, err := unix.CopyFileRange(s.open[d.from], &from, s.open[d.slot], &to, d.size, 0)
			return said(err, n)
		},
		"fsync": func(s *side, d *dice) string { return said(unix.Fsync(s.open[d.slot])) },
		"mmap":  mapped,
		"flock": func(s *side, d *dice) string {
			how := []int{unix.LOCK_SH, unix.LOCK_EX, unix.LOCK_UN}[d.pick%3]
			return said(unix.Flock(s.open[d.slot], how|unix.LOCK_NB))
		},
		"lock range": func(s *side, d *dice) string {
			lk := unix.Flock_t{Type: int16(d.pick % 3), Start: d.off, Len: int64(d.size)}
			return said(unix.FcntlFlock(uintptr(s.open[d.slot]), unix.F_OFD_SETLK, &lk))
		},
		"list": func(s *side, d *dice) string {
			if _, err := unix.Seek(s.open[d.slot], 0, 0); err != nil {
				return said(err)
			}
			var names []string
			buf := make([]byte, 8192)
			for {
				n, err := unix.ReadDirent(s.open[d.slot], buf)
				if err != nil || n == 0 {
					slices.Sort(names)
					return said(err, names)
				}
				_, _, names = unix.ParseDirent(buf[:n], -1, names)
			}
		},
	}
}

// buffer is what is written, and where, fit for O_DIRECT if that is set.
func buffer(fd int, d *dice) ([]byte, int64) {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_DIRECT == 0 {
		return bytes.Repeat([]byte{d.fill}, d.size), d.off
	}
	buf := bytes.Repeat([]byte{d.fill}, 4096*17)
	shift := int(-uintptr(unsafe.Pointer(&buf[0])) & 4095)
	return buf[shift : shift+4096*(d.size/5000+1)], d.off &^ 4095
}

// seekHole finds the next data or hole. Where they are may differ, by what of an
// allocated part was read; that only zeros are skipped may not.
func seekHole(s *side, d *dice) string {
	fd := s.open[d.slot]
	size, why := regular(fd)
	if why != "" {
		return why
	}
	data, err := unix.Seek(fd, d.off, unix.SEEK_DATA)
	if err != nil && err != unix.ENXIO {
		return said(err)
	}
	hole, err := unix.Seek(fd, d.off, unix.SEEK_HOLE)
	if data < 0 {
		data = size
	}
	if err == nil && (hole < d.off || hole > size) {
		return fmt.Sprintf("hole at %d of %d", hole, size)
	}
	flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if skipped := data - d.off; skipped > 0 && flags&(unix.O_DIRECT|unix.O_WRONLY) == 0 {
		buf := make([]byte, skipped)
		if n, err := unix.Pread(fd, buf, d.off); err != nil || len(bytes.Trim(buf[:n], "\x00")) > 0 {
			return fmt.Sprintf("data before %d: %v", data, err)
		}
	}
	_, errBack := unix.Seek(fd, 0, unix.SEEK_SET)
	if errBack != nil {
		return said(errBack)
	}
	return said(err)
}

// regular gives an open file's size, and why it is not one that can be sought in:
// a directory's positions are its file system's own business.
func regular(fd int) (size int64, why string) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	if err != nil || st.Mode&unix.S_IFMT == unix.S_IFREG {
		return st.Size, strings.TrimSuffix(said(err), "ok:")
	}
	return 0, "no regular file"
}

// mapped reads and writes through a shared mapping. The memory is touched by
// system calls only: a page fault elsewhere would stop the collector of this
// process, and with it the file system that is to answer the fault.
func mapped(s *side, d *dice) string {
	const size = 64 << 10
	mem, err := unix.Mmap(s.open[d.slot], 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return said(err)
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		return err.Error()
	}
	part := mem[d.off%size:]
	part = part[:min(len(part), d.size, 4096)]
	wrote, errWrite := unix.Write(pipe[1], part)
	was := make([]byte, max(wrote, 0))
	_, _ = unix.Read(pipe[0], was)
	_, _ = unix.Write(pipe[1], bytes.Repeat([]byte{d.fill}, len(part)))
	got, errRead := unix.Read(pipe[0], part)
	errSync := unix.Msync(mem, unix.MS_SYNC)
	_, _ = unix.Close(pipe[0]), unix.Close(pipe[1])
	if err := unix.Munmap(mem); err != nil {
		return err.Error()
	}
	if errRead != nil { // behind the end
		return said(errRead, errWrite, errSync)
	}
	return said(errSync, wrote, errWrite, sha256.Sum256(was), got)
}

// nameOps make, move and remove names.
func nameOps() map[string]func(*side, *dice) string {
	return map[string]func(*side, *dice) string{
		"mkdir":     func(s *side, d *dice) string { return said(unix.Mkdirat(s.dir(d), d.a, uint32(d.pick)&0o7777)) },
		"mkdir too": func(s *side, d *dice) string { return said(unix.Mkdirat(s.root, d.b, 0o755)) },
		"rmdir": func(s *side, d *dice) string {
			return said(unix.Unlinkat(s.dir(d), d.a, unix.AT_REMOVEDIR))
		},
		"unlink": func(s *side, d *dice) string { return said(unix.Unlinkat(s.dir(d), d.a, 0)) },
		"rename": func(s *side, d *dice) string { return said(unix.Renameat(s.dir(d), d.a, s.root, d.b)) },
		"rename noreplace": func(s *side, d *dice) string {
			return said(unix.Renameat2(s.dir(d), d.a, s.root, d.b, unix.RENAME_NOREPLACE))
		},
		"exchange": func(s *side, d *dice) string {
			return said(unix.Renameat2(s.dir(d), d.a, s.root, d.b, unix.RENAME_EXCHANGE))
		},
		"link": func(s *side, d *dice) string {
			return said(unix.Linkat(s.dir(d), d.a, s.root, linkName(d), d.pick%2*unix.AT_SYMLINK_FOLLOW))
		},
		"link open file": func(s *side, d *dice) string {
			if s.open[d.slot] < 0 {
				return "none"
			}
			return said(unix.Linkat(unix.AT_FDCWD, procPath(s.open[d.slot]), s.root, linkName(d), unix.AT_SYMLINK_FOLLOW))
		},
		"symlink": func(s *side, d *dice) string {
			return said(unix.Symlinkat(strings.Repeat("../", d.pick%2)+d.b, s.dir(d), d.a))
		},
		"readlink": func(s *side, d *dice) string {
			buf := make([]byte, 100)
			n, err := unix.Readlinkat(s.dir(d), d.a, buf)
			return said(err, string(buf[:max(n, 0)]))
		},
		"mknod": func(s *side, d *dice) string {
			kind := []uint32{unix.S_IFIFO, unix.S_IFREG, unix.S_IFSOCK, unix.S_IFCHR}[d.pick%4]
			return said(unix.Mknodat(s.dir(d), d.a, kind|uint32(d.size)&0o7777, int(unix.Mkdev(1, 3))))
		},
	}
}

// linkName is a name for a further link, mostly one that is free.
func linkName(d *dice) string { return fmt.Sprint("link ", d.pick%40) }

// metaOps look at files and change what is known of them.
func metaOps() map[string]func(*side, *dice) string {
	uids := []int{0, 1000, 65534, -1}
	times := func(d *dice) []unix.Timespec {
		return []unix.Timespec{{Sec: d.off, Nsec: int64(d.size)}, {Sec: 1_000_000_000 + d.off, Nsec: int64(d.size)}}
	}
	names := []string{"user.\xff", "trusted.two", "security.three"}
	return map[string]func(*side, *dice) string{
		"stat": func(s *side, d *dice) string {
			var st unix.Stat_t
			err := unix.Fstatat(s.dir(d), d.a, &st, d.pick%2*unix.AT_SYMLINK_NOFOLLOW)
			return said(err, stated(&st))
		},
		"fstat": func(s *side, d *dice) string {
			var st unix.Stat_t
			err := unix.Fstat(s.open[d.slot], &st)
			return said(err, stated(&st))
		},
		"chmod":  func(s *side, d *dice) string { return said(unix.Fchmodat(s.dir(d), d.a, uint32(d.pick)&0o7777, 0)) },
		"fchmod": func(s *side, d *dice) string { return said(unix.Fchmod(s.open[d.slot], uint32(d.pick)&0o7777)) },
		"chown": func(s *side, d *dice) string {
			return said(unix.Fchownat(s.dir(d), d.a, uids[d.pick%4], uids[d.size%4], unix.AT_SYMLINK_NOFOLLOW))
		},
		"fchown": func(s *side, d *dice) string {
			return said(unix.Fchown(s.open[d.slot], uids[d.pick%4], uids[d.size%4]))
		},
		"utimes": func(s *side, d *dice) string {
			return said(unix.UtimesNanoAt(s.dir(d), d.a, times(d), unix.AT_SYMLINK_NOFOLLOW))
		},
		"futimes": func(s *side, d *dice) string {
			if s.open[d.slot] < 0 {
				return "none"
			}
			return said(unix.UtimesNanoAt(s.open[d.slot], "", times(d), unix.AT_EMPTY_PATH))
		},
		"truncate": func(s *side, d *dice) string { return said(unix.Truncate(s.proc(d), d.off)) },
		"setxattr": func(s *side, d *dice) string {
			return said(unix.Lsetxattr(s.proc(d), names[d.pick%3], make([]byte, d.size%300), d.pick/3%3))
		},
		"fsetxattr": func(s *side, d *dice) string {
			return said(unix.Fsetxattr(s.open[d.slot], names[d.pick%3], make([]byte, d.size%300), d.pick/3%3))
		},
		"getxattr": func(s *side, d *dice) string {
			buf := make([]byte, 100)
			n, err := unix.Lgetxattr(s.proc(d), names[d.pick%3], buf)
			return said(err, n)
		},
		"fgetxattr": func(s *side, d *dice) string {
			n, err := unix.Fgetxattr(s.open[d.slot], names[d.pick%3], nil)
			return said(err, n)
		},
		"listxattr": func(s *side, d *dice) string {
			buf := make([]byte, 1000)
			n, err := unix.Flistxattr(s.open[d.slot], buf)
			return said(err, string(buf[:max(n, 0)]))
		},
		"removexattr": func(s *side, d *dice) string { return said(unix.Lremovexattr(s.proc(d), names[d.pick%3])) },
		"fremovexattr": func(s *side, d *dice) string {
			return said(unix.Fremovexattr(s.open[d.slot], names[d.pick%3]))
		},
		"access": func(s *side, d *dice) string { return said(unix.Faccessat(s.dir(d), d.a, uint32(d.pick%8), 0)) },
	}
}
