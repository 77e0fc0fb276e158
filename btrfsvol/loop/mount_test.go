package loop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

func TestMountUnmount(t *testing.T) {
	needLoop(t)
	image, testUUID := filepath.Join(t.TempDir(), "new", "dirs", "a b\tü.img"), uuid.NewString()
	start := time.Now()
	made, err := Create(t.Context(), image, 300*mib, CreateOptions{Label: "-a label", UUID: testUUID, Reserve: -1})
	must(t, err)
	want := Superblock{UUID: testUUID, Label: "-a label", TotalBytes: 300 * mib, Devices: 1, Generation: made.Generation, BytesUsed: made.BytesUsed}
	if made != want || made.BytesUsed == 0 {
		t.Errorf("made %+v", made)
	}
	st, err := os.Stat(image)
	must(t, err)
	if st.Mode() != 0o600 || st.Size() != 300*mib || allocated(t, image) > 16*mib {
		t.Errorf("image: %v, %d bytes, %d on the disk", st.Mode(), st.Size(), allocated(t, image))
	}
	if _, err := Create(t.Context(), image, 300*mib, CreateOptions{Reserve: -1}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("made over one that was there: %v", err)
	}

	dir := filepath.Join(t.TempDir(), `m p\040ü`)
	must(t, os.Mkdir(dir, 0o755))
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(dir, link))
	unmountLater(t, dir)
	m, err := Mount(t.Context(), image, link, MountOptions{UUID: testUUID, Compress: "zstd:1"})
	must(t, err)
	t.Logf("create and mount: %v", time.Since(start))
	if m.Dir != dir || m.Found || m.UUID != testUUID || m.Label != "-a label" {
		t.Errorf("mounted %+v", m)
	}
	options := run(t, "findmnt", "-n", "-o", "OPTIONS", "-M", dir)
	for _, o := range []string{"rw", "noatime", "discard=async", "compress=zstd:1"} {
		if !slices.Contains(strings.Split(options, ","), o) {
			t.Errorf("options are %s, without %s", options, o)
		}
	}
	info := run(t, tool(t, "losetup"), "-n", "-O", "AUTOCLEAR,DIO,RO", m.Device)
	if got := strings.Join(strings.Fields(info), " "); got != "1 1 0" {
		t.Errorf("autoclear, direct I/O, read-only: %s", got)
	}
	// Once more finds it.
	again, err := Mount(t.Context(), image, dir, MountOptions{UUID: testUUID})
	must(t, err)
	if !again.Found || again.Device != m.Device || again.Dir != dir {
		t.Errorf("mounted again: %+v", again)
	}
	// It is known by its inode, not by its name.
	moved := filepath.Join(filepath.Dir(image), "moved")
	must(t, os.Rename(image, moved))
	s, err := Find(moved)
	must(t, err)
	if s.Device != m.Device || !slices.Equal(s.Mounts, []MountPoint{{dir, "/"}}) {
		t.Errorf("found %+v", s)
	}
	u, err := ReadUsage(dir)
	if err != nil || u.Image != moved || u.UUID != testUUID {
		t.Errorf("usage after a move: %+v, %v", u, err)
	}

	held, err := os.Create(filepath.Join(dir, "held"))
	must(t, err)
	if err := Unmount(t.Context(), dir); !errors.Is(err, unix.EBUSY) {
		t.Errorf("unmounted with an open file: %v", err)
	}
	held.Close()
	must(t, Unmount(t.Context(), link))
	if s, err := Find(moved); err != nil || s.Device != "" || s.Mounts != nil {
		t.Errorf("after unmounting: %+v, %v", s, err)
	}
	if err := Unmount(t.Context(), dir); !errors.Is(err, ErrNotMounted) {
		t.Errorf("unmounted twice: %v", err)
	}
	// A new name for the image and what was written is there.
	mountAt(t, moved, dir)
	if _, err := os.Stat(filepath.Join(dir, "held")); err != nil {
		t.Error(err)
	}
}

