package borgio

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/disk"
)

// cuttable makes a place's connections such that cut ends the last one, as when ssh
// dies: its server sees the end of what it reads.
func cuttable(t *testing.T, p place) (_ place, cut func()) {
	t.Helper()
	dir := t.TempDir()
	rsh, relays := filepath.Join(dir, "rsh"), filepath.Join(dir, "relays")
	script := "#!/bin/sh\nshift\nexec 3<&0\n{ cat <&3 & echo $! >>" + relays + "; exec 3<&-; wait; } | \"$@\"\n"
	if err := os.WriteFile(rsh, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	p.opts.Environ = func(name string) (string, bool) {
		if name == "BORG_RSH" {
			return "/bin/sh " + rsh, true
		}
		return os.LookupEnv(name)
	}
	return p, func() {
		t.Helper()
		signalLast(t, relays, syscall.SIGKILL)
	}
}

// TestCreateCut cuts the connection at each step of making a repository: what is left
// is known for what it is, and the next one makes a whole repository of it.
func TestCreateCut(t *testing.T) {
	for _, mode := range []string{"repokey-blake2", "keyfile"} {
		steps := []string{"opened", "key", "put"}
		if mode == "keyfile" {
			steps = steps[2:]
		}
		for _, step := range steps {
			t.Run(mode+"/"+step, func(t *testing.T) {
				p, cut := cuttable(t, places(t, "")["remote"])
				t.Setenv("BORG_RELOCATED_REPO_ACCESS_IS_OK", "yes")
				t.Setenv("BORG_PASSPHRASE", "first")
				stop := errors.New("cut off")
				_, err := create(t.Context(), p.loc, mode, CreateOptions{Options: p.opts},
					func(ctx context.Context, loc Location, o CreateOptions) (target, ID, error) {
						tg, id, err := createStore(ctx, loc, o)
						return &cutTarget{tg, step, func() error { cut(); return stop }}, id, err
					})
				if !errors.Is(err, stop) {
					t.Fatalf("got %v", err)
				}
				t.Setenv("BORG_PASSPHRASE", "second")
				if _, err := Open(t.Context(), p.loc, p.opts); !errors.Is(err, ErrUnfinished) || !errors.Is(err, ErrNotRepository) {
					t.Fatalf("open: %v", err)
				}
				id, err := Create(t.Context(), p.loc, mode, CreateOptions{Options: p.opts})
				if err != nil {
					t.Fatal(err)
				}
				r, err := Open(t.Context(), p.loc, p.opts)
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				if m, err := r.Manifest(t.Context()); err != nil || len(m.Archives) > 0 || r.ID() != id || r.Encryption() != mode {
					t.Errorf("%v, %v, %s is not %s, %s", m, err, r.ID(), id, r.Encryption())
				}
				if _, err := Create(t.Context(), p.loc, mode, CreateOptions{Options: p.opts}); !errors.Is(err, ErrExists) {
					t.Errorf("twice: %v", err)
				}
				borg(t, "create", p.dir+"::one", os.Args[0])
				borg(t, "check", p.dir)
			})
		}
	}
}

// cutTarget ends at a step.
type cutTarget struct {
	target
	step string
	cut  func() error
}

func (t *cutTarget) saveKey(ctx context.Context, text string) error {
	if t.step == "opened" {
		return t.cut()
	}
	err := t.target.saveKey(ctx, text)
	if err == nil && t.step == "key" {
		return t.cut()
	}
	return err
}

func (t *cutTarget) flush(ctx context.Context) error {
	err := t.target.flush(ctx)
	if there, _ := t.has(manifestID); there && err == nil {
		return t.cut()
	}
	return err
}

// TestLostIsNotUnfinished: a repository that has lost its manifest, or all its
// commits and its index, is damaged, and nobody makes another in its place.
func TestLostIsNotUnfinished(t *testing.T) {
	for name, p := range places(t, "") {
		t.Run(name, func(t *testing.T) {
			borg(t, "init", "-e", "none", p.dir)
			tg := p.begin(t)
			putMany(t, tg, 0, 10, 5000)
			sameManifest(t, tg)
			if err := tg.commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			refuses := func(what string, open error) {
				t.Helper()
				if _, err := Open(t.Context(), p.loc, p.opts); !errors.Is(err, open) {
					t.Errorf("%s: open: %v", what, err)
				}
				_, err := Create(t.Context(), p.loc, "none", CreateOptions{Options: p.opts})
				if !errors.Is(err, ErrExists) && !errors.Is(err, ErrIntegrity) {
					t.Errorf("%s: create: %v", what, err)
				}
			}
			borg(t, "debug", "delete-obj", p.dir, strings.Repeat("0", 64))
			refuses("no manifest", ErrIntegrity)
			files, err := filepath.Glob(p.dir + "/*.*[0-9]") // index, hints, integrity
			if err != nil || len(files) < 3 {
				t.Fatal(files, err)
			}
			segments, err := filepath.Glob(p.dir + "/data/0/*")
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range segments {
				if st, err := os.Stat(s); err == nil && st.Size() == 17 { // nothing but a COMMIT
					files = append(files, s)
				}
			}
			for _, f := range files {
				if err := os.Remove(f); err != nil {
					t.Fatal(err)
				}
			}
			open := ErrIntegrity
			if name == "remote" {
				open = ErrUnfinished // a server does not tell of what is not committed
			}
			refuses("no commits", open)
			// Nothing was taken away.
			t.Setenv("BORG_CHECK_I_KNOW_WHAT_I_AM_DOING", "YES")
			borg(t, "check", "--repair", "--repository-only", p.dir)
			r, err := disk.Open(t.Context(), p.dir, &buffer.Pool{}, p.opts.Logger)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			for n := range 10 {
				id, _ := targetObject(n, 5000)
				b, err := r.Get(t.Context(), id, 0)
				if err != nil {
					t.Error(err)
					continue
				}
				b.Release()
			}
		})
	}
}
