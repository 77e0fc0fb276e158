package archive_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/archive"
	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/btrfsvol"
	"github.com/s4-storage/s4/internal/btrfstest"
	"github.com/s4-storage/s4/internal/pathspec"
	"github.com/s4-storage/s4/worktree"
)

// hiddenDir is what no archive has.
const hiddenDir = "hid"

// leftOut are further paths that none has: by name, anchored, and only directories,
// so that what is moved or becomes another type goes out of sight and comes back.
var leftOut = func() *pathspec.Exclusion {
	e, err := pathspec.NewExclusion([]string{"tmp-*", "b7", "c1/", "c2/", "/a1/*", "/deep/a*", "e*/b*/"})
	if err != nil {
		panic(err)
	}
	return e
}()

func hidden(path string, dir bool) bool { return path == hiddenDir || leftOut.Match(path, dir) }

// editor does random things to a tree. What cannot be done is not done.
type editor struct {
	*rand.Rand
	root string
}

// all gives the paths of those kinds; of every kind with none.
func (e *editor) all(want func(fs.FileMode) bool) (paths []string) {
	_ = filepath.WalkDir(e.root, func(p string, d fs.DirEntry, err error) error {
		if err == nil && (want == nil || want(d.Type())) {
			paths = append(paths, p)
		}
		return nil
	})
	return paths
}

func (e *editor) pick(paths []string) string {
	if len(paths) == 0 {
		return filepath.Join(e.root, "nothing")
	}
	return paths[e.IntN(len(paths))]
}

func (e *editor) some() string { return e.pick(e.all(nil)) }
func (e *editor) file() string { return e.pick(e.all(fs.FileMode.IsRegular)) }
func (e *editor) nondir() string {
	return e.pick(e.all(func(m fs.FileMode) bool { return !m.IsDir() }))
}
func (e *editor) dir() string { return e.pick(e.all(fs.FileMode.IsDir)) }
func (e *editor) noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(e.Uint32())
	}
	return b
}

// fresh is a path in some directory; names are few, so that they come again.
func (e *editor) fresh() string {
	name := fmt.Sprint(string(rune('a'+e.IntN(5))), e.IntN(12))
	switch e.IntN(30) {
	case 0:
		name = "tmp-" + name
	case 1:
		return filepath.Join(e.root, hiddenDir, name)
	}
	return filepath.Join(e.dir(), name)
}

func (e *editor) change(path string, do func(f *os.File) error) error {
	if st, err := os.Lstat(path); err != nil || !st.Mode().IsRegular() {
		return fs.ErrInvalid
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(do(f), f.Close())
}

func (e *editor) edit() error {
	switch e.IntN(32) {
	case 0, 1, 2:
		p := e.fresh()
		if st, err := os.Lstat(p); err == nil && !st.Mode().IsRegular() {
			return fs.ErrExist // to open a fifo or a device is no good
		}
		return os.WriteFile(p, e.noise(e.IntN(9000)), 0o644)
	case 3, 4:
		return e.change(e.file(), func(f *os.File) error {
			st, err := f.Stat()
			if err == nil {
				_, err = f.WriteAt(e.noise(1+e.IntN(5000)), e.Int64N(st.Size()+1))
			}
			return err
		})
	case 5:
		return e.change(e.file(), func(f *os.File) error { return f.Truncate(int64(e.IntN(20000))) })
	case 6, 7:
		return os.Rename(e.nondir(), e.fresh())
	case 8, 9:
		return os.Rename(e.nondir(), e.nondir())
	case 10, 11, 12:
		return os.Rename(e.dir(), e.fresh())
	case 13:
		return os.Rename(e.dir(), e.dir())
	case 14, 15:
		return unix.Renameat2(unix.AT_FDCWD, e.some(), unix.AT_FDCWD, e.some(), unix.RENAME_EXCHANGE)
	case 16:
		return unix.Renameat2(unix.AT_FDCWD, e.dir(), unix.AT_FDCWD, e.dir(), unix.RENAME_EXCHANGE)
	case 17, 18, 19:
		return os.Link(e.nondir(), e.fresh())
	case 20, 21, 22:
		return os.Remove(e.nondir())
	case 23:
		if p := e.dir(); p != e.root && e.IntN(3) == 0 {
			return os.RemoveAll(p)
		}
		return nil
	case 24:
		return unix.Fchmodat(unix.AT_FDCWD, e.some(), e.Uint32()&0o7777, unix.AT_SYMLINK_NOFOLLOW)
	case 25:
		return os.Lchown(e.some(), e.IntN(3), e.IntN(3))
	case 26:
		if p := e.some(); e.IntN(3) > 0 {
			return unix.Lsetxattr(p, "user.x"+strconv.Itoa(e.IntN(3)), e.noise(e.IntN(100)), 0)
		}
		return unix.Lremovexattr(e.some(), "user.x"+strconv.Itoa(e.IntN(3)))
	case 27:
		return os.Mkdir(e.fresh(), 0o755)
	case 28:
		kinds := []uint32{unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR, unix.S_IFIFO}
		return unix.Mknod(e.fresh(), kinds[e.IntN(4)]|0o600, int(unix.Mkdev(uint32(e.IntN(3000)), uint32(e.IntN(9)))))
	case 29:
		return os.Symlink(fmt.Sprint("to ", e.IntN(5)), e.fresh())
	case 30: // another kind in its place
		p := e.nondir()
		if err := os.Remove(p); err != nil {
			return err
		}
		if e.IntN(2) == 0 {
			return os.Symlink("elsewhere", p)
		}
		return errors.Join(os.Mkdir(p, 0o700), os.WriteFile(p+"/in it", e.noise(5), 0o600))
	default:
		at := []unix.Timespec{{Sec: int64(e.IntN(1e9))}, {Sec: int64(e.IntN(1e9)), Nsec: int64(e.IntN(3))}}
		return unix.UtimesNanoAt(unix.AT_FDCWD, e.some(), at, unix.AT_SYMLINK_NOFOLLOW)
	}
}

// editBig changes a file of several chunks, as databases and appending do.
func (e *editor) editBig(path string) error {
	const size = 5 << 20
	if _, err := os.Lstat(path); err != nil {
		return os.WriteFile(path, e.noise(size), 0o600)
	}
	return e.change(path, func(f *os.File) error {
		_, err := f.WriteAt(e.noise(1+e.IntN(200_000)), int64(e.IntN(size)))
		if err == nil && e.IntN(3) == 0 {
			err = f.Truncate(int64(e.IntN(size)))
		}
		return err
	})
}

// rounds tells which seeds there are, and how many rounds each gets.
func rounds(t *testing.T) (first, seeds, rounds int) {
	t.Helper()
	get := func(name string, def int) int {
		if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
			return n
		}
		return def
	}
	return get("ARCHIVE_FIRST_SEED", 0), get("ARCHIVE_SEEDS", 2), get("ARCHIVE_ROUNDS", 10)
}