// After any refusal nothing is attached or mounted.
func TestMountRefuses(t *testing.T) {
	good := newImage(t, 256*mib)
	dir := t.TempDir()
	copyOf := func(change func(f *os.File)) string {
		path := filepath.Join(t.TempDir(), "copy")
		run(t, "cp", "--sparse=always", good, path)
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		must(t, err)
		defer f.Close()
		change(f)
		return path
	}
	fifo := filepath.Join(t.TempDir(), "fifo")
	must(t, unix.Mkfifo(fifo, 0o600))
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx   context.Context
		image string
		dir   string
		o     MountOptions
		want  func(error) bool
		says  string
	}{
		"missing":         {image: good + ".no", want: is(fs.ErrNotExist), says: good + ".no"},
		"directory":       {image: dir, says: "directory"},
		"fifo":            {image: fifo, says: "not a regular file"},
		"empty":           {image: file, want: is(ErrNotBtrfs)},
		"another format":  {image: copyOf(func(f *os.File) { f.WriteAt([]byte("xfs"), superOffset+offMagic) }), want: is(ErrNotBtrfs)},
		"damaged":         {image: copyOf(func(f *os.File) { f.WriteAt([]byte("x"), superOffset+2000) }), want: is(ErrDamaged)},
		"cut off":         {image: copyOf(func(f *os.File) { f.Truncate(256*mib - sector) }), want: isA[*TruncatedError], says: "cut off"},
		"other UUID":      {image: good, o: MountOptions{UUID: "11111111-7a3e-4f6b-8c1d-2e5f7a9b3c4d"}, want: isA[*UUIDError], says: uuidOf(t, good)},
		"no directory":    {image: good, dir: dir + "/no", want: is(fs.ErrNotExist), says: dir + "/no"},
		"a file":          {image: good, dir: file, want: is(unix.ENOTDIR)},
		"occupied":        {image: good, dir: "/proc", want: is(ErrOccupied), says: "proc"},
		"no subvolume":    {image: good, o: MountOptions{Subvolume: "no"}, want: is(fs.ErrNotExist), says: "subvolume no"},
		"odd subvolume":   {image: good, o: MountOptions{Subvolume: "a,ro"}, says: "comma"},
		"odd compression": {image: good, o: MountOptions{Compress: "zstd,ro"}, says: "zstd:3"},
		"unknown method":  {image: good, o: MountOptions{Compress: "zip"}, want: is(unix.EINVAL)},
		"ctx":             {image: good, ctx: ended, want: is(context.Canceled)},
	} {
		t.Run(name, func(t *testing.T) {
			if c.dir == "" {
				c.dir = dir
			}
			if c.ctx == nil {
				c.ctx = t.Context()
			}
			m, err := Mount(c.ctx, c.image, c.dir, c.o)
			if err == nil || c.want != nil && !c.want(err) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%+v, %v", m, err)
			}
		})
	}
	if left := leftovers(os.TempDir()); left != nil {
		t.Error("left:", left)
	}
}

func is(target error) func(error) bool { return func(err error) bool { return errors.Is(err, target) } }

