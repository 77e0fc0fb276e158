package loop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// resizeTo resizes on a disk where nothing is held back.
func resizeTo(t *testing.T, dir, target string) (Usage, error) {
	t.Helper()
	to, err := ParseTarget(target)
	must(t, err)
	return Resize(t.Context(), dir, to, ResizeOptions{Reserve: -1})
}

// agree checks that file system, device and image are all as large as want.
func agree(t *testing.T, image, dir string, want int64) {
	t.Helper()
	u, err := ReadUsage(dir)
	must(t, err)
	blocks := run(t, tool(t, "blockdev"), "--getsize64", device(t, image))
	if u.Size != want || u.ImageSize != want || blocks != strconv.FormatInt(want, 10) {
		t.Errorf("file system %d, device %s, image %d; want %d", u.Size, blocks, u.ImageSize, want)
	}
}

func TestResize(t *testing.T) {
	image, dir := newVolume(t, 300*mib)
	keep := filepath.Join(dir, "keep")
	fill(t, keep, 60*mib, 1)
	for _, step := range []struct {
		target string
		want   int64
	}{{"1G", gib}, {"+512M", 3 * gib / 2}, {"-1G", gib / 2}, {"2G", 2 * gib}, {"2G", 2 * gib}, {"min", -1}, {"400M", 400 * mib}} {
		start := time.Now()
		u, err := resizeTo(t, dir, step.target)
		if err != nil {
			t.Fatalf("%s: %v", step.target, err)
		}
		if step.want < 0 {
			if step.want = u.Size; u.Size > 300*mib || u.Free < 64*mib {
				t.Errorf("at its least it has %d bytes, %d free", u.Size, u.Free)
			}
		}
		t.Logf("%s: %d bytes in %v", step.target, u.Size, time.Since(start))
		if u.Size != step.want {
			t.Errorf("%s: %d", step.target, u.Size)
		}
		agree(t, image, dir, step.want)
	}
	// More than can be written at 300 MiB.
	_, err := resizeTo(t, dir, "1G")
	must(t, err)
	take(t, filepath.Join(dir, "more"), 300*mib)
	for target, min := range map[string]int64{"300M": 360 * mib, "-800M": 360 * mib, "-5G": 360 * mib, "1": 360 * mib} {
		_, err := resizeTo(t, dir, target)
		small, ok := errors.AsType[*TooSmallError](err)
		if !ok || small.Min < min || small.Min > gib {
			t.Errorf("%s: %v", target, err)
		}
	}
	agree(t, image, dir, gib)
	must(t, os.Remove(filepath.Join(dir, "more")))
	if _, err := resizeTo(t, dir, "100M"); !isA[*TooSmallError](err) {
		t.Error(err)
	}

	// It gives back what is cut off, and all is there after mounting again.
	_, err = resizeTo(t, dir, "min")
	must(t, err)
	if a := allocated(t, image); a > 300*mib {
		t.Errorf("the image still takes %d bytes", a)
	}
	must(t, Unmount(t.Context(), dir))
	mountAt(t, image, dir)
	if b, err := os.ReadFile(keep); err != nil || !bytes.Equal(b, pattern(60*mib, 1)) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	must(t, Unmount(t.Context(), dir))
	run(t, tool(t, "btrfs"), "check", image)
}

// While somebody writes, and with what he wrote compared at the end.
func TestResizeUnderLoad(t *testing.T) {
	image, dir := newVolume(t, gib)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	var written atomic.Int64
	go func() {
		done <- func() error {
			for i := 0; ctx.Err() == nil; i++ {
				// 24 files of 4 MiB, again and again.
				name := filepath.Join(dir, fmt.Sprint(i%24))
				if err := os.WriteFile(name, pattern(4*mib, byte(i)), 0o600); err != nil {
					return err
				}
				written.Store(int64(i) + 1)
			}
			return nil
		}()
	}()
	for _, target := range []string{"2G", "min", "+300M", "3G", "600M", "1G"} {
		// All files are there, and some are written between any two steps.
		for goal := max(24, written.Load()+6); written.Load() < goal; time.Sleep(time.Millisecond) {
			select {
			case err := <-done:
				t.Fatal("the writer:", err)
			default:
			}
		}
		start := time.Now()
		u, err := resizeTo(t, dir, target)
		if err != nil {
			t.Fatalf("%s: %v", target, err)
		}
		t.Logf("%s: %d bytes in %v", target, u.Size, time.Since(start))
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal("the writer:", err)
	}
	last := int(written.Load())
	must(t, Unmount(t.Context(), dir))
	mountAt(t, image, dir)
	for i := last - 24; i < last; i++ {
		b, err := os.ReadFile(filepath.Join(dir, fmt.Sprint(i%24)))
		if err != nil || !bytes.Equal(b, pattern(4*mib, byte(i))) {
			t.Errorf("write %d: %d bytes, %v", i, len(b), err)
		}
	}
	run(t, tool(t, "btrfs"), "scrub", "start", "-B", dir)
	agree(t, image, dir, gib)
}