// TestRandomBtrfs: after any edits an archive that was updated, by what btrfs
// tells or by a scan, has the same item stream as one made of the whole tree
// without knowing anything. ARCHIVE_SEEDS sets for how many seeds.
func TestRandomBtrfs(t *testing.T) {
	first, seeds, rounds := rounds(t)
	for seed := first; seed < first+seeds; seed++ {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			disk := btrfstest.New(t)
			vol := filepath.Join(disk, "vol")
			do(t, btrfsvol.Create(vol))
			e := &editor{rand.New(rand.NewPCG(uint64(seed), 1)), vol}
			s := newSubject(t, e)
			for round := range rounds {
				e.round(round)
				at := filepath.Join(disk, fmt.Sprint("snap", round))
				do(t, btrfsvol.Snapshot(vol, at, true))
				before := ""
				if round > 0 {
					before = filepath.Join(disk, fmt.Sprint("snap", round-1))
				}
				s.round(t, round, at, before)
			}
			t.Logf("%d rounds told by btrfs, %d too tangled", s.told, s.tangled)
			if s.told == 0 {
				t.Error("btrfs never told what changed")
			}
		})
	}
}

// TestMoves is what chance rarely does.
func TestMoves(t *testing.T) {
	for _, twins := range []bool{true, false} {
		t.Run(fmt.Sprint("twins ", twins), func(t *testing.T) { moves(t, twins) })
	}
}

func moves(t *testing.T, twins bool) {
	disk := btrfstest.New(t)
	vol := filepath.Join(disk, "vol")
	do(t, btrfsvol.Create(vol))
	s := newSubject(t, &editor{root: vol})
	s.twins = twins
	before, number := "", 0
	for round, script := range []string{
		"mkdir -p a/d b/d hid tmp-d; echo t >tmp-x; echo u >tmp-d/u",
		"rm -r a; mv b a",             // into a deleted one's place, the same names in both
		"mkdir c; mv a/d c/e; mv a b", // out of it, and the rest elsewhere
		"mkdir a; mv c a/c; mv b a/b",
		"mv a/b x1; mv a/c a/b; mv x1 a/c",         // each other's places
		"mv tmp-x x; mv tmp-d shown; mv x tmp-y",   // into sight and out of it
		"mkdir l; echo l >l/f; ln l/f z; ln l/f 0", // several names,
		"mv l k",              // the middle one moved along
		"rm 0",                // the master is gone
		"mv k zz; echo m >>z", // and another one is first
		"mv zz hid/zz",        // and the second out of sight
		"mv hid/zz a0; mv a0 tmp-a0; mv tmp-a0 00; rm -r 00",
		"mkdir q qq; echo 1 >q/x; ln q/x zx; echo 2 >qq/x; ln qq/x zy",
		"mv q a1", // with a name that goes out of sight, and another that does not
		"mv qq tmp-qq",
		"mv a1 q; mv tmp-qq qq",
		"rm -r a; echo file >a; mv shown c; mkdir shown; echo n >shown/u",
	} {
		cmd := exec.CommandContext(t.Context(), "sh", "-ec", script)
		cmd.Dir = vol
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", script, err, out)
		}
		if round == 0 {
			for _, dir := range []string{"a", "b"} { // all in one moment
				for _, name := range []string{"f", "d/g", dir} {
					number++
					do(t, os.WriteFile(filepath.Join(vol, dir, name), []byte(fmt.Sprintf("%03d", number)), 0o600))
				}
			}
			for i, path := range s.e.all(fs.FileMode.IsRegular) {
				at := time.Unix(1e9, 0)
				if !twins {
					at = at.Add(time.Duration(i) * time.Second)
				}
				do(t, os.Chtimes(path, at, at))
			}
		}
		at := filepath.Join(disk, fmt.Sprint("snap", round))
		do(t, btrfsvol.Snapshot(vol, at, true))
		t.Log(script)
		s.round(t, round, at, before)
		before = at
	}
	if s.told < 5 {
		t.Errorf("btrfs told only of %d rounds", s.told)
	}
}

