package btrfsvol

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/btrfsvol/send"
	"github.com/s4-storage/s4/internal/btrfstest"
)

// brief tells a change in a line, without times and directories that differ in
// nothing else.
func brief(changes []Change) string {
	var lines strings.Builder
	for _, c := range changes {
		if c.OnlyTimes() {
			continue
		}
		fmt.Fprintf(&lines, "%v %s", c.Kind, c.Path)
		if c.Kind == Renamed {
			fmt.Fprintf(&lines, " from %s", c.OldPath)
		}
		if c.Kind == Linked {
			fmt.Fprintf(&lines, " to %s", c.LinkTo)
		}
		if m := c.Meta &^ MetaTimes; m != 0 {
			fmt.Fprintf(&lines, " %v", m)
		}
		if len(c.Extents) > 0 {
			fmt.Fprintf(&lines, " %v", c.Extents)
		}
		lines.WriteString("\n")
	}
	return lines.String()
}

func TestChanges(t *testing.T) {
	dir := btrfstest.New(t)
	for i, c := range []struct {
		name, script, exclude, want string
	}{
		{"nothing", "", "", ""},
		{"times alone", "touch file", "", ""},
		{"made and gone", "echo x >tmp; ln tmp tmp2; mkdir d2; mv tmp d2; rm -r d2 tmp2", "", ""},
		{"away and back", "mv file x; mv x file; mv dir y; mv y dir", "", ""},
		{"save by rename", "echo new >.file.tmp; mv .file.tmp file", "",
			"deleted file\ncreated file [{0 4}]\n"},
		{"chain of names", "mv file b; mv b c; mv c dir/d; mv dir/d e", "", "renamed e from file\n"},
		{"moved over", "mv file dir/a", "", "deleted dir/a\nrenamed dir/a from file\n"},
		{"swapped directories", "mv dir t; mv other dir; mv t other", "", "renamed dir from other\nrenamed other from dir\n"},
		{"a directory and what is in it", "mv dir moved; echo x >>moved/a; mv moved/b moved/c; echo n >moved/new; rm moved/sub/deep", "",
			"deleted dir/sub/deep\nrenamed moved from dir\nchanged moved/a [{0 4}]\nrenamed moved/c from dir/b\ncreated moved/new [{0 2}]\n"},
		{"out of a deleted directory", "mv dir/sub/deep .; rm -r dir", "",
			"deleted dir/sub\ndeleted dir/b\ndeleted dir/a\ndeleted dir\nrenamed deep from dir/sub/deep\n"},
		{"turned inside out", "mv dir/sub new; mv dir new/dir", "", "renamed new from dir/sub\nrenamed new/dir from dir\n"},
		{"a name in its place", "mv dir t; mkdir dir; mv t dir/dir", "", "created dir\nrenamed dir/dir from dir\n"},
		{"another link", "ln hard1 z", "", "changed dir2/hard2 nlink\nchanged hard1 nlink\nlinked z to dir2/hard2\n"},
		{"a link less", "rm hard1", "", "deleted hard1\nchanged dir2/hard2 nlink\n"},
		{"a link moved", "mv hard1 z", "", "renamed z from hard1\n"},
		{"written by one link", "echo x >>hard1", "", "changed dir2/hard2 [{0 7}]\nchanged hard1 [{0 7}]\n"},
		{"hard links of a new file", "echo x >n; ln n m; ln n dir/o", "", "created dir/o [{0 2}]\nlinked m to dir/o\nlinked n to dir/o\n"},
		{"exactly one block", "printf x | dd of=big bs=1 seek=1048581 conv=notrunc 2>&1", "", "changed big [{1048576 4096}]\n"},
		{"a hole", "fallocate -p -o 8192 -l 8192 big", "", "changed big [{8192 8192}]\n"},
		{"cut off", "truncate -s 1000000 big", "", "changed big [{1000000 1097152}]\n"},
		{"longer", "truncate -s 3000000 big", "", "changed big [{2097152 902848}]\n"},
		{"metadata", "chmod 600 file; chown 5:6 dir; setfattr -n user.x -v y dir/a; chmod 4755 dir/b", "",
			"changed dir owner\nchanged dir/a xattr\nchanged dir/b mode\nchanged file mode\n"},
		{"other types", "mkfifo fifo; ln -s x link; mknod null c 1 3; rm soft; ln -s y soft", "",
			"deleted soft\ncreated fifo\ncreated link\ncreated null\ncreated soft\n"},
		{"file becomes directory", "rm file; mkdir file; echo x >file/file", "",
			"deleted file\ncreated file\ncreated file/file [{0 2}]\n"},
		{"nested subvolume", "btrfs subvolume create nested; echo x >nested/x", "", ""},
		{"in what is excluded", "echo x >dir/a; mv dir/b dir/c; ln hard1 dir/z; mkdir dir2/dir", "dir",
			"created dir2/dir\nchanged dir2/hard2 nlink\nchanged hard1 nlink\n"},
		{"into what is excluded", "mv file dir; mv other dir/other; mv dir/other/x y", "dir/",
			"deleted other\ndeleted file\nrenamed y from other/x\n"},
		{"out of what is excluded", "mv dir/a .; mv dir/sub sub; echo n >sub/n; mv file sub/file", "dir",
			"created a [{0 2}]\ncreated sub\ncreated sub/deep [{0 2}]\nrenamed sub/file from file\ncreated sub/n [{0 2}]\n"},
		{"the excluded directory itself", "mv dir x", "dir",
			"created x\ncreated x/a [{0 2}]\ncreated x/b [{0 2}]\ncreated x/sub\ncreated x/sub/deep [{0 2}]\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			vol, old, new := filepath.Join(dir, fmt.Sprint(i)), filepath.Join(dir, fmt.Sprint(i, "old")), filepath.Join(dir, fmt.Sprint(i, "new"))
			do(t, Create(vol))
			script(t, vol, `mkdir -p dir/sub dir2 other; for f in file dir/a dir/b dir/sub/deep other/x; do echo 1 >$f; done
				echo hard >hard1; ln hard1 dir2/hard2; ln -s x soft; head -c 2097152 /dev/urandom >big`)
			do(t, Snapshot(vol, old, true))
			script(t, vol, c.script)
			do(t, Snapshot(vol, new, true))
			if got := brief(checkChanges(t, old, new, strings.TrimSuffix(c.exclude, "/"))); got != c.want {
				t.Errorf("%s:\n%swant\n%s", c.script, got, c.want)
			}
		})
	}
}