func isA[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// One image has one device, whoever attached it.
func TestAttachedOnce(t *testing.T) {
	image := newImage(t, 256*mib)
	losetup := tool(t, "losetup")
	byHand := run(t, losetup, "--find", "--show", image)
	detach := func(d string) { run(t, losetup, "--detach", d) }
	m, err := Mount(t.Context(), image, t.TempDir(), MountOptions{})
	must(t, err)
	if m.Device != byHand {
		t.Errorf("mounted from %s, but it was %s", m.Device, byHand)
	}
	must(t, Unmount(t.Context(), m.Dir))
	if got := device(t, image); got != byHand {
		t.Errorf("attached by hand as %s, it is now %q", byHand, got)
	}
	second := run(t, losetup, "--find", "--show", image)
	refused(t, image, byHand, second)
	detach(second)
	detach(byHand)

	part := run(t, losetup, "--find", "--show", "--offset", "4096", image)
	refused(t, image, part)
	detach(part)
	readOnly := run(t, losetup, "--find", "--show", "--read-only", image)
	refused(t, image, readOnly)
	detach(readOnly)

	d, err := Attach(t.Context(), image, AttachOptions{UUID: uuidOf(t, image)})
	must(t, err)
	again, err := Attach(t.Context(), image, AttachOptions{})
	must(t, err)
	if d.Found || !again.Found || d.Path != again.Path {
		t.Errorf("attached as %+v and %+v", d, again)
	}
	d.Close()
	if device(t, image) == "" {
		t.Error("gone while it is held")
	}
	again.Close()
	if got := device(t, image); got != "" {
		t.Errorf("%s is still there", got)
	}
}

func refused(t *testing.T, image string, devices ...string) {
	t.Helper()
	_, err := Mount(t.Context(), image, t.TempDir(), MountOptions{})
	if !errors.Is(err, ErrAttached) {
		t.Fatal(err)
	}
	for _, d := range devices {
		if !strings.Contains(err.Error(), d) {
			t.Errorf("%v: does not name %s", err, d)
		}
	}
}

// Many at once get one device, and places of their own.
func TestMountedElsewhere(t *testing.T) {
	image := newImage(t, 256*mib)
	var dirs [6]string
	var got [6]Mounted
	var errs [6]error
	var wg sync.WaitGroup
	for i := range dirs {
		dirs[i] = t.TempDir()
		unmountLater(t, dirs[i])
		wg.Go(func() { got[i], errs[i] = Mount(t.Context(), image, dirs[i], MountOptions{}) })
	}
	wg.Wait()
	for i := range dirs {
		if errs[i] != nil || got[i].Device != got[0].Device {
			t.Fatalf("%+v, %v", got[i], errs[i])
		}
	}
	run(t, tool(t, "btrfs"), "subvolume", "create", dirs[0]+"/sub")
	at := t.TempDir()
	unmountLater(t, at)
	if _, err := Mount(t.Context(), image, at, MountOptions{Subvolume: "sub"}); err != nil {
		t.Fatal(err)
	}
	if m, err := Mount(t.Context(), image, at, MountOptions{Subvolume: "/sub/"}); err != nil || !m.Found {
		t.Errorf("%+v, %v", m, err)
	}
	if _, err := Mount(t.Context(), image, dirs[0], MountOptions{Subvolume: "sub"}); !errors.Is(err, ErrOccupied) {
		t.Errorf("the root is mounted there, not the subvolume: %v", err)
	}
	must(t, Unmount(t.Context(), at))
	for i, dir := range dirs {
		if s, err := Find(image); err != nil || len(s.Mounts) != len(dirs)-i {
			t.Errorf("%+v, %v", s, err)
		}
		must(t, Unmount(t.Context(), dir))
	}
	if d := device(t, image); d != "" {
		t.Errorf("%s is left", d)
	}
}

// A copy has the same UUID; the two must not be mixed up.
func TestCopyRefused(t *testing.T) {
	image, dir := newVolume(t, 256*mib)
	other := filepath.Join(t.TempDir(), "copy")
	run(t, "cp", "--sparse=always", image, other)
	if _, err := Mount(t.Context(), other, t.TempDir(), MountOptions{}); !errors.Is(err, ErrDuplicate) {
		t.Fatal(err)
	}
	if d := device(t, other); d != "" {
		t.Errorf("%s is left", d)
	}
	// It is what was there, when the original is not in use. An older copy
	// works, too.
	fill(t, filepath.Join(dir, "new"), 1<<20, 1)
	must(t, Unmount(t.Context(), dir))
	mountAt(t, other, dir)
	if _, err := os.Stat(filepath.Join(dir, "new")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the copy has what came later: %v", err)
	}
}

// More images than there are devices, and a busy one that waits.
func TestManyDevices(t *testing.T) {
	needLoop(t)
	const n = 12
	var opened []*Device
	defer func() {
		for _, d := range opened {
			d.Close()
		}
	}()
	seen := map[string]bool{}
	for range n {
		d, err := Attach(t.Context(), newImage(t, MinSize), AttachOptions{})
		must(t, err)
		opened = append(opened, d)
		seen[d.Path] = true
	}
	if len(seen) != n {
		t.Errorf("%d images have %d devices", n, len(seen))
	}
}

func TestLocked(t *testing.T) {
	image := newImage(t, MinSize)
	i, err := open(t.Context(), image)
	must(t, err)
	defer i.close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Attach(ctx, image, AttachOptions{}); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "locked") {
		t.Error(err)
	}
}