// TestRandomScan is the same on any file system.
func TestRandomScan(t *testing.T) {
	first, seeds, rounds := rounds(t)
	for seed := first; seed < first+seeds; seed++ {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			e := &editor{rand.New(rand.NewPCG(uint64(seed), 2)), t.TempDir()}
			t.Cleanup(func() {
				_ = filepath.WalkDir(e.root, func(p string, _ fs.DirEntry, _ error) error { return os.Chmod(p, 0o700) })
			})
			s := newSubject(t, e)
			for round := range rounds {
				e.round(round)
				s.round(t, round, e.root, "")
			}
		})
	}
}

func (e *editor) round(n int) {
	calls := []int{1, 5, 25, 120}[e.IntN(4)]
	if n == 0 {
		_ = os.Mkdir(filepath.Join(e.root, hiddenDir), 0o755)
		calls = 600
	}
	for range calls {
		_ = e.edit() // some cannot be done
	}
	if e.IntN(2) == 0 {
		_ = e.editBig(filepath.Join(e.root, "big"))
	}
}

// subject is a repository that gets archives made in every way there is.
type subject struct {
	e             *editor
	r             *repository
	base          *borgio.Outline
	told, tangled int
	twins         bool // there are files that only btrfs can tell from each other
}

func newSubject(t *testing.T, e *editor) *subject {
	s := &subject{e: e, r: newRepository(t, "none")}
	do(t, os.MkdirAll(filepath.Join(e.root, "deep/er"), 0o755))
	return s
}

// round archives the tree at dir; before is the btrfs snapshot of the round before.
func (s *subject) round(t *testing.T, round int, dir, before string) {
	t.Helper()
	ctx := t.Context()
	root := openRoot(t, dir)
	left := func(path string, err error) { t.Errorf("%s: %v", path, err) }
	tx := s.r.begin(t)
	maker := func() *archive.Maker { return &archive.Maker{Tx: tx, Root: root, Exclude: hidden, Left: left} }
	name := func(how string) borgio.ArchiveInfo { return info(fmt.Sprint(round, " ", how)) }
	want, err := maker().All(ctx, nil, name("whole"))
	do(t, err)
	made := map[string]archive.Result{}
	var moved func(string) bool
	if s.base != nil && before != "" {
		changes, err := btrfsvol.Changes(ctx, before, dir, btrfsvol.Options{Exclude: hiddenDir})
		do(t, err)
		moved = archive.Moved(changes)
		changed, err := archive.FromBtrfs(ctx, root, changes, hidden, left)
		if errors.Is(err, archive.ErrTooTangled) {
			s.tangled++
		} else {
			do(t, err)
			s.told++
			made["told"], err = maker().Update(ctx, s.base, changed, name("told"))
			do(t, err)
		}
	}
	if s.base != nil {
		m := maker()
		m.Moved = moved
		made["with a base"], err = m.All(ctx, s.base, name("with a base"))
		do(t, err)
	}
	if s.base != nil && !s.twins {
		base := archived(s.r.items(t, s.base.Archive))
		compared := root.Compare(ctx, base, worktree.Options{Exclude: hidden, Strict: true})
		made["scanned"], err = maker().Update(ctx, s.base, archive.FromScan(compared, left), name("scanned"))
		do(t, err)
	}
	do(t, tx.Commit(ctx))
	s.base = want.Outline
	for how, got := range made {
		if ids := objects(got.Outline); !slices.Equal(ids, objects(want.Outline)) {
			t.Errorf("round %d: %s it is another archive", round, how)
			sameItems(t, s.r.items(t, got.Ref.ID), s.r.items(t, want.Ref.ID))
		}
		s.base = got.Outline
	}
	if t.Failed() {
		t.FailNow()
	}
}

func objects(o *borgio.Outline) (ids []borgio.ID) {
	for i := range o.Sections {
		ids = append(ids, o.Sections[i].Objects...)
	}
	return ids
}
