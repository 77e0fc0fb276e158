package btrfsvol

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/internal/btrfstest"
)

// actor does random things in a tree. What cannot be done is not done.
type actor struct {
	*rand.Rand
	root  string
	paths []string // some that exist, or did a while ago
	made  int
}

func (a *actor) some() string {
	if len(a.paths) == 0 || a.IntN(40) == 0 {
		a.paths = nil
		_ = filepath.WalkDir(a.root, func(p string, _ fs.DirEntry, _ error) error {
			a.paths = append(a.paths, p)
			return nil
		})
	}
	return a.paths[a.IntN(len(a.paths))]
}

// fresh is a path where probably nothing is.
func (a *actor) fresh() string {
	dir := a.some()
	for st, err := os.Lstat(dir); err != nil || !st.IsDir(); st, err = os.Lstat(dir) {
		dir = filepath.Dir(dir)
	}
	a.made++
	name := fmt.Sprint(string(rune('a'+a.IntN(8))), a.IntN(30))
	if a.IntN(20) == 0 {
		name = fmt.Sprintf("%0200d", a.made)
	}
	p := filepath.Join(dir, name)
	a.paths = append(a.paths, p)
	return p
}

func (a *actor) bytes(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(a.Uint32())
	}
	return p
}

func (a *actor) write(p string, size int) error {
	return openFile(p, unix.O_CREAT|unix.O_TRUNC, func(fd int) error { _, err := unix.Write(fd, a.bytes(size)); return err })
}

func (a *actor) fallocate(mode uint32) error {
	off, length := int64(a.IntN(90000)), 1+int64(a.IntN(60000))
	if a.IntN(2) == 0 {
		off, length = off&^4095, max(4096, length&^4095)
	}
	return openFile(a.some(), 0, func(fd int) error { return unix.Fallocate(fd, mode, off, length) })
}

func (a *actor) act() error {
	switch a.IntN(34) {
	case 0, 1, 2:
		return a.write(a.fresh(), a.IntN(20000))
	case 3:
		return a.write(a.fresh(), a.IntN(100))
	case 4, 5, 6:
		off, data := int64(a.IntN(100000)), a.bytes(1+a.IntN(9000))
		return openFile(a.some(), 0, func(fd int) error { _, err := unix.Pwrite(fd, data, off); return err })
	case 7:
		return os.Truncate(a.some(), int64(a.IntN(100000)))
	case 8:
		return a.fallocate(unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE)
	case 9:
		return a.fallocate(0)
	case 10:
		return a.fallocate(unix.FALLOC_FL_KEEP_SIZE)
	case 11:
		return a.fallocate(unix.FALLOC_FL_ZERO_RANGE)
	case 12, 13:
		return os.Rename(a.some(), a.some())
	case 14, 15:
		return os.Rename(a.some(), a.fresh())
	case 16, 17:
		return unix.Renameat2(unix.AT_FDCWD, a.some(), unix.AT_FDCWD, a.some(), unix.RENAME_EXCHANGE)
	case 18, 19:
		return os.Link(a.some(), a.fresh())
	case 20, 21:
		if p := a.some(); p != a.root {
			return os.Remove(p)
		}
		return nil
	case 22:
		p := a.some()
		if a.IntN(4) > 0 || p == a.root {
			return nil
		}
		return os.RemoveAll(p)
	case 23:
		return unix.Fchmodat(unix.AT_FDCWD, a.some(), a.Uint32()&0o7777, unix.AT_SYMLINK_NOFOLLOW)
	case 24:
		return os.Lchown(a.some(), a.IntN(3), a.IntN(3))
	case 25:
		return unix.Lsetxattr(a.some(), "user.x"+strconv.Itoa(a.IntN(3)), a.bytes(a.IntN(300)), 0)
	case 26:
		if a.IntN(2) == 0 {
			// An empty set of capabilities, version 2.
			return unix.Lsetxattr(a.some(), "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0)
		}
		return unix.Lremovexattr(a.some(), "user.x"+strconv.Itoa(a.IntN(3)))
	case 27, 28:
		return os.Mkdir(a.fresh(), 0o755)
	case 29:
		kinds := []uint32{unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR, unix.S_IFBLK}
		return unix.Mknod(a.fresh(), kinds[a.IntN(4)]|0o600, int(unix.Mkdev(uint32(a.IntN(3000)), uint32(a.IntN(9)))))
	case 30:
		return os.Symlink(fmt.Sprint("to ", a.Uint32()), a.fresh())
	case 31, 32:
		return a.clone()
	default:
		at := []unix.Timespec{{Sec: int64(a.IntN(1e9))}, {Sec: int64(a.IntN(1e9)), Nsec: 7}}
		return unix.UtimesNanoAt(unix.AT_FDCWD, a.some(), at, unix.AT_SYMLINK_NOFOLLOW)
	}
}

// clone makes a file share another one's extents, or its own.
func (a *actor) clone() error {
	to := a.some()
	if a.IntN(2) == 0 {
		to = a.fresh()
	}
	return openFile(a.some(), 0, func(from int) error {
		return openFile(to, unix.O_CREAT, func(fd int) error {
			if a.IntN(2) == 0 {
				return unix.IoctlFileClone(fd, from)
			}
			return unix.IoctlFileCloneRange(fd, &unix.FileCloneRange{
				Src_fd: int64(from), Src_offset: uint64(a.IntN(4)) << 12, Src_length: uint64(1+a.IntN(4)) << 12, Dest_offset: uint64(a.IntN(20)) << 12,
			})
		})
	})
}

// TestRandom compares what Changes tells with the trees themselves, after
// thousands of random calls. BTRFSVOL_SEEDS sets for how many seeds.
func TestRandom(t *testing.T) {
	seeds, _ := strconv.Atoi(os.Getenv("BTRFSVOL_SEEDS"))
	first, _ := strconv.Atoi(os.Getenv("BTRFSVOL_FIRST_SEED"))
	if seeds == 0 {
		seeds = 2
	}
	for seed := first; seed < first+seeds; seed++ {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { random(t, uint64(seed)) })
	}
}

func random(t *testing.T, seed uint64) {
	dir := btrfstest.New(t)
	vol := filepath.Join(dir, "vol")
	do(t, Create(vol))
	if seed%2 == 1 {
		do(t, unix.Setxattr(vol, "btrfs.compression", []byte("zstd"), 0))
	}
	do(t, os.MkdirAll(filepath.Join(vol, "a0/hidden"), 0o755))
	a := &actor{Rand: rand.New(rand.NewPCG(seed, 1)), root: vol}
	snapshot := func(i int) string { return filepath.Join(dir, fmt.Sprint("snap", i)) }
	counts := map[Kind]int{}
	done := 0
	const rounds = 12
	for round := range rounds {
		calls := []int{3, 30, 300, 1000}[a.IntN(4)]
		for range calls {
			if a.act() == nil {
				done++
			}
		}
		do(t, Snapshot(vol, snapshot(round), true))
		if round == 0 {
			continue
		}
		for _, c := range checkChanges(t, snapshot(round-1), snapshot(round), "") {
			counts[c.Kind]++
		}
		checkChanges(t, snapshot(round-1), snapshot(round), "a0")
		if round%4 == 3 {
			checkChanges(t, snapshot(0), snapshot(round), "")
			checkChanges(t, snapshot(round), snapshot(0), "a0/hidden") // back
		}
	}
	t.Logf("%d calls, changes %v", done, counts)
	for _, kind := range []Kind{Deleted, Created, Renamed, Changed, Linked} {
		if counts[kind] == 0 {
			t.Errorf("nothing was %v", kind)
		}
	}
}