// Subvolumes in a subvolume are no part of it.
func TestNested(t *testing.T) {
	dir := btrfstest.New(t)
	vol := filepath.Join(dir, "vol")
	do(t, Create(vol))
	do(t, Snapshot(vol, filepath.Join(dir, "0"), true))
	for i, c := range []struct{ script, want string }{
		{"mkdir d; btrfs subvolume create d/nested; echo x >d/nested/x", "created d\n"},
		{"echo y >d/nested/x", ""},
		{"mv d e; echo z >e/z", "renamed e from d\ncreated e/z [{0 2}]\n"},
		{"mv e/nested .", ""},
		{"btrfs subvolume delete nested; echo 1 >nested", "deleted nested\ncreated nested [{0 2}]\n"},
		{"rm nested; btrfs subvolume create nested", "deleted nested\n"},
		{"btrfs subvolume delete nested", ""},
		{"btrfs subvolume create nested", ""},
		{"btrfs subvolume delete nested; mkdir nested", "deleted nested\ncreated nested\n"},
	} {
		script(t, vol, c.script)
		old, new := filepath.Join(dir, fmt.Sprint(i)), filepath.Join(dir, fmt.Sprint(i+1))
		do(t, Snapshot(vol, new, true))
		changes, err := Changes(t.Context(), old, new, Options{})
		if got := brief(changes); err != nil || got != c.want {
			t.Errorf("%s:\n%s%v\nwant\n%s", c.script, got, err, c.want)
		}
	}
}

func script(t testing.TB, dir, script string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-ec", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
}

