package borgio_test

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/s4-storage/s4/borgio"
)

// runBorg runs stock borg and gives its standard output.
func runBorg(t testing.TB, dir string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("borg", args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("borg %s: %v: %s", strings.Join(args, " "), err, stderr.String())
	}
	return out
}

// needBorg skips the test where there is no borg, and makes what there is use
// files of this test alone.
func needBorg(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("borg"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("borg is not installed")
	}
	t.Setenv("BORG_BASE_DIR", t.TempDir())
	t.Setenv("BORG_PASSPHRASE", "s4-test")
	t.Setenv("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes")
}

// rsh makes a shell script that stands in for ssh: it forgets about the host and
// runs the command here. It adds a line to the file calls each time.
func rsh(t testing.TB) (program, calls string) {
	dir := t.TempDir()
	program, calls = filepath.Join(dir, "rsh"), filepath.Join(dir, "calls")
	script := "#!/bin/sh\necho $$ >>" + calls + "\nshift\nexec \"$@\"\n"
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return program, calls
}

func remoteOptions(t testing.TB, program string) borgio.Options {
	return borgio.Options{Environ: environ("BORG_RSH=/bin/sh "+program, "BORG_PASSPHRASE=s4-test", "BORG_BASE_DIR="+os.Getenv("BORG_BASE_DIR"))}
}

// soakTime is how long TestWritersGoOn goes on: BORGIO_SOAK, or long enough for
// some rounds.
func soakTime(t *testing.T) time.Duration {
	d, err := time.ParseDuration(cmp.Or(os.Getenv("BORGIO_SOAK"), "8s"))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// largest is the largest segment of a repository.
func largest(t *testing.T, repo string) (name string) {
	t.Helper()
	segments, err := os.ReadDir(filepath.Join(repo, "data/0"))
	if err != nil {
		t.Fatal(err)
	}
	var size int64
	for _, s := range segments {
		if st, err := s.Info(); err == nil && st.Size() > size {
			name, size = s.Name(), st.Size()
		}
	}
	return name
}

// TestWritersGoOn: reading keeps no writer out, neither here nor through borg
// serve, and what writers do meanwhile disturbs no reader. Every round adds an
// archive, removes one, and compacts, which moves all that is kept.
func TestWritersGoOn(t *testing.T) {
	needBorg(t)
	tree, repo := t.TempDir(), filepath.Join(t.TempDir(), "repo")
	body := make([]byte, 2<<20)
	random := rand.NewChaCha8([32]byte{5})
	random.Read(body)
	write := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(tree, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("f", body)
	// A file for each round, in one segment with f: what is lost with it makes
	// borg move all the rest.
	const maxRounds = 200
	for n := range maxRounds {
		junk := make([]byte, 3000)
		random.Read(junk)
		write(fmt.Sprint("junk", n), junk)
	}
	create := func(name, path string) {
		runBorg(t, tree, "create", "--lock-wait", "20", "--chunker-params", "12,16,14,4095", repo+"::"+name, path)
	}
	runBorg(t, tree, "init", "-e", "none", repo)
	create("all", ".")
	create("keep", "f")
	place := largest(t, repo)
	program, _ := rsh(t)
	// A cache of one byte keeps nothing: all is read from the segments each time.
	opts := remoteOptions(t, program)
	opts.CacheBytes = 1
	local, remote := mustOpen(t, repo, opts), mustOpen(t, "host:"+repo, opts)
	want := sha256.Sum256(body)

	stop := make(chan struct{})
	var reading sync.WaitGroup
	again := func(what string, read func(n int)) {
		reading.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					t.Logf("%d times %s", n, what)
					return
				default:
					read(n)
				}
			}
		})
	}
	check := func(r *borgio.Repository) {
		if readArchive(t, r, "keep")["f"].sum != want {
			t.Error("content differs")
		}
	}
	again("all of an archive", func(int) { check(local) })
	kept := readArchive(t, local, "keep")["f"]
	again("a range", func(n int) {
		p, off := make([]byte, 5000), (n*37_001)%(len(body)-5000)
		if _, err := local.OpenFile(kept.Chunks).ReadAt(p, int64(off)); err != nil || !bytes.Equal(p, body[off:off+len(p)]) {
			t.Errorf("range at %d: %v", off, err)
		}
	})
	again("opened anew", func(int) {
		loc, _ := borgio.ParseLocation(repo)
		r, err := borgio.Open(t.Context(), loc, opts)
		if err != nil {
			t.Error(err)
			return
		}
		defer r.Close()
		check(r)
	})
	check(remote) // and the session is idle from now on
	rounds, moves := 0, 0
	for begun := time.Now(); rounds < maxRounds && (rounds < 2 || time.Since(begun) < soakTime(t)); rounds++ {
		if err := os.Remove(filepath.Join(tree, fmt.Sprint("junk", rounds))); err != nil {
			t.Fatal(err)
		}
		create(fmt.Sprint("all", rounds), ".")
		runBorg(t, tree, "prune", "--lock-wait", "20", "--keep-last", "1", "--glob-archives", "all*", repo)
		runBorg(t, tree, "compact", "--lock-wait", "20", "--threshold", "0", repo)
		if now := largest(t, repo); now != place {
			place = now
			moves++
		}
	}
	t.Logf("%d rounds, %d moves", rounds, moves)
	if moves < rounds {
		t.Errorf("what is kept was moved %d times in %d rounds", moves, rounds)
	}
	close(stop)
	reading.Wait()
	create("last", "f")
	for name, r := range map[string]*borgio.Repository{"local": local, "remote": remote} {
		m, err := r.Manifest(t.Context())
		if err != nil || len(m.Archives) != 3 || m.Archives[2].Name != "last" {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
		check(r)
	}
	held, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range held {
		if to, _ := os.Readlink(fd); strings.HasPrefix(to, repo) && strings.HasSuffix(to, "(deleted)") {
			t.Errorf("%s is kept", to)
		}
	}
}
