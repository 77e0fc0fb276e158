package borgio

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// place is where a test's repository is, and how it is got at.
type place struct {
	dir   string
	loc   Location
	opts  Options
	calls string // file with the numbers of the processes that stood in for ssh
}

// places gives a directory that does not exist yet, locally and through borg serve,
// which is started with the given arguments.
func places(t testing.TB, serve string) map[string]place {
	t.Helper()
	if _, err := exec.LookPath("borg"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("borg is not installed")
	}
	t.Setenv("BORG_BASE_DIR", t.TempDir())
	t.Setenv("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes")
	tmp := t.TempDir()
	rsh, calls := filepath.Join(tmp, "rsh"), filepath.Join(tmp, "calls")
	script := "#!/bin/sh\necho $$ >>" + calls + "\nshift\nexec \"$@\" " + serve + "\n"
	if err := os.WriteFile(rsh, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	opts := Options{Environ: func(name string) (string, bool) {
		if name == "BORG_RSH" {
			return "/bin/sh " + rsh, true
		}
		return os.LookupEnv(name)
	}, LockWait: time.Second, Timeout: 20 * time.Second, Logger: slog.New(slog.DiscardHandler)}
	local, remote := filepath.Join(tmp, "local"), filepath.Join(tmp, "remote")
	return map[string]place{
		"local":  {local, Location{Path: local}, opts, calls},
		"remote": {remote, Location{Host: "host", Path: remote}, opts, calls},
	}
}

func borg(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.Command("borg", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("borg %s: %v: %s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// begin opens the repository and begins a transaction.
func (p place) begin(t testing.TB) target {
	t.Helper()
	tg, err := p.tryBegin(t)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tg.rollback(); err != nil {
			t.Error(err)
		}
	})
	return tg
}

func (p place) tryBegin(t testing.TB) (target, error) {
	t.Helper()
	r, err := Open(t.Context(), p.loc, p.opts)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { r.Close() })
	if p.loc.IsRemote() {
		return r.beginRemote(t.Context(), time.Second)
	}
	return r.beginLocal(t.Context(), 0)
}

// signalLast sends a signal to the last of the processes that a file has the numbers
// of and that still run, and gives its number.
func signalLast(t testing.TB, file string, signal syscall.Signal) int {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range slices.Backward(strings.Fields(string(b))) {
		var pid int
		if _, err := fmt.Sscan(field, &pid); err != nil {
			t.Fatal(err)
		}
		if syscall.Kill(pid, signal) == nil {
			return pid
		}
	}
	t.Fatal("none runs")
	return 0
}

func targetObject(n, size int) (id ID, data []byte) {
	id = ID{1, byte(n), byte(n >> 8), 31: 7}
	data = make([]byte, size)
	rand.NewChaCha8(id).Read(data)
	return id, data
}

func putMany(t testing.TB, tg target, from, to, size int) {
	t.Helper()
	for n := from; n < to; n++ {
		id, data := targetObject(n, size)
		if err := tg.put(t.Context(), id, data); err != nil {
			t.Fatal(err)
		}
		clear(data) // it is ours again
	}
}

// sameManifest puts the manifest that is there once more.
func sameManifest(t testing.TB, tg target) {
	t.Helper()
	b, err := tg.get(t.Context(), manifestID, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	if err := tg.put(t.Context(), manifestID, b.Data); err != nil {
		t.Fatal(err)
	}
}

// have counts the objects that are in the repository as they were put.
func (p place) have(t testing.TB, from, to, size int) (found int) {
	t.Helper()
	r, err := Open(t.Context(), Location{Path: p.dir}, p.opts)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for n := from; n < to; n++ {
		id, data := targetObject(n, size)
		b, err := r.store.get(t.Context(), id, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b.Data, data) {
			t.Errorf("object %d differs", n)
		}
		b.Release()
		found++
	}
	return found
}

// TestTarget takes a target through all that it can do, and has borg look at it.
func TestTarget(t *testing.T) {
	for name, p := range places(t, "") {
		t.Run(name, func(t *testing.T) {
			borg(t, "init", "-e", "none", p.dir)
			tg := p.begin(t)
			id, _ := targetObject(0, 5000)
			if there, known := tg.has(id); there || known != (name == "local") {
				t.Error(there, known)
			}
			putMany(t, tg, 0, 300, 5000)
			putMany(t, tg, 300, 302, 19<<20)
			if there, known := tg.has(id); !there || !known {
				t.Error("what was put is not known")
			}
			if got := tg.storedSize(id); got != 5000 {
				t.Errorf("%d bytes are stored", got)
			}
			if err := tg.flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("borg", "--lock-wait", "1", "list", p.dir).CombinedOutput(); err == nil {
				t.Errorf("borg does not mind: %s", out)
			}
			if _, err := p.tryBegin(t); !errors.Is(err, ErrLocked) {
				t.Errorf("a second writer: %v", err)
			}
			sameManifest(t, tg)
			if err := tg.commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := tg.rollback(); err != nil {
				t.Error(err)
			}
			if got := p.have(t, 0, 300, 5000) + p.have(t, 300, 302, 19<<20); got != 302 {
				t.Errorf("%d objects are there", got)
			}
			out := filepath.Join(t.TempDir(), "object")
			borg(t, "debug", "get-obj", p.dir, hex.EncodeToString(id[:]), out)
			if _, data := targetObject(0, 5000); !sameFile(t, out, data) {
				t.Error("borg gives another object")
			}

			tg = p.begin(t)
			if err := tg.loadIDs(t.Context()); err != nil {
				t.Fatal(err)
			}
			if there, known := tg.has(id); !there || !known {
				t.Error("what was put before is not known")
			}
			if there, known := tg.has(ID{5}); there || !known {
				t.Error("what was never put is known")
			}
			if _, err := tg.get(t.Context(), ID{5}, 0); !errors.Is(err, fs.ErrNotExist) || !errors.Is(err, ErrIntegrity) {
				t.Errorf("what was never put: %v", err)
			}
			b, err := tg.get(t.Context(), id, 100)
			if err != nil {
				t.Fatal(err)
			}
			if _, data := targetObject(0, 5000); !bytes.Equal(b.Data, data) {
				t.Error("another object")
			}
			b.Release()
			putMany(t, tg, 1000, 1100, 5000)
			sameManifest(t, tg)
			if err := tg.rollback(); err != nil {
				t.Fatal(err)
			}
			if got := p.have(t, 1000, 1100, 5000); got != 0 {
				t.Errorf("%d objects were committed", got)
			}
			if err := tg.commit(t.Context()); err == nil {
				t.Error("committed after rollback")
			}
			if err := p.begin(t).commit(t.Context()); err != nil {
				t.Errorf("nothing to commit: %v", err)
			}
			borg(t, "check", "--repository-only", p.dir)
		})
	}
}

func sameFile(t *testing.T, path string, want []byte) bool {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Equal(got, want)
}

// TestTargetNonces: what is reserved is known to the next transaction, committed or
// not, and can only rise.
func TestTargetNonces(t *testing.T) {
	for name, p := range places(t, "") {
		t.Run(name, func(t *testing.T) {
			borg(t, "init", "-e", "none", p.dir)
			tg := p.begin(t)
			if next, ok, err := tg.freeNonce(t.Context()); next != 0 || ok || err != nil {
				t.Error(next, ok, err)
			}
			for _, c := range []struct {
				start, next uint64
				good        bool
			}{{5, 1 << 40, true}, {1 << 39, 1 << 41, false}, {1 << 40, 1<<40 + 3, true}} {
				if err := tg.reserveNonces(t.Context(), c.next, c.start); (err == nil) != c.good {
					t.Errorf("%v: %v", c, err)
				}
			}
			if err := tg.rollback(); err != nil {
				t.Fatal(err)
			}
			tg = p.begin(t)
			if err := tg.reserveNonces(t.Context(), 7, 6); err == nil {
				t.Error("nonces were given out twice")
			}
			if next, ok, err := tg.freeNonce(t.Context()); next != 1<<40+3 || !ok || err != nil {
				t.Error(next, ok, err)
			}
		})
	}
}

// TestCreateTarget: a repository is there with its first commit, and without one it
// never was.
func TestCreateTarget(t *testing.T) {
	for name, p := range places(t, "") {
		t.Run(name, func(t *testing.T) {
			first := filepath.Join(t.TempDir(), "first")
			borg(t, "init", "-e", "none", first)
			r, err := Open(t.Context(), Location{Path: first}, p.opts)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			manifest, err := r.store.get(t.Context(), manifestID, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer manifest.Release()

			if _, _, err := createTarget(t.Context(), p.in("a/b"), p.opts, creation{}); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("nowhere: %v", err)
			}
			tg, _, err := createTarget(t.Context(), p.in("a/b"), p.opts, creation{makeParents: true})
			if err != nil {
				t.Fatal(err)
			}
			if err := tg.put(t.Context(), manifestID, manifest.Data); err != nil {
				t.Fatal(err)
			}
			if err := tg.rollback(); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(p.dir + "/a/b"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("it was not removed: %v", err)
			}

			tg, id, err := createTarget(t.Context(), p.in("a/b"), p.opts, creation{appendOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			if there, known := tg.has(manifestID); there || !known {
				t.Error("there is something in a new repository")
			}
			if err := tg.saveKey(t.Context(), "some\nkey"); err != nil {
				t.Error(err)
			}
			if err := tg.put(t.Context(), manifestID, manifest.Data); err != nil {
				t.Fatal(err)
			}
			if err := tg.commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, _, err := createTarget(t.Context(), p.in("a/b"), p.opts, creation{}); !errors.Is(err, ErrExists) {
				t.Errorf("twice: %v", err)
			}
			if _, _, err := createTarget(t.Context(), p.in("a/b/c"), p.opts, creation{}); !errors.Is(err, ErrExists) {
				t.Errorf("inside: %v", err)
			}
			made, err := Open(t.Context(), p.in("a/b"), p.opts)
			if err != nil {
				t.Fatal(err)
			}
			defer made.Close()
			if key, err := made.store.loadKey(t.Context()); key != "some\nkey" || err != nil || made.ID() != id {
				t.Errorf("key %q, %v; %s, not %s", key, err, made.ID(), id)
			}
			borg(t, "create", p.dir+"/a/b::one", first+"/README")
			if log, err := os.ReadFile(p.dir + "/a/b/transactions"); err != nil || !strings.HasPrefix(string(log), "transaction 1,") {
				t.Errorf("not append-only: %q, %v", log, err)
			}
		})
	}
}

// in is a place inside the place.
func (p place) in(name string) Location {
	loc := p.loc
	loc.Path = filepath.Join(loc.Path, name)
	return loc
}

// TestServerRefuses: what a server's owner forbids is told as what it is, and the
// repository stays as it was.
func TestServerRefuses(t *testing.T) {
	for _, c := range []struct {
		serve     string
		put, open error
	}{
		{"--append-only", nil, nil},
		{"--storage-quota 100M", ErrQuota, nil},
		{"--restrict-to-path /nowhere", nil, fs.ErrPermission},
	} {
		t.Run(c.serve, func(t *testing.T) {
			p := places(t, c.serve)["remote"]
			borg(t, "init", "-e", "none", p.dir)
			tg, err := p.tryBegin(t)
			if !errors.Is(err, c.open) {
				t.Fatalf("got %v", err)
			}
			made, _, cerr := createTarget(t.Context(), p.in("../new"), p.opts, creation{})
			if !errors.Is(cerr, c.open) {
				t.Errorf("create: %v", cerr)
			}
			if cerr == nil {
				if err := made.rollback(); err != nil {
					t.Error(err)
				}
			}
			if err != nil {
				return
			}
			for n := 0; err == nil && n < 8; n++ {
				id, data := targetObject(n, 15<<20)
				err = tg.put(t.Context(), id, data)
			}
			err = errors.Join(err, tg.commit(t.Context()))
			if !errors.Is(err, c.put) {
				t.Fatalf("got %v", err)
			}
			if errors.Is(err, ErrUnknown) {
				t.Errorf("it is known: %v", err)
			}
			want := 8
			if c.put != nil {
				want = 0
			}
			if got := p.have(t, 0, 8, 15<<20); got != want {
				t.Errorf("%d objects are there", got)
			}
		})
	}
}

// TestConnectionLost: a transaction whose server vanishes ends in an error, nothing of
// it is committed, and the next one is not stopped by what is left.
func TestConnectionLost(t *testing.T) {
	p := places(t, "")["remote"]
	borg(t, "init", "-e", "none", p.dir)
	tg := p.begin(t)
	putMany(t, tg, 0, 10, 100_000)
	var err error
	signalLast(t, p.calls, syscall.SIGKILL)
	for n := 10; err == nil && n < 10_000; n++ {
		id, data := targetObject(n, 100_000)
		err = tg.put(t.Context(), id, data)
	}
	if !errors.Is(err, ErrUnreachable) {
		t.Errorf("put: %v", err)
	}
	if err := tg.commit(t.Context()); !errors.Is(err, ErrUnreachable) || errors.Is(err, ErrUnknown) {
		t.Errorf("commit: %v", err)
	}
	if got := p.have(t, 0, 20, 100_000); got != 0 {
		t.Errorf("%d objects are there", got)
	}
	tg = p.begin(t)
	putMany(t, tg, 0, 10, 100_000)
	if err := tg.commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := p.have(t, 0, 20, 100_000); got != 10 {
		t.Errorf("%d objects are there", got)
	}
	borg(t, "check", "--repository-only", p.dir)
}

// TestPutInterrupted: a put that waits for a server that takes nothing ends when its
// caller does not want it any more.
func TestPutInterrupted(t *testing.T) {
	p := places(t, "")["remote"]
	borg(t, "init", "-e", "none", p.dir)
	tg := p.begin(t)
	var err error
	pid := signalLast(t, p.calls, syscall.SIGSTOP)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	for n := 0; err == nil; n++ {
		id, data := targetObject(n, 1<<20)
		err = tg.put(ctx, id, data)
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := tg.rollback(); err != nil {
		t.Error(err)
	}
	if got := p.have(t, 0, 10, 1<<20); got != 0 {
		t.Errorf("%d objects are there", got)
	}
	tg = p.begin(t)
	putMany(t, tg, 0, 1, 10)
	if err := tg.commit(t.Context()); err != nil {
		t.Error(err)
	}
}

// BenchmarkTarget commits ten small objects, and puts larger ones.
func BenchmarkTarget(b *testing.B) {
	for name, p := range places(b, "") {
		borg(b, "init", "-e", "none", p.dir)
		b.Run(name+"/small", func(b *testing.B) {
			var begin, commit time.Duration
			for i := range b.N {
				r, err := Open(b.Context(), p.loc, p.opts)
				if err != nil {
					b.Fatal(err)
				}
				begun := time.Now()
				var tg target
				if p.loc.IsRemote() {
					tg, err = r.beginRemote(b.Context(), time.Second)
				} else {
					tg, err = r.beginLocal(b.Context(), 0)
				}
				if err != nil {
					b.Fatal(err)
				}
				begin += time.Since(begun)
				begun = time.Now()
				putMany(b, tg, 10*i, 10*i+10, 1000)
				sameManifest(b, tg)
				if err := tg.commit(b.Context()); err != nil {
					b.Fatal(err)
				}
				commit += time.Since(begun)
				r.Close()
			}
			b.ReportMetric(float64(begin.Milliseconds())/float64(b.N), "ms/begin")
			b.ReportMetric(float64(commit.Milliseconds())/float64(b.N), "ms/commit")
		})
		for _, size := range []int{1000, 1_000_000} {
			b.Run(fmt.Sprint(name, "/", size), func(b *testing.B) {
				tg := p.begin(b)
				_, data := targetObject(1, size)
				b.SetBytes(int64(size))
				b.ResetTimer()
				for i := range b.N {
					id := ID{9, byte(i), byte(i >> 8), byte(i >> 16), byte(size >> 8)}
					if err := tg.put(b.Context(), id, data); err != nil {
						b.Fatal(err)
					}
				}
				if err := tg.commit(b.Context()); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}