// Where the host takes no direct I/O, it works and is said.
func TestNoDirectIO(t *testing.T) {
	needLoop(t)
	host, image := t.TempDir(), ""
	if err := unix.Mount("ramfs", host, "ramfs", 0, ""); err != nil {
		skip(t, "no ramfs here")
	}
	t.Cleanup(func() { must(t, unix.Unmount(host, 0)) })
	image = filepath.Join(host, "image")
	if _, err := Create(t.Context(), image, MinSize, CreateOptions{Reserve: -1}); err != nil {
		// ramfs does not know how large it is.
		run(t, "cp", "--sparse=always", newImage(t, MinSize), image)
	}
	var said bytes.Buffer
	dir := t.TempDir()
	_, err := Mount(t.Context(), image, dir, MountOptions{Log: slog.New(slog.NewTextHandler(&said, nil))})
	must(t, err)
	must(t, Unmount(t.Context(), dir))
	if !strings.Contains(said.String(), "direct I/O") {
		t.Errorf("said %q", said.String())
	}
}

// Every entry says the one thing to an ordinary user, before anything else.
func TestNeedsRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		child("entries")
		return
	}
	self := filepath.Join(t.TempDir(), "self") // the test's own directory may be closed to others
	must(t, os.Chmod(os.TempDir(), 0o755))
	must(t, os.Chmod(filepath.Dir(filepath.Dir(self)), 0o755))
	must(t, os.Chmod(filepath.Dir(self), 0o755))
	exe, err := os.Executable()
	must(t, err)
	run(t, "cp", exe, self)
	must(t, os.Chmod(self, 0o755))
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "LOOP_TEST_CHILD=entries")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// entries calls everything as an ordinary user.
func entries() error {
	ctx := context.Background()
	var all []error
	add := func(name string, err error) {
		if !errors.Is(err, ErrNeedsRoot) || !errors.Is(err, fs.ErrPermission) {
			all = append(all, fmt.Errorf("%s: %w", name, err))
		}
	}
	_, err := Create(ctx, "/tmp/x/image", -1, CreateOptions{})
	add("create", err)
	_, err = Attach(ctx, "/no", AttachOptions{})
	add("attach", err)
	_, err = Mount(ctx, "/no", "/no", MountOptions{})
	add("mount", err)
	add("unmount", Unmount(ctx, "/no"))
	_, err = Find("/no")
	add("find", err)
	_, err = ReadUsage("/no")
	add("usage", err)
	_, err = Resize(ctx, "/no", Bytes(1), ResizeOptions{})
	add("resize", err)
	_, err = Grow(ctx, "/no", GrowPolicy{}, nil)
	add("grow", err)
	_, err = Trim(ctx, "/no")
	add("trim", err)
	return errors.Join(all...)
}

func child(what string) {
	var err error
	switch name, arg, _ := strings.Cut(what, " "); name {
	case "entries":
		err = entries()
	case "without":
		err = createWithout(arg)
	case "resize":
		err = resizeAndDie(arg)
	default:
		err = errors.New("no such child")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
