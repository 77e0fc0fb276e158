package history

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/internal/btrfstest"
	"github.com/s4-storage/s4/snapshot"
)

// shelf is a subvolume with snapshots of it beside it.
type shelf struct {
	t     *testing.T
	mnt   string
	infos []snapshot.Info // that the source lists
}

func newShelf(t *testing.T) *shelf {
	s := &shelf{t: t, mnt: btrfstest.New(t)}
	s.sh(".", "btrfs -q subvolume create v; mkdir snaps")
	return s
}

// sh runs a script in a directory of the file system.
func (s *shelf) sh(dir, script string) {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), "bash", "-ec", script)
	cmd.Dir = filepath.Join(s.mnt, dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// snap makes a snapshot dated so many seconds after 2026 began.
func (s *shelf) snap(id string, second int64) snapshot.Info {
	s.t.Helper()
	s.sh(".", "btrfs -q subvolume snapshot -r v snaps/"+id)
	i := snapshot.Info{ID: id, Handle: id, Name: "snap-" + id, Volume: "vol", Time: time.Unix(1767225600+second, 0).UTC()}
	s.infos = append(s.infos, i)
	return i
}

// drop deletes a snapshot, and with tell the source says so.
func (s *shelf) drop(id string, tell bool) {
	s.t.Helper()
	s.sh("snaps", "btrfs -q subvolume delete "+id)
	if tell {
		s.infos = slices.DeleteFunc(s.infos, func(i snapshot.Info) bool { return i.ID == id })
	}
}

func (s *shelf) source() *BtrfsSource {
	return NewBtrfsSource("vol", filepath.Join(s.mnt, "snaps"),
		func(context.Context) ([]snapshot.Info, error) { return slices.Clone(s.infos), nil },
		func(path string, _ bool) bool { return path == ".s4/local" }, nil)
}

// everything makes one of each kind of file.
func (s *shelf) everything() {
	s.t.Helper()
	s.sh("v", `
		mkdir -p d/deep 'sp ace' .s4/local/private
		printf content > d/a; ln d/a d/deep/b; ln d/a 0first
		ln -s target link; ln -P link linked; ln -s "$(printf %01000d 0)" long
		mkfifo fifo; ln fifo fifo2; mknod char c 1 3; mknod block b 7 99
		setfattr -n user.x -v y d/a; setfattr -n trusted.t -v "$(printf %0900d 0)" d/deep
		setfacl -m u:1234:r d/a; setfacl -d -m g:12:rwx d
		cp /bin/true cap; setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 cap
		touch immutable append nodump compressed property empty
		head -c 10000 /dev/zero | tr '\0' x > property
		truncate -s 10M sparse; printf x | dd of=sparse bs=1 seek=5000000 conv=notrunc status=none; truncate -s 20M allhole
		printf tail > 'odd'$'\n'; printf x > $'\xff\xfe'; fallocate -l 1M reserved
		head -c 3000000 /dev/urandom > big; chown 12345:54321 big; chmod 4755 big; chown -h nobody:games link
		printf old > old; touch -d 1960-01-01 old; printf far > far; touch -d 2100-01-01 far; touch -hd 2001-02-03 link
		btrfs -q subvolume create nested; printf hidden > nested/hidden
		chattr +i immutable; chattr +a append; chattr +d nodump; chattr +c compressed
		btrfs property set property compression zstd`)
	l, err := new(net.ListenConfig).Listen(s.t.Context(), "unix", filepath.Join(s.mnt, "v/socket"))
	must(s.t, err)
	s.t.Cleanup(func() { l.Close() })
}

// archive runs borg over a snapshot.
func (s *shelf) archive(b *borg, repo string, i snapshot.Info) {
	s.t.Helper()
	b.dir = filepath.Join(s.mnt, "snaps", i.Handle)
	b.run("create", "--timestamp", i.Time.Format("2006-01-02T15:04:05"), "--comment", FormatComment("pushed", "vol", i.ID, ""),
		"--exclude", "pp:.s4/local", repo+"::archive-"+i.ID, ".")
}

func borgSource(t *testing.T, repo string) *BorgSource {
	t.Helper()
	open := func(ctx context.Context) (*borgio.Repository, error) {
		loc, err := borgio.ParseLocation(repo)
		if err != nil {
			return nil, err
		}
		return borgio.Open(ctx, loc, borgio.Options{})
	}
	probe, err := open(t.Context())
	must(t, err)
	src := NewBorgSource(probe.ID().String(), true, open, nil)
	must(t, probe.Close())
	t.Cleanup(func() { must(t, src.Close()) })
	return src
}

// tree gives a snapshot's whole tree.
func tree(t *testing.T, h *History, num int64) map[string]snapshot.Entry {
	t.Helper()
	all := map[string]snapshot.Entry{}
	for n, err := range h.Walk(t.Context(), num, "") {
		must(t, err)
		all[n.Path] = n.Entry
	}
	return all
}

func filled(t *testing.T, sources ...snapshot.Source) *History {
	t.Helper()
	h, _ := newHistory(t, sources...)
	must(t, h.Refresh(t.Context()))
	must(t, h.Fill(t.Context(), FillOptions{}))
	return h
}

// TestBtrfsEverything: what the time line says of a btrfs snapshot is what lies
// on the disk, and what it says of the archive made from it.
func TestBtrfsEverything(t *testing.T) {
	b := newBorg(t)
	s := newShelf(t)
	s.everything()
	info := s.snap("one", 0)
	repo := filepath.Join(t.TempDir(), "repo")
	b.run("init", "-e", "none", repo)
	s.archive(b, repo, info)

	h := filled(t, s.source())
	num := line(t, h)[0].Num
	got := tree(t, h, num)
	root := filepath.Join(s.mnt, "snaps/one")
	paths := map[string]bool{}
	must(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		must(t, err)
		rel, err := filepath.Rel(root, path)
		must(t, err)
		if rel == "." {
			rel = ""
		}
		switch {
		case rel == ".s4/local":
			return fs.SkipDir
		case d.Type() == fs.ModeSocket:
			return nil
		}
		paths[rel] = true
		var st unix.Stat_t
		must(t, unix.Lstat(path, &st))
		e := got[rel]
		if e.Mode != st.Mode || e.UID != st.Uid || e.GID != st.Gid || rel != "nested" && (e.Mtime != st.Mtim.Nano() || e.Ctime != st.Ctim.Nano()) {
			t.Errorf("%q: %+v, on disk %+v", rel, e, st)
		}
		if !d.IsDir() && e.Nlink != uint32(st.Nlink) || d.Type()&fs.ModeDevice != 0 && e.Rdev != st.Rdev {
			t.Errorf("%q: %d links, device %x; on disk %d, %x", rel, e.Nlink, e.Rdev, st.Nlink, st.Rdev)
		}
		if target, err := os.Readlink(path); err == nil && target != e.Target {
			t.Errorf("%q leads to %q, on disk to %q", rel, e.Target, target)
		}
		if d.Type().IsRegular() {
			room := (st.Size + 4095) / 4096 * 4096
			if want := min(room, st.Blocks*512); e.Size != st.Size || room-e.Holes > want+4095 || room-e.Holes < want {
				t.Errorf("%q: %d bytes, %d in holes; on disk %d, %d blocks", rel, e.Size, e.Holes, st.Size, st.Blocks)
			}
			if st.Size < 1<<20 {
				want, err := os.ReadFile(path)
				must(t, err)
				if got := content(t, h, num, rel); got != string(want) {
					t.Errorf("%q holds %q, want %q", rel, got, want)
				}
			}
		}
		for _, x := range e.Xattrs {
			buf := make([]byte, 2000)
			n, err := unix.Lgetxattr(path, x.Name, buf)
			if err != nil || !bytes.Equal(buf[:n], x.Value) {
				t.Errorf("%q: attribute %s is %x, on disk %x, %v", rel, x.Name, x.Value, buf[:max(0, n)], err)
			}
		}
		return nil
	}))
	for path := range got {
		if !paths[path] {
			t.Errorf("%q is not on the disk", path)
		}
	}
	for path, want := range map[string][]string{
		"d/a": {"system.posix_acl_access", "user.x"}, "d/deep": {"system.posix_acl_access", "system.posix_acl_default", "trusted.t"},
		"d": {"system.posix_acl_default"}, "cap": {"security.capability"}, "property": {"btrfs.compression"}, "big": nil,
	} {
		var names []string
		for _, x := range got[path].Xattrs {
			names = append(names, x.Name)
		}
		if path == "d/deep" { // made before the directory had a default list
			want = []string{"trusted.t"}
		}
		if !slices.Equal(names, want) {
			t.Errorf("%q has attributes %q, want %q", path, names, want)
		}
	}
	for path, want := range map[string]uint32{"immutable": snapshot.FlagImmutable, "append": snapshot.FlagAppend, "nodump": snapshot.FlagNoDump, "compressed": 0} {
		if got[path].Flags != want {
			t.Errorf("%q has flags %x, want %x", path, got[path].Flags, want)
		}
	}
	if e := got["link"]; e.User != "nobody" || e.Group != "games" || got["big"].User != "" {
		t.Errorf("owners are called %q, %q and %q", e.User, e.Group, got["big"].User)
	}
	if a := got["0first"]; a.LinkID == 0 || a.LinkID != got["d/a"].LinkID || a.LinkID != got["d/deep/b"].LinkID || got["d/deep/b"].Size != 7 {
		t.Errorf("hard links: %+v, %+v", a, got["d/deep/b"])
	}

	other := filled(t, borgSource(t, repo))
	archived := tree(t, other, line(t, other)[0].Num)
	if a, b := slices.Sorted(maps.Keys(archived)), slices.Sorted(maps.Keys(got)); !slices.Equal(a, b) {
		t.Errorf("the archive has %q, the snapshot %q", a, b)
	}
	for path, e := range got {
		if a := archived[path]; !snapshot.Alike(&a, &e) {
			t.Errorf("%q is not alike:\narchive  %+v\nsnapshot %+v", path, a, e)
		}
	}

	seek := func(path string, off int64, hole bool) int64 {
		e, err := h.Find(t.Context(), num, path)
		must(t, err)
		f, err := h.Open(t.Context(), num, e)
		must(t, err)
		defer f.Close()
		at, err := f.(snapshot.Seeker).Seek(t.Context(), off, hole)
		if err != nil {
			return -1
		}
		return at
	}
	if at := seek("sparse", 0, false); at < 4990000 || at > 5000000 {
		t.Errorf("data begins at %d", at)
	}
	if at := seek("sparse", 5000000, true); at <= 5000000 || at > 5010000 {
		t.Errorf("the next hole begins at %d", at)
	}
	if at := seek("allhole", 0, false); at != -1 {
		t.Errorf("there is data at %d", at)
	}
}