// What is touched is told as only that; what is merely read is not told.
func TestOnlyTimes(t *testing.T) {
	dir := btrfstest.New(t)
	vol, old, new := filepath.Join(dir, "vol"), filepath.Join(dir, "old"), filepath.Join(dir, "new")
	do(t, Create(vol))
	script(t, vol, "mkdir d; echo 1 >d/f; echo 1 >d/read; echo 1 >touched")
	do(t, Snapshot(vol, old, true))
	script(t, vol, "rm d/f; touch touched; touch -a d/read")
	do(t, unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(vol, "d/read"), []unix.Timespec{{Sec: 1}, {Nsec: unix.UTIME_OMIT}}, 0))
	do(t, Snapshot(vol, new, true))
	changes, err := Changes(t.Context(), old, new, Options{})
	do(t, err)
	var got []string
	for _, c := range changes {
		got = append(got, fmt.Sprint(c.Kind, " ", c.Path, " ", c.Meta, " ", c.OnlyTimes()))
	}
	// The access time is set by hand, which the kernel notes in ctime.
	want := []string{"deleted d/f  false", "changed d times true", "changed d/read times true", "changed touched times true"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// A file may have more names than the kernel tells in one answer.
func TestManyLinks(t *testing.T) {
	dir := btrfstest.New(t)
	vol, old, new := filepath.Join(dir, "vol"), filepath.Join(dir, "old"), filepath.Join(dir, "new")
	do(t, Create(vol))
	const count = 3000
	do(t, os.MkdirAll(filepath.Join(vol, "a/b"), 0o755))
	write(t, filepath.Join(vol, "first"), "x")
	for i := range count {
		do(t, os.Link(filepath.Join(vol, "first"), filepath.Join(vol, "a", []string{"b", "."}[i%2], fmt.Sprintf("%0100d", i))))
	}
	do(t, Snapshot(vol, old, true))
	do(t, os.Chmod(filepath.Join(vol, "first"), 0o600))
	do(t, os.Rename(filepath.Join(vol, "a"), filepath.Join(vol, "z")))
	do(t, Snapshot(vol, new, true))
	changes := checkChanges(t, old, new, "")
	changed := 0
	for _, c := range changes {
		if c.Kind == Changed && c.Meta&MetaMode != 0 {
			changed++
			if c.OldPath != "first" && strings.Replace(c.Path, "z/", "a/", 1) != c.OldPath {
				t.Errorf("%+v", c)
			}
		}
	}
	if changed != count+1 {
		t.Errorf("%d of %d names are told", changed, count+1)
	}
}

func TestChangesErrors(t *testing.T) {
	dir, other := btrfstest.New(t), btrfstest.New(t)
	vol, snap, foreign := filepath.Join(dir, "vol"), filepath.Join(dir, "snap"), filepath.Join(other, "snap")
	do(t, Create(vol))
	do(t, Snapshot(vol, snap, true))
	do(t, Snapshot(other, foreign, true))
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx      context.Context
		old, new string
		want     error
	}{
		"writable":            {t.Context(), snap, vol, ErrWritable},
		"writable before":     {t.Context(), vol, snap, ErrWritable},
		"missing":             {t.Context(), snap, filepath.Join(dir, "x"), fs.ErrNotExist},
		"not btrfs":           {t.Context(), "/proc", snap, ErrNotBtrfs},
		"another file system": {t.Context(), foreign, snap, unix.EXDEV},
		"cancelled":           {cancelled, snap, snap, context.Canceled},
	} {
		if _, err := Changes(c.ctx, c.old, c.new, Options{}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzTree: whatever a stream says, it ends, with an error or not.
func FuzzTree(f *testing.F) {
	for _, name := range []string{"change-v1-nodata", "change-v2", "full-v1"} {
		data, err := os.ReadFile(filepath.Join("send/testdata", name))
		do(f, err)
		f.Add(data)
	}
	dir := f.TempDir()
	script(f, dir, "mkdir dir gone; echo text >dir/file; ln dir/file hard; mkfifo fifo; echo 1 >long")
	root, err := os.Open(dir)
	do(f, err)
	f.Cleanup(func() { root.Close() })
	f.Fuzz(func(_ *testing.T, data []byte) {
		mend(data)
		tree := newTree(root, root)
		for r := send.NewReader(bytes.NewReader(data)); ; {
			c, err := r.Next()
			if err != nil || tree.apply(c) != nil {
				break
			}
		}
		if changes, err := tree.settle(context.Background()); err == nil {
			order(changes)
		}
	})
}

// mend gives all commands of a stream the checksums that they should have.
func mend(data []byte) {
	for p := data[min(len(data), 17):]; len(p) >= 10; {
		n := int(binary.LittleEndian.Uint32(p)) + 10
		if n > len(p) {
			return
		}
		copy(p[6:], "\x00\x00\x00\x00")
		sum := ^crc32.Update(^uint32(0), crc32.MakeTable(crc32.Castagnoli), p[:n])
		binary.LittleEndian.PutUint32(p[6:], sum)
		p = p[n:]
	}
}

// Among 100,000 files of which 10 change. Both must stay under 50 ms.
func BenchmarkChanges(b *testing.B) {
	dir := b.TempDir()
	btrfstest.Mount(b, dir, 2<<30)
	vol := filepath.Join(dir, "vol")
	do(b, Create(vol))
	const files = 100_000
	name := func(i int) string { return filepath.Join(vol, fmt.Sprint(i%1000), fmt.Sprint("file", i)) }
	for i := range files {
		if i < 1000 {
			do(b, os.Mkdir(filepath.Join(vol, fmt.Sprint(i)), 0o755))
		}
		do(b, os.WriteFile(name(i), []byte("content of a file"), 0o644))
	}
	do(b, Snapshot(vol, filepath.Join(dir, "0"), true))
	do(b, Sync(vol))
	round := 0
	change := func(b *testing.B) (old, new string) {
		for i := range 10 {
			write(b, name((round*7919+i*9973)%files), fmt.Sprint("round ", round))
		}
		round++
		return filepath.Join(dir, fmt.Sprint(round-1)), filepath.Join(dir, fmt.Sprint(round))
	}
	b.Run("snapshot", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			_, new := change(b)
			b.StartTimer()
			do(b, Snapshot(vol, new, true))
		}
	})
	b.Run("changes", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			old, new := change(b)
			do(b, Snapshot(vol, new, true))
			b.StartTimer()
			changes, err := Changes(b.Context(), old, new, Options{})
			if err != nil || len(changes) != 10 {
				b.Fatal(len(changes), err)
			}
		}
	})
	b.Run("generation", func(b *testing.B) {
		for b.Loop() {
			if _, err := Generation(vol); err != nil {
				b.Fatal(err)
			}
		}
	})
}
