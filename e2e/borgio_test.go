package e2e

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/s4-storage/s4/borgio"
)

// TestBorgioThroughSSH: through a real ssh and sshd borgio gives what it gives of
// the same repository in place, which its own tests compare with what borg does.
func TestBorgioThroughSSH(t *testing.T) {
	need(t, "borg", "ssh")
	server := startSSHD(t)
	dir := t.TempDir()
	config, err := server.clientConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	tree, repo := filepath.Join(dir, "tree"), filepath.Join(dir, "repo")
	if err := os.MkdirAll(filepath.Join(tree, "a"), 0o755); err != nil {
		t.Fatal(err)
	}
	big := make([]byte, 5<<20)
	rand.NewChaCha8([32]byte{3}).Read(big)
	for name, body := range map[string][]byte{"big": big, "a/small": big[:4096], "a/empty": nil, "raw \xff": []byte("raw")} {
		if err := os.WriteFile(filepath.Join(tree, name), body, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../big", filepath.Join(tree, "a/link")); err != nil {
		t.Fatal(err)
	}
	vars := map[string]string{"BORG_RSH": "ssh -F " + config, "BORG_PASSPHRASE": "s4-test", "BORG_BASE_DIR": dir + "/borg"}
	for _, args := range [][]string{{"init", "-e", "repokey-blake2", repo}, {"create", "-C", "zstd", repo + "::all", "."}} {
		cmd := exec.CommandContext(t.Context(), "borg", args...)
		cmd.Dir, cmd.Env = tree, os.Environ()
		for k, v := range vars {
			cmd.Env = append(cmd.Env, k+"="+v)
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("borg %s: %v\n%s", args, err, out)
		}
	}
	read := func(place string) map[string]string {
		loc, err := borgio.ParseLocation(place)
		if err != nil {
			t.Fatal(err)
		}
		r, err := borgio.Open(t.Context(), loc, borgio.Options{Environ: func(name string) (string, bool) {
			v, ok := vars[name]
			return v, ok
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		m, err := r.Manifest(t.Context())
		if err != nil || len(m.Archives) != 1 {
			t.Fatalf("%s: %+v, %v", place, m, err)
		}
		a, err := r.Archive(t.Context(), m.Archives[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		all := map[string]string{}
		for it, err := range r.Items(t.Context(), a) {
			if err != nil {
				t.Fatal(err)
			}
			h := sha256.New()
			if _, err := r.OpenFile(it.Chunks).WriteTo(h); err != nil {
				t.Fatalf("%s: %q: %v", place, it.Path, err)
			}
			all[it.Path] = fmt.Sprintf("%+v %x", *it, h.Sum(nil))
			if it.Path == "big" && [32]byte(h.Sum(nil)) != sha256.Sum256(big) {
				t.Errorf("%s: content differs", place)
			}
		}
		return all
	}
	here, there := read(repo), read("ssh://mys4remote"+repo)
	if len(here) != 7 || !maps.Equal(here, there) {
		t.Errorf("in place:\n%q\nthrough ssh:\n%q", here, there)
	}
}