// TestBtrfsMerged: a snapshot and the archive made from it are one. It is read
// from the disk, and from the archive when the subvolume is gone.
func TestBtrfsMerged(t *testing.T) {
	b := newBorg(t)
	s := newShelf(t)
	s.sh("v", "mkdir d; echo one > d/f; echo same > d/same; ln d/same d/too; touch empty")
	s.snap("one", 0)
	s.sh("v", "echo other > d/f")
	s.snap("two", 10)
	repo := filepath.Join(t.TempDir(), "repo")
	b.run("init", "-e", "none", repo)
	for _, i := range s.infos {
		s.archive(b, repo, i)
	}
	away := func() { must(t, os.Rename(repo, repo+".away")) }
	back := func() { must(t, os.Rename(repo+".away", repo)) }
	archives, local := borgSource(t, repo), s.source()
	h, x := newHistory(t, archives)
	must(t, h.Refresh(t.Context()))
	h.Join(local)
	must(t, h.Refresh(t.Context()))
	must(t, h.Fill(t.Context(), FillOptions{}))
	want := []string{"2026-01-01T00-00-00Z", "2026-01-01T00-00-10Z"}
	now := line(t, h)
	if !slices.Equal(dirs(now), want) || now[0].Source != archives.ID() || now[0].Message != "pushed" {
		t.Fatalf("time line %+v", now)
	}
	held, err := x.Snapshots(t.Context(), local.ID())
	must(t, err)
	if len(held) != 2 || held[0].Indexed || held[1].Indexed {
		t.Fatalf("the disk was looked through, too: %+v", held)
	}
	for when, want := range map[string]int64{"archive-one": now[0].Num, "snap-two": now[1].Num} {
		if i, err := h.Resolve(t.Context(), when); err != nil || i.Num != want {
			t.Errorf("%s is %+v, %v", when, i, err)
		}
	}

	// Nothing more is asked of the repository, by whichever number.
	must(t, h.Ensure(t.Context(), held[0].Num))
	must(t, archives.Close())
	away()
	for _, num := range []int64{now[0].Num, held[0].Num} {
		for path, want := range map[string]string{"d/f": "one\n", "d/same": "same\n", "d/too": "same\n", "empty": ""} {
			if got := content(t, h, num, path); got != want {
				t.Errorf("%q in %d holds %q, want %q", path, num, got, want)
			}
		}
		if here, err := h.Local(t.Context(), num); err != nil || !here {
			t.Errorf("%d is local: %t, %v", num, here, err)
		}
	}
	back()

	// Deleted by hand: nothing was told yet, and what is read comes from the archive.
	archives = borgSource(t, repo)
	h, x = newHistory(t, local, archives)
	must(t, h.Refresh(t.Context()))
	must(t, h.Fill(t.Context(), FillOptions{}))
	before := line(t, h)
	e, err := h.Find(t.Context(), before[0].Num, "d/f")
	must(t, err)
	open, err := h.Open(t.Context(), before[0].Num, e)
	must(t, err)
	defer open.Close()
	s.drop("one", false)
	if got := content(t, h, before[0].Num, "d/f"); got != "one\n" {
		t.Fatalf("after the subvolume is gone: %q", got)
	}
	buf := make([]byte, 10)
	if n, err := open.ReadAtContext(t.Context(), buf, 0); string(buf[:n]) != "one\n" || err != nil && !errors.Is(err, io.EOF) {
		t.Errorf("what was open: %q, %v", buf[:n], err)
	}

	// Deleted and told: the same name, from the archive.
	s.infos = s.infos[1:]
	must(t, h.Refresh(t.Context()))
	must(t, h.Fill(t.Context(), FillOptions{}))
	after := line(t, h)
	if !slices.Equal(dirs(after), want) || after[0].Source != archives.ID() || !after[0].Indexed || after[1] != before[1] {
		t.Fatalf("time line %+v", after)
	}
	if got := content(t, h, after[0].Num, "d/too"); got != "same\n" {
		t.Errorf("from the archive: %q", got)
	}
	held, err = x.Snapshots(t.Context(), local.ID())
	must(t, err)
	if len(held) != 1 {
		t.Errorf("the source is said to hold %+v", held)
	}

	// One that cannot be read is taken from the archive.
	s.drop("two", false)
	h, _ = newHistory(t, local, archives)
	must(t, h.Refresh(t.Context()))
	must(t, h.Fill(t.Context(), FillOptions{}))
	last := line(t, h)
	if !slices.Equal(dirs(last), want) || last[1].Source != archives.ID() {
		t.Fatalf("time line %+v", last)
	}
	if got := content(t, h, last[1].Num, "d/f"); got != "other\n" {
		t.Errorf("from the archive: %q", got)
	}
}

