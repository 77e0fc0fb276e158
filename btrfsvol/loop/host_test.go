package loop

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What cannot be made leaves nothing, not even directories.
func TestCreateRefuses(t *testing.T) {
	used, _ := newVolume(t, MinSize)
	host := smallHost(t, "64m")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx  context.Context
		size int64
		o    CreateOptions
		want func(error) bool
		says string
	}{
		"too small":      {size: MinSize - 1, want: isA[*TooSmallError], says: "109 MiB"},
		"negative":       {size: -gib, want: isA[*TooSmallError]},
		"host's reserve": {size: gib, o: CreateOptions{Reserve: 60 * mib}, want: isA[*HostFullError], says: "60 MiB"},
		"usual reserve":  {size: gib, o: CreateOptions{Reserve: 0}, want: isA[*HostFullError], says: "1.0 GiB"},
		"UUID":           {size: gib, o: CreateOptions{Reserve: -1, UUID: "1234"}, says: "UUID"},
		"long label":     {size: gib, o: CreateOptions{Reserve: -1, Label: strings.Repeat("ü", 128)}, says: "label"},
		"cancelled":      {ctx: ended, size: gib, o: CreateOptions{Reserve: -1}, want: is(context.Canceled)},
		"mkfs.btrfs":     {size: gib, o: CreateOptions{Reserve: -1, UUID: uuidOf(t, used)}, says: "non-unique UUID"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.ctx == nil {
				c.ctx = t.Context()
			}
			image := filepath.Join(host, "a/b/image")
			_, err := Create(c.ctx, image, c.size, c.o)
			if err == nil || c.want != nil && !c.want(err) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), image) {
				t.Error(err)
			}
			if left, _ := os.ReadDir(host); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
	// One that is just large enough, far more than the host has.
	image := filepath.Join(host, "image")
	if _, err := Create(t.Context(), image, MinSize, CreateOptions{Reserve: -1}); err != nil {
		t.Error(err)
	}
	if all, _ := os.ReadDir(host); len(all) != 1 {
		t.Errorf("besides the image: %v", all)
	}
	if _, err := Create(t.Context(), filepath.Join(image, "x"), gib, CreateOptions{Reserve: -1}); !errors.Is(err, unix.ENOTDIR) {
		t.Error(err)
	}
}

// Without mkfs.btrfs the package to install is named.
func TestNoMkfs(t *testing.T) {
	needLoop(t)
	mkfs, err := findMkfs()
	must(t, err)
	mkfs, err = filepath.EvalSymlinks(mkfs)
	must(t, err)
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "LOOP_TEST_CHILD=without "+mkfs)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Unshareflags: unix.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "btrfs-progs") {
		t.Errorf("%v: %s", err, out)
	}
}

