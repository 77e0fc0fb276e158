package fusefs

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// openSlots is how many files the stress keeps open at once.
const openSlots = 4

// side is one of two directories on which the same is done: one in the mount,
// one beside it on the same disk.
type side struct {
	root int
	open [openSlots]int // -1 where there is none
}

// dice is what a step draws; both sides do it with the same.
type dice struct {
	a, b       string
	dir        int // below which slot's directory a is; openSlots for the root
	slot, from int
	off        int64
	size       int
	pick       int
	fill       byte
}

// TestLikeAPlainDirectory does thousands of random things to the live tree and to
// a plain directory: each must end the same, and what is there then be the same.
func TestLikeAPlainDirectory(t *testing.T) {
	steps := 10_000
	if os.Getenv("S4_LONG") != "" {
		steps = 50_000
	}
	for mode, off := range map[string]bool{"passthrough": false, "through the process": true} {
		for seed := range uint64(2) {
			t.Run(fmt.Sprint(mode, " ", seed), func(t *testing.T) {
				const deep = "/1/2/3/4/5/6" // so that links with .. stay inside
				volume, plain := newVolume(t), t.TempDir()
				below := filepath.Join(volume, "work")
				for _, dir := range []string{below, plain} {
					if err := os.MkdirAll(dir+deep, 0o700); err != nil {
						t.Fatal(err)
					}
					if err := os.Chmod(dir, 0o700); err != nil {
						t.Fatal(err)
					}
				}
				mnt := mountLive(t, volume, newFakeHistory(), func(o *Options) { o.NoPassthrough, o.MountOptions = off, []string{"dev"} })
				work := filepath.Join(mnt, "work")
				sides := [2]*side{newSide(t, work+deep), newSide(t, plain+deep)}
				doSteps(t, sides, rand.New(rand.NewPCG(seed, 7)), steps, func() bool { //nolint:gosec // reproducible on purpose
					return sameTrees(t, work, plain)
				})
				if !sameTrees(t, below, plain) {
					t.Error("below the mount")
				}
			})
		}
	}
}

// doSteps stops at the first difference and tells what led there.
func doSteps(t *testing.T, sides [2]*side, rng *rand.Rand, steps int, same func() bool) {
	ops := stressOps(t, sides)
	names := slices.Sorted(maps.Keys(ops))
	var past []string
	done := map[string]int{}
	for i := range steps {
		name := names[rng.IntN(len(names))]
		d := draw(rng)
		got, want := ops[name](sides[0], &d), ops[name](sides[1], &d)
		past = append(past, fmt.Sprintf("%-16s %v: %s", name, d, want))
		if got == want {
			done[name+" "+strings.SplitN(got, ":", 2)[0]]++
		}
		if got != want || i%1000 == 999 && !same() || i == steps-1 && !same() {
			t.Fatalf("step %d: got %s, want %s; before:\n%s", i, got, want, strings.Join(past[max(0, len(past)-25):], "\n"))
		}
	}
	for _, name := range names { // a stress in which nothing works proves nothing
		if done[name+" ok"] < 3 {
			t.Errorf("%s went well %d times only", name, done[name+" ok"])
		}
	}
}

func newSide(t *testing.T, dir string) *side {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &side{root: fd}
	for i := range s.open {
		s.open[i] = -1
	}
	t.Cleanup(func() {
		for i := range s.open {
			s.close(i)
		}
		_ = unix.Close(s.root)
	})
	return s
}

func (s *side) close(slot int) {
	if s.open[slot] >= 0 {
		_ = unix.Close(s.open[slot])
	}
	s.open[slot] = -1
}

// dir is the directory that paths begin at.
func (s *side) dir(d *dice) int {
	if d.dir < openSlots {
		return s.open[d.dir]
	}
	return s.root
}

// proc is a path for calls that take no directory.
func (s *side) proc(d *dice) string { return fmt.Sprintf("/proc/self/fd/%d/%s", s.dir(d), d.a) }

func (d dice) String() string {
	return fmt.Sprintf("%+q %+q dir %d slot %d from %d off %d size %d pick %d", d.a, d.b, d.dir, d.slot, d.from, d.off, d.size, d.pick)
}

func draw(rng *rand.Rand) dice {
	name := func() string {
		names := []string{"a", "b", "c", "\xff\xfe d"}
		p := names[rng.IntN(len(names))]
		for rng.IntN(3) == 0 {
			p += "/" + names[rng.IntN(len(names))]
		}
		return p
	}
	d := dice{
		a: name(), b: name(), dir: openSlots, slot: rng.IntN(openSlots), from: rng.IntN(openSlots),
		off: rng.Int64N(200_000), size: rng.IntN(70_000), pick: rng.IntN(1 << 20), fill: byte(rng.IntN(256)),
	}
	if rng.IntN(4) == 0 {
		d.dir = rng.IntN(openSlots)
	}
	return d
}

// said is how a call ended, for comparison.
func said(err error, values ...any) string {
	var errno unix.Errno
	switch {
	case err == nil:
		return strings.TrimSpace("ok: " + fmt.Sprint(values...))
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	default:
		return err.Error()
	}
}

// stated is what of a stat must be the same on both sides. A directory's size is
// the file system's own business, and times are those that were set, all long ago.
// That of a pipe is left alone by the kernel when it is written to through FUSE.
func stated(st *unix.Stat_t) string {
	size, mtime := st.Size, st.Mtim
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		size = 0
	}
	if mtime.Sec > 1_500_000_000 || st.Mode&unix.S_IFMT == unix.S_IFIFO {
		mtime = unix.Timespec{Sec: -1}
	}
	return fmt.Sprintf("mode %o of %d:%d, %d links, %d bytes, %d.%d, device %x", st.Mode, st.Uid, st.Gid, st.Nlink, size, mtime.Sec, mtime.Nsec, st.Rdev)
}

// sameTrees compares everything that is below two directories.
func sameTrees(t *testing.T, a, b string) bool {
	t.Helper()
	got, want, same := describe(t, a), describe(t, b), true
	for path := range want {
		if got[path] != want[path] {
			t.Errorf("%q: %s\nwant: %s", path, got[path], want[path])
			same = false
		}
		delete(got, path)
	}
	for path := range got {
		t.Errorf("%q should not be there", path)
		same = false
	}
	return same
}

// describe tells all of everything below a directory.
func describe(t *testing.T, top string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(top, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		text := stated(&st)
		for _, x := range xattrsOf(t, path) {
			text += fmt.Sprintf(", %s=%x", x.Name, sha256.Sum256(x.Value))
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(", content %x", sha256.Sum256(data))
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			text += " -> " + target
		}
		rel, err := filepath.Rel(top, path)
		all[rel] = text
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