// TestBtrfsInterleaved: versions are one where archives and btrfs snapshots take
// turns, some of them in both.
func TestBtrfsInterleaved(t *testing.T) {
	b := newBorg(t)
	s := newShelf(t)
	repo := filepath.Join(t.TempDir(), "repo")
	b.run("init", "-e", "none", repo)
	s.sh("v", "mkdir d; echo stays > d/stays; ln d/stays d/link; echo 0 > d/changes; setfattr -n user.a -v b d/stays; truncate -s 1M d/sparse; echo x > d/ends; mkdir d/gone; echo x > d/gone/f")
	archived := func(i snapshot.Info) { s.archive(b, repo, i) }
	archived(s.snap("a", 0)) // both
	s.snap("b", 10)          // btrfs
	s.sh("v", "echo 2 > d/changes")
	archived(s.snap("c", 20)) // archive
	s.drop("c", true)
	s.sh("v", "chmod 600 d/changes; rm d/ends; rm -r d/gone; echo late > d/late")
	s.snap("d", 30)           // btrfs
	archived(s.snap("e", 40)) // archive
	s.drop("e", true)
	archived(s.snap("f", 50)) // both
	s.sh("v", "rm d/late")
	archived(s.snap("g", 60)) // archive
	s.drop("g", true)
	for _, order := range [][]snapshot.Source{{s.source(), borgSource(t, repo)}, {borgSource(t, repo), s.source()}} {
		h := filled(t, order...)
		infos := line(t, h)
		if len(infos) != 7 {
			t.Fatalf("time line %q", dirs(infos))
		}
		for path, want := range map[string]string{
			"d/stays": "0-6", "d/link": "0-6", "d/sparse": "0-6", "": "0-6",
			"d/changes": "0-1 2-2 3-6", "d/ends": "0-2 gone", "d/gone/f": "0-2 gone", "d/late": "3-5 gone",
		} {
			traces, err := h.Trace(t.Context(), path)
			must(t, err)
			var got []string
			for _, v := range traces[0].Versions {
				got = append(got, fmt.Sprintf("%d-%d", v.From, v.To))
			}
			if traces[0].Gone {
				got = append(got, "gone")
			}
			if len(traces) != 1 || strings.Join(got, " ") != want {
				t.Errorf("%q was there in %q, want %q", path, got, want)
			}
			moments, err := h.Distinct(t.Context(), path)
			must(t, err)
			for _, m := range moments {
				if m.Entry.Mode&modeType != modeRegular || m.Entry.Size > 100 {
					continue
				}
				f, err := h.Open(t.Context(), m.Info.Num, m.Entry)
				must(t, err)
				must(t, f.Close())
			}
			if e, err := h.EverAt(t.Context(), path); err != nil || e.Perm == 0 {
				t.Errorf("%q ever was %+v, %v", path, e, err)
			}
		}
		gone, err := h.Gone(t.Context(), "d")
		must(t, err)
		var names []string
		for _, g := range gone {
			names = append(names, g.Entry.Name+" "+g.Last.ID)
			if g.Entry.Dir == 0 {
				f, err := h.Open(t.Context(), g.Last.Num, g.Entry)
				must(t, err)
				must(t, f.Close())
			}
		}
		if want := []string{"ends c", "gone c", "late f"}; !slices.Equal(names, want) {
			t.Errorf("gone %q, want %q", names, want)
		}
		ever, err := h.Ever(t.Context(), "d", "", 100)
		must(t, err)
		if len(ever) != 7 {
			t.Errorf("ever there: %+v", ever)
		}
		for i, want := range []string{"", "d/changes", "d d/changes d/ends d/gone d/gone/f d/late", "", "", "d d/late"} {
			var got []string
			for c, err := range h.Changes(t.Context(), infos[i].Num, infos[i+1].Num) {
				must(t, err)
				got = append(got, c.Path)
			}
			if strings.Join(got, " ") != want {
				t.Errorf("from %s to %s changed %q, want %q", infos[i].ID, infos[i+1].ID, got, want)
			}
		}
	}
}

