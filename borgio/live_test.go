package borgio_test

import (
	"bytes"
	"crypto/sha256"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

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

// TestWritersGoOn: reading keeps no writer out, neither here nor through borg
// serve, and what writers do meanwhile disturbs no reader.
func TestWritersGoOn(t *testing.T) {
	needBorg(t)
	tree, repo := t.TempDir(), filepath.Join(t.TempDir(), "repo")
	if err := os.WriteFile(tree+"/f", bytes.Repeat([]byte("0123456789abcdef"), 1<<16), 0o600); err != nil {
		t.Fatal(err)
	}
	runBorg(t, tree, "init", "-e", "none", repo)
	runBorg(t, tree, "create", repo+"::keep", ".")
	program, _ := rsh(t)
	local := mustOpen(t, repo, borgio.Options{})
	remote := mustOpen(t, "host:"+repo, remoteOptions(t, program))
	want := sha256.Sum256(bytes.Repeat([]byte("0123456789abcdef"), 1<<16))

	stop := make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				t.Logf("%d readings", n)
				return
			default:
				if readArchive(t, local, "keep")["f"].sum != want {
					t.Error("content differs")
				}
			}
		}
	})
	readArchive(t, remote, "keep") // and the session is idle from now on
	for range 2 {
		runBorg(t, tree, "create", "--lock-wait", "20", repo+"::more", ".")
		runBorg(t, tree, "delete", "--lock-wait", "20", repo+"::more")
		runBorg(t, tree, "compact", "--threshold", "0", repo)
	}
	close(stop)
	reading.Wait()
	runBorg(t, tree, "create", repo+"::last", ".")
	for name, r := range map[string]*borgio.Repository{"local": local, "remote": remote} {
		m, err := r.Manifest(t.Context())
		if err != nil || len(m.Archives) != 2 || m.Archives[1].Name != "last" {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
}