// createWithout hides a program from this process alone.
func createWithout(mkfs string) error {
	if err := unix.Mount("/dev/null", mkfs, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	image := filepath.Join(os.TempDir(), "without")
	_, err := Create(context.Background(), image, gib, CreateOptions{Reserve: -1})
	if !errors.Is(err, ErrNoTool) {
		return errors.Join(errors.New("made without the program"), err)
	}
	if _, e := os.Lstat(image); !errors.Is(e, fs.ErrNotExist) {
		return errors.Join(errors.New("left an image"), e)
	}
	_, e := os.Stdout.WriteString(err.Error())
	return e
}

// On a full disk nothing grows, what is there stays usable, and it goes on when
// there is room again.
func TestFullHost(t *testing.T) {
	host := smallHost(t, "300m")
	image := filepath.Join(host, "image")
	_, err := Create(t.Context(), image, 256*mib, CreateOptions{Reserve: -1})
	must(t, err)
	dir := mountImage(t, image)
	fill(t, filepath.Join(dir, "f"), 100*mib, 1)
	ballast := filepath.Join(host, "ballast")
	filled := run(t, "sh", "-c", "head -c 1G /dev/zero >"+ballast+" 2>/dev/null; echo full")
	if filled != "full" {
		t.Fatal(filled)
	}
	full := func(err error) {
		t.Helper()
		h, ok := errors.AsType[*HostFullError](err)
		if !ok || h.Free > mib {
			t.Errorf("%v", err)
		}
	}
	for _, target := range []string{"1G", "+50M", "max"} {
		_, err := resizeTo(t, dir, target)
		full(err)
	}
	g, err := Grow(t.Context(), dir, GrowPolicy{Reserve: 10 * mib}, nil)
	full(err)
	if g.From != g.To {
		t.Errorf("grown: %+v", g)
	}
	agree(t, image, dir, 256*mib)
	must(t, Unmount(t.Context(), dir))
	// Mounting writes, too; whether or not it succeeds, nothing is left.
	if _, err := Mount(t.Context(), image, dir, MountOptions{}); err == nil {
		must(t, Unmount(t.Context(), dir))
	} else if d := device(t, image); d != "" {
		t.Errorf("%s is left after %v", d, err)
	}
	must(t, os.Remove(ballast))
	mountAt(t, image, dir)
	if b, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || !bytes.Equal(b, pattern(100*mib, 1)) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	// All of the host's disk but the reserve: what is allocated counts.
	to, err := ParseTarget("max")
	must(t, err)
	u, err := Resize(t.Context(), dir, to, ResizeOptions{Reserve: 20 * mib})
	must(t, err)
	if u.Size > 280*mib || u.Size < 270*mib || u.Size != u.Max(20*mib) {
		t.Errorf("max is %d", u.Size)
	}
	// What has all it can get fills up without harm to the host's reserve.
	err = os.WriteFile(filepath.Join(dir, "all"), pattern(300*mib, 2), 0o600)
	if !errors.Is(err, unix.ENOSPC) {
		t.Error(err)
	}
	u, err = ReadUsage(dir)
	must(t, err)
	if u.HostFree < 20*mib {
		t.Errorf("the host has %d left", u.HostFree)
	}
}

func TestGrow(t *testing.T) {
	image, dir := newVolume(t, 300*mib)
	p := GrowPolicy{Limit: 1400 * mib, Reserve: -1}
	grow := func() (Growth, error) {
		t.Helper()
		start := time.Now()
		g, err := Grow(t.Context(), dir, p, nil)
		t.Logf("grow: %+v, %v in %v", g, err, time.Since(start))
		return g, err
	}
	if g, err := grow(); err != nil || g.To != 300*mib {
		t.Errorf("%+v, %v", g, err)
	}
	// Writing goes on past what it had at first.
	name := 0
	for want := int64(300*mib + gib); ; want = 1400 * mib {
		var g Growth
		for g.From == g.To && name < 40 {
			name++
			take(t, filepath.Join(dir, string(rune('A'+name))), 60*mib)
			var err error
			if g, err = grow(); err != nil {
				t.Fatal(err)
			}
		}
		if g.To != want {
			t.Fatalf("%+v after %d files, want %d", g, name, want)
		}
		agree(t, image, dir, want)
		if want == 1400*mib {
			break
		}
	}
	take(t, filepath.Join(dir, "last"), 100*mib)
	if g, err := grow(); !errors.Is(err, ErrLimit) || g.From != g.To {
		t.Errorf("%+v, %v", g, err)
	}
}

func TestDecide(t *testing.T) {
	const host, free = 500 * gib, 200 * gib // the usual reserve is 10 GiB
	for name, c := range map[string]struct {
		u    Usage
		p    GrowPolicy
		want int64 // 0 is no change
		err  func(error) bool
	}{
		"room":               {u: Usage{Size: 20 * gib, Free: 5 * gib}},
		"just enough":        {u: Usage{Size: 20 * gib, Free: 3 * gib}},
		"less than 15 %":     {u: Usage{Size: 20 * gib, Free: 3*gib - mib}, want: 25 * gib},
		"less than 1 GiB":    {u: Usage{Size: 4 * gib, Free: 1000 * mib}, want: 5 * gib},
		"small, half free":   {u: Usage{Size: 300 * mib, Free: 150 * mib}},
		"small, less":        {u: Usage{Size: 300 * mib, Free: 149 * mib}, want: 300*mib + gib},
		"large":              {u: Usage{Size: 1000 * gib, Free: gib, Allocated: 999 * gib}, want: 1064 * gib},
		"full":               {u: Usage{Size: 8 * gib}, want: 10 * gib},
		"up to the limit":    {u: Usage{Size: 20 * gib}, p: GrowPolicy{Limit: 22 * gib}, want: 22 * gib},
		"at the limit":       {u: Usage{Size: 20 * gib}, p: GrowPolicy{Limit: 20 * gib}, err: is(ErrLimit)},
		"beyond the limit":   {u: Usage{Size: 20 * gib}, p: GrowPolicy{Limit: gib}, err: is(ErrLimit)},
		"limit not reached":  {u: Usage{Size: 20 * gib, Free: 10 * gib}, p: GrowPolicy{Limit: 20 * gib}},
		"up to the reserve":  {u: Usage{Size: 20 * gib, Allocated: 20 * gib, HostFree: 12 * gib}, want: 22 * gib},
		"all of the host":    {u: Usage{Size: 20 * gib, Allocated: 20 * gib, HostFree: 2 * gib}, p: GrowPolicy{Reserve: -1}, want: 22 * gib},
		"host at reserve":    {u: Usage{Size: 20 * gib, Allocated: 20 * gib, HostFree: 10 * gib}, err: isA[*HostFullError]},
		"host overcommitted": {u: Usage{Size: 20 * gib, Allocated: 5 * gib, HostFree: 12 * gib}, err: isA[*HostFullError]},
		"host full":          {u: Usage{Size: 20 * gib, Allocated: 20 * gib, HostFree: 1}, err: isA[*HostFullError]},
		"promise in danger":  {u: Usage{Size: 20 * gib, Free: 15 * gib, Allocated: 5 * gib, HostFree: 9 * gib}, err: isA[*HostFullError]},
		"promise was kept":   {u: Usage{Size: 20 * gib, Free: 15 * gib, Allocated: 20 * gib, HostFree: 9 * gib}},
		"tiny":               {u: Usage{Size: 110 * mib}, p: GrowPolicy{Limit: 256 * mib}, want: 256 * mib},
		"tiny, low limit":    {u: Usage{Size: 110 * mib}, p: GrowPolicy{Limit: 200 * mib}, err: is(ErrLimit)},
		"tiny, small host":   {u: Usage{Size: 110 * mib, Allocated: 110 * mib, HostFree: 100 * mib}, p: GrowPolicy{Reserve: -1}, err: isA[*HostFullError]},
	} {
		t.Run(name, func(t *testing.T) {
			c.u.ImageSize, c.u.HostSize = c.u.Size, host
			if c.u.HostFree == 0 {
				c.u.HostFree = free
			}
			if c.u.Allocated == 0 {
				c.u.Allocated = c.u.Size
			}
			if c.want == 0 {
				c.want = c.u.Size
			}
			got, err := c.p.Decide(c.u)
			if got != c.want || (err == nil) != (c.err == nil) || err != nil && !c.err(err) {
				t.Errorf("%d MiB, %v; want %d MiB", got/mib, err, c.want/mib)
			}
		})
	}
}

func TestReserve(t *testing.T) {
	for _, c := range []struct{ reserve, host, want int64 }{
		{0, 8 * gib, gib}, {0, 40 * gib, 2 * gib}, {0, 4000 * gib, 10 * gib}, {5 * mib, 40 * gib, 5 * mib}, {-1, 40 * gib, 0},
	} {
		if got := Reserve(c.reserve, c.host); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

// What is deleted goes back to the host. It is mounted by hand here, without
// discard, so that nothing but Trim does it.
func TestTrim(t *testing.T) {
	image := newImage(t, gib)
	d, err := Attach(t.Context(), image, AttachOptions{})
	must(t, err)
	dir := t.TempDir()
	must(t, unix.Mount(d.Path, dir, "btrfs", 0, "nodiscard"))
	unmountLater(t, dir)
	d.Close()
	empty := allocated(t, image)
	fill(t, filepath.Join(dir, "f"), 200*mib, 1)
	full := allocated(t, image)
	must(t, os.Remove(filepath.Join(dir, "f")))
	n, err := Trim(t.Context(), dir)
	must(t, err)
	after := allocated(t, image)
	t.Logf("%d MiB, with a file %d, trimmed %d: %d", empty/mib, full/mib, n/mib, after/mib)
	if full < 200*mib || after > empty+20*mib || n < 200*mib {
		t.Errorf("empty %d, full %d, after %d, trimmed %d", empty, full, after, n)
	}
	u, err := ReadUsage(dir)
	if err != nil || u.Allocated != after || u.Used > 20*mib || u.Free < 700*mib || u.Size != gib || u.ImageSize != gib || u.Min != MinResize {
		t.Errorf("%+v, %v", u, err)
	}
}