// TestBtrfsFurther: a tree that is indexed with knowledge of its neighbours is
// what it is without.
func TestBtrfsFurther(t *testing.T) {
	s := newShelf(t)
	s.sh("v", "for d in $(seq 30); do mkdir $d; for f in $(seq 30); do echo $f > $d/$f; done; done; ln 1/1 2/link; ln 3/3 3/link")
	names := func() (all []string) {
		must(t, filepath.WalkDir(filepath.Join(s.mnt, "v"), func(path string, _ fs.DirEntry, err error) error {
			if path != filepath.Join(s.mnt, "v") {
				all = append(all, path)
			}
			return err
		}))
		return all
	}
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	src := s.source()
	h, _ := newHistory(t, src)
	for round := range 8 {
		for range r.IntN(12) {
			all := names()
			path, other := all[r.IntN(len(all))], all[r.IntN(len(all))]
			switch r.IntN(8) {
			case 0:
				os.RemoveAll(path)
			case 1:
				os.Rename(path, other)
			case 2:
				os.Link(path, other+"-linked")
			case 3:
				unix.Lsetxattr(path, "user.x", fmt.Append(nil, round), 0)
			case 4:
				os.Chmod(path, os.FileMode(r.IntN(0o1000)))
			case 5:
				os.Symlink("x", filepath.Join(filepath.Dir(path), "symlink"))
			case 6:
				os.MkdirAll(path+"-dir/below", 0o755)
			default:
				os.WriteFile(path, fmt.Append(nil, round, r.Uint64()), 0o600)
			}
		}
		s.snap(fmt.Sprint(round), int64(round))
		if round%3 != 1 { // else two at once, the newer first
			must(t, h.Refresh(t.Context()))
			must(t, h.Fill(t.Context(), FillOptions{}))
		}
	}
	for _, info := range line(t, h) {
		alone := *s
		alone.infos = slices.DeleteFunc(slices.Clone(s.infos), func(i snapshot.Info) bool { return i.ID != info.ID })
		fresh := filled(t, alone.source())
		want, got := tree(t, fresh, line(t, fresh)[0].Num), tree(t, h, info.Num)
		for path := range want {
			a, b := want[path], got[path]
			a.Version, a.Dir = b.Version, b.Dir
			if !reflect.DeepEqual(a, b) {
				t.Fatalf("seed %d, snapshot %s, %q: %+v, want %+v", seed, info.ID, path, b, a)
			}
		}
		if len(want) != len(got) {
			t.Fatalf("seed %d, snapshot %s: %d paths, want %d", seed, info.ID, len(got), len(want))
		}
	}
}

