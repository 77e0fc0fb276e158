package disk

import (
	"bufio"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/fault"
	"github.com/s4-storage/s4/borgio/internal/heap"
)

// TestNoRegularFile: a pipe where a file should be is not waited for, and a
// file that goes on for ever is not read.
func TestNoRegularFile(t *testing.T) {
	pool := &buffer.Pool{}
	defer pool.Close()
	var manifest [32]byte
	for _, c := range []struct {
		name string // of what is replaced
		want error
	}{
		{"config", fault.ErrNotRepository},
		{"index.*", nil},
		{"integrity.*", nil},
		{"data/0/*", fault.ErrIntegrity},
	} {
		for what, replace := range map[string]func(string) error{
			"pipe":     func(path string) error { return unix.Mkfifo(path, 0o600) },
			"zeros":    func(path string) error { return os.Symlink("/dev/zero", path) },
			"terabyte": func(path string) error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<40)) },
		} {
			t.Run(what+" as "+c.name, func(t *testing.T) {
				dir := t.TempDir()
				if err := os.CopyFS(dir, os.DirFS("../../testdata/mode-none")); err != nil {
					t.Fatal(err)
				}
				paths, err := filepath.Glob(filepath.Join(dir, c.name))
				if err != nil || len(paths) == 0 {
					t.Fatalf("no such file, %v", err)
				}
				for _, path := range paths {
					if err := errors.Join(os.Remove(path), replace(path)); err != nil {
						t.Fatal(err)
					}
				}
				over := heap.Over(4<<20, func() {
					var s *Repository
					if s, err = Open(t.Context(), dir, pool, slog.New(slog.DiscardHandler)); err == nil {
						var b *buffer.Buffer
						if b, err = s.Get(t.Context(), manifest, 0); err == nil {
							b.Release()
						}
						err = errors.Join(err, s.Close())
					}
				})
				if !errors.Is(err, c.want) || over > 0 {
					t.Errorf("%v, want %v; %d bytes over the bound", err, c.want, over)
				}
			})
		}
	}
}

// TestBounds: the worst inputs known take no more memory than the parsers say.
func TestBounds(t *testing.T) {
	config := func(in string) func() {
		return func() { _, _ = parseINI(bufio.NewScanner(strings.NewReader(in))) }
	}
	integrity := func(in string) func() {
		return func() { _, _ = parseIntegrity([]byte(in), "index") }
	}
	const n = maxConfigBytes / 4
	for name, c := range map[string]struct {
		size  int
		parse func()
	}{
		"many continued lines": {4 * n, config("[repository]\na=\n" + strings.Repeat(" a\n", n))},
		"many keys":            {4 * n, config("[repository]\n" + distinct(n, "=\n"))},
		"one long line":        {4 * n, config("[repository]\na=" + strings.Repeat("x", 4*n))},
		"many digests":         {4 * n, integrity("\x81\xa5index\xda\xff\xff{\"digests\":{" + distinct(n, `":"","`) + "}}")},
		"a deep nest":          {4 * n, integrity("\x81\xa5index\xda\xff\xff" + strings.Repeat("[", 65535))},
	} {
		if over := heap.Over(64*c.size, c.parse); over > 0 {
			t.Errorf("%s: %d bytes over the bound for %d", name, over, c.size)
		}
	}
}

// distinct is words of three letters, each followed by sep.
func distinct(n int, sep string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(string([]byte{byte('a' + i%26), byte('a' + i/26%26), byte('a' + i/676%26)}) + sep)
	}
	return b.String()
}