// A process that is killed between any two steps leaves an image that is large
// enough and a volume that can be used and resized.
func TestKilledResize(t *testing.T) {
	for _, target := range []string{"1G", "300M"} {
		for _, step := range []string{"shrink", "image", "device", "grow", "done"} {
			t.Run(target+" before "+step, func(t *testing.T) {
				image, dir := newVolume(t, 512*mib)
				fill(t, filepath.Join(dir, "f"), 8*mib, 3)
				cmd := exec.CommandContext(t.Context(), os.Args[0])
				cmd.Env = append(os.Environ(), fmt.Sprintf("LOOP_TEST_CHILD=resize %s %s %s", step, target, dir))
				out, err := cmd.CombinedOutput()
				if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGKILL {
					t.Fatalf("%v: %s", err, out)
				}
				// Found as it is, with its device…
				if m, err := Mount(t.Context(), image, dir, MountOptions{}); err != nil || !m.Found {
					t.Errorf("%+v, %v", m, err)
				}
				must(t, unix.Unmount(dir, 0))
				// …and after a restart.
				mountAt(t, image, dir)
				u, err := ReadUsage(dir)
				must(t, err)
				if u.ImageSize < u.Size {
					t.Errorf("image %d, file system %d", u.ImageSize, u.Size)
				}
				u, err = resizeTo(t, dir, target)
				must(t, err)
				agree(t, image, dir, u.Size)
				if b, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || !bytes.Equal(b, pattern(8*mib, 3)) {
					t.Errorf("%d bytes, %v", len(b), err)
				}
			})
		}
	}
}

// resizeAndDie is the process that is killed: "STEP TARGET DIR".
func resizeAndDie(arg string) error {
	words := strings.SplitN(arg, " ", 3)
	to, err := ParseTarget(words[1])
	if err != nil {
		return err
	}
	_, err = Resize(context.Background(), words[2], to, ResizeOptions{Reserve: -1, before: func(step string) {
		if step == words[0] {
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
			select {}
		}
	}})
	return errors.Join(err, errors.New("came to its end"))
}

// A shrink that is given up leaves all as it was.
func TestCancelledShrink(t *testing.T) {
	image, dir := newVolume(t, gib)
	// A file in the upper part, so that there is much to move.
	take(t, filepath.Join(dir, "low"), 500*mib)
	fill(t, filepath.Join(dir, "high"), 100*mib, 2)
	must(t, os.Remove(filepath.Join(dir, "low")))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := Resize(ctx, dir, Bytes(400*mib), ResizeOptions{Reserve: -1, before: func(step string) {
		if step == "shrink" {
			time.AfterFunc(2*time.Millisecond, cancel)
		}
	}})
	if err == nil { // faster than the cancel
		agree(t, image, dir, 400*mib)
	} else if !errors.Is(err, context.Canceled) {
		t.Error(err)
	} else {
		t.Log("was given up:", err)
		agree(t, image, dir, gib)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "high")); err != nil || !bytes.Equal(b, pattern(100*mib, 2)) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func TestResizeRefuses(t *testing.T) {
	needLoop(t)
	for _, dir := range []string{t.TempDir(), "/proc"} {
		if _, err := Resize(t.Context(), dir, Bytes(gib), ResizeOptions{}); !errors.Is(err, ErrNotMounted) {
			t.Errorf("%s: %v", dir, err)
		}
		if _, err := Trim(t.Context(), dir); !errors.Is(err, ErrNotMounted) {
			t.Errorf("%s: %v", dir, err)
		}
	}
	image, dir := newVolume(t, 256*mib)
	must(t, os.Remove(image))
	must(t, os.WriteFile(image, nil, 0o600))
	if _, err := resizeTo(t, dir, "1G"); err == nil {
		t.Error("resized an image that is deleted")
	}
	if size(t, image) != 0 {
		t.Error("resized another file in its place")
	}
}

func TestParseTarget(t *testing.T) {
	u := Usage{Size: 10 * gib, Min: 3 * gib, Allocated: 4 * gib, HostFree: 20 * gib, HostSize: 100 * gib}
	for text, want := range map[string]int64{
		"20G": 20 * gib, "+5G": 15 * gib, "-5G": 5 * gib, "-50G": 0, "max": 19 * gib, "min": 3 * gib,
		"1000000": 1000000 / 4096 * 4096, "8191P": 8191 << 50, "+8191P": 8191<<50 + 10*gib,
		"+9223372036854775807": 1<<63 - 4096,
	} {
		to, err := ParseTarget(text)
		if err != nil || to.resolve(u, 0) != want {
			t.Errorf("%s: %d, %v; want %d", text, to.resolve(u, 0), err, want)
		}
	}
	for _, text := range []string{"", "+", "-", "++5G", "+-5G", "5G+", "MAX", "minimum", "+max", "50%", "20GB"} {
		if to, err := ParseTarget(text); err == nil {
			t.Errorf("%q was taken for %v", text, to)
		} else if !strings.Contains(err.Error(), "20G") || !strings.Contains(err.Error(), "+5G") {
			t.Errorf("%q: the error names no good form: %v", text, err)
		}
	}
	// A disk that is fuller than promised does not shrink what asks for more.
	u.HostFree = gib
	if got := (Target{kind: asLarge}).resolve(u, 0); got != u.Size {
		t.Errorf("max is %d", got)
	}
}

func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{"20G", "+5G", "-5G", "max", "min", "--1", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		to, err := ParseTarget(text)
		if err != nil {
			return
		}
		if again, err := ParseTarget(to.String()); err != nil || again != to {
			t.Errorf("%q is %v, and that %v, %v", text, to, again, err)
		}
		if n := to.resolve(Usage{Size: gib, HostFree: gib}, 0); n < 0 {
			t.Errorf("%q is %d bytes", text, n)
		}
	})
}