// TestBtrfsHostile: no path leads out of a snapshot or to anything but a plain
// file that is as the index says.
func TestBtrfsHostile(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "snaps/s/d"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "secret"), []byte("secret"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "snaps/secret"), []byte("secret"), 0o600))
	snap := filepath.Join(dir, "snaps/s")
	must(t, os.WriteFile(filepath.Join(snap, "d/f"), []byte("plain"), 0o600))
	must(t, os.Symlink("/", filepath.Join(snap, "out")))
	must(t, os.Symlink(filepath.Join(dir, "secret"), filepath.Join(snap, "file")))
	must(t, os.Symlink("d", filepath.Join(snap, "inside")))
	must(t, os.Symlink("../..", filepath.Join(dir, "snaps/link")))
	must(t, unix.Mkfifo(filepath.Join(snap, "fifo"), 0o600))
	src := NewBtrfsSource("vol", filepath.Join(dir, "snaps"), nil, func(path string, _ bool) bool { return path == "hidden" }, nil)
	must(t, os.Mkdir(filepath.Join(snap, "hidden"), 0o755))
	must(t, os.WriteFile(filepath.Join(snap, "hidden/f"), []byte("hidden"), 0o600))
	entry := func(path string) snapshot.Entry {
		var st unix.Stat_t
		must(t, unix.Stat(path, &st))
		return snapshot.Entry{Size: st.Size, Mtime: st.Mtim.Nano()}
	}
	secret, plain := entry(filepath.Join(dir, "secret")), entry(filepath.Join(snap, "d/f"))
	other := plain
	other.Mtime++
	for _, c := range []struct {
		handle, path string
		e            snapshot.Entry
		ok           bool
	}{
		{"s", "d/f", plain, true},
		{"s", "d/f", other, false},
		{"s", "d/f", secret, false},
		{"s", "inside/f", plain, false},
		{"s", "file", secret, false},
		{"s", "out" + filepath.Join(dir, "secret"), secret, false},
		{"s", "../../secret", secret, false},
		{"s", "../secret", secret, false},
		{"..", "secret", secret, false},
		{".", "secret", entry(filepath.Join(dir, "snaps/secret")), false},
		{"link", "secret", secret, false},
		{"../snaps/s", "d/f", plain, false},
		{"", "s/d/f", plain, false},
		{"s", "fifo", snapshot.Entry{}, false},
		{"s", "d", snapshot.Entry{}, false},
		{"s", "missing", plain, false},
		{"missing", "d/f", plain, false},
	} {
		f, err := src.OpenPath(t.Context(), snapshot.Info{Handle: c.handle}, c.path, c.e)
		if (err == nil) != c.ok {
			t.Errorf("%q, %q: %v", c.handle, c.path, err)
		}
		if err == nil {
			must(t, f.Close())
		}
	}
	for path, ok := range map[string]bool{"d/f": true, "hidden/f": false, "hidden": false, "out/etc": false, "inside/f": false} {
		it, err := src.FindItem(t.Context(), snapshot.Info{Handle: "s"}, path)
		if ok != (err == nil) || err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %+v, %v", path, it, err)
		}
	}
}

