package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal as its user sees it.
type terminal struct {
	t      *testing.T
	master *os.File
	slave  *os.File

	mu    sync.Mutex // guards what follows
	shown []byte
	news  chan struct{} // closed at the next change of shown
}

func newTerminal(t *testing.T) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		missing(t, err.Error())
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	tt := &terminal{t: t, master: master, slave: slave, news: make(chan struct{})}
	var reading sync.WaitGroup
	reading.Go(tt.read)
	t.Cleanup(func() {
		slave.Close() // the last one: read ends
		reading.Wait()
	})
	return tt
}

// read keeps what the program shows, until nobody has the terminal open.
func (tt *terminal) read() {
	buf := make([]byte, 4096)
	for {
		n, err := tt.master.Read(buf)
		tt.mu.Lock()
		tt.shown = append(tt.shown, buf[:n]...)
		close(tt.news)
		tt.news = make(chan struct{})
		tt.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (tt *terminal) screen() string {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	return string(tt.shown)
}

// await waits until the text is shown.
func (tt *terminal) await(ctx context.Context, text string) {
	tt.t.Helper()
	for {
		tt.mu.Lock()
		shown, news := string(tt.shown), tt.news
		tt.mu.Unlock()
		if strings.Contains(shown, text) {
			return
		}
		select {
		case <-news:
		case <-ctx.Done():
			tt.t.Fatalf("no %q within time: %q", text, shown)
		}
	}
}

func (tt *terminal) kind(keys string) {
	tt.t.Helper()
	if _, err := tt.master.WriteString(keys); err != nil {
		tt.t.Fatal(err)
	}
}

// echoes tells whether what is typed is shown.
func (tt *terminal) echoes() bool {
	tt.t.Helper()
	mode, err := unix.IoctlGetTermios(int(tt.slave.Fd()), unix.TCGETS)
	if err != nil {
		tt.t.Fatal(err)
	}
	return mode.Lflag&unix.ECHO != 0
}

// TestPrompt asks a person at a terminal for the passphrase.
func TestPrompt(t *testing.T) {
	repo, err := filepath.Abs("../borgio/testdata/mode-repokey")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, keys string
		redirected bool // stdin, stdout and stderr are no terminal
		want       int
		shows      string
	}{
		{"right", "s4-test\n", false, 0, "hello, borg"},
		{"right, with all redirected", "s4-test\n", true, 0, ""},
		{"wrong", "not-it\n", false, 8, "wrong passphrase"},
		{"empty", "\n", false, 8, "wrong passphrase"},
		{"Ctrl-C", "not-\x03", false, 130, "interrupted"},
		{"Ctrl-C, with all redirected", "\x03", true, 130, ""},
		{"Ctrl-D", "\x04", false, 8, "nothing was typed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			tt, home := newTerminal(t), t.TempDir()
			s4 := exec.CommandContext(ctx, filepath.Join(bin, "s4"), "cat", "--repo", repo, "first:hello.txt")
			s4.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "TERM=dumb"}
			s4.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 3}
			s4.ExtraFiles = []*os.File{tt.slave}
			var out strings.Builder
			if c.redirected {
				s4.Stdout, s4.Stderr = &out, &out
			} else {
				s4.Stdin, s4.Stdout, s4.Stderr = tt.slave, tt.slave, tt.slave
			}
			if err := s4.Start(); err != nil {
				t.Fatal(err)
			}
			tt.await(ctx, "Passphrase for ")
			if tt.echoes() {
				t.Error("what is typed would be shown")
			}
			tt.kind(c.keys)
			err := s4.Wait()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if got := s4.ProcessState.ExitCode(); got != c.want {
				t.Errorf("exit code %d, want %d: %q %q", got, c.want, tt.screen(), out.String())
			}
			if !tt.echoes() {
				t.Error("what is typed later is not shown")
			}
			if c.redirected {
				if c.want == 0 && !strings.Contains(out.String(), "hello, borg") {
					t.Errorf("output %q", out.String())
				}
			} else {
				tt.await(ctx, c.shows)
			}
			screen := tt.screen()
			if n := strings.Count(screen, "Passphrase for "); n != 1 {
				t.Errorf("asked %d times: %q", n, screen)
			}
			if word := strings.Trim(c.keys, "\n\x03\x04"); word != "" && strings.Contains(screen, word) {
				t.Errorf("the passphrase is shown: %q", screen)
			}
		})
	}
}