// TestBtrfsFile: files are read from many goroutines, and don't hold on to a
// subvolume while nobody reads.
func TestBtrfsFile(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "s"), 0o755))
	data := make([]byte, 5<<20)
	rand.NewChaCha8([32]byte{1}).Read(data)
	path := filepath.Join(dir, "s/f")
	must(t, os.WriteFile(path, data, 0o600))
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	src := NewBtrfsSource("vol", dir, nil, nil, nil)
	src.idle = time.Millisecond
	e := snapshot.Entry{Size: st.Size, Mtime: st.Mtim.Nano()}
	f, err := src.OpenPath(t.Context(), snapshot.Info{Handle: "s"}, "f", e)
	must(t, err)
	errs := make(chan error, 8)
	for i := range 8 {
		go func() {
			var err error
			r := rand.New(rand.NewPCG(uint64(i), 0))
			for range 50 {
				buf, off := make([]byte, r.IntN(100_000)), r.Int64N(e.Size)
				n, failed := f.ReadAtContext(t.Context(), buf, off)
				if failed != nil && !errors.Is(failed, io.EOF) || !bytes.Equal(buf[:n], data[off:off+int64(n)]) || n < len(buf) && failed == nil {
					err = errors.Join(err, fmt.Errorf("%d bytes at %d: %d, %w", len(buf), off, n, failed))
				}
			}
			var all bytes.Buffer
			if _, failed := f.WriteTo(&all); failed != nil || !bytes.Equal(all.Bytes(), data) {
				err = errors.Join(err, fmt.Errorf("the whole of it: %d bytes, %w", all.Len(), failed))
			}
			errs <- err
		}()
	}
	for range 8 {
		must(t, <-errs)
	}
	isOpen := func() bool {
		all, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return slices.ContainsFunc(all, func(d fs.DirEntry) bool {
			to, err := os.Readlink("/proc/self/fd/" + d.Name())
			return err == nil && to == path
		})
	}
	for end := time.Now().Add(10 * time.Second); isOpen(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("still open, though nobody reads")
		}
	}
	one := make([]byte, 1)
	if _, err := f.ReadAtContext(t.Context(), one, 7); err != nil || one[0] != data[7] {
		t.Errorf("after a while: %v", err)
	}
	must(t, os.WriteFile(path, []byte("another"), 0o600))
	for end := time.Now().Add(10 * time.Second); isOpen() && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	if _, err := f.ReadAtContext(t.Context(), one, 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of another file: %v", err)
	}
	must(t, f.Close())
	if _, err := f.ReadAtContext(t.Context(), one, 0); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("after close: %v", err)
	}
}
