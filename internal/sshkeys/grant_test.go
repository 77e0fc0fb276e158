package sshkeys

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/s4-storage/s4/snapshot"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestGrant(t *testing.T) {
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), ".ssh", "authorized_keys")
	add := func(path string, appendOnly bool) (bool, error) {
		return AddGrant(file, Grant{Key: key, Comment: "laptop", Paths: []string{path}, AppendOnly: appendOnly})
	}
	if changed, err := add("/volumes/a", true); !changed || err != nil {
		t.Fatal(changed, err)
	}
	foreign := "# a comment\nssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIH4Cc1dN0lbwxl3MSbqCCtjc2yO4eTtN5b9JEt7KVjqq other\n"
	data, _ := os.ReadFile(file)
	write(t, file, foreign+string(data))
	if changed, err := add("/volumes/b", true); !changed || err != nil {
		t.Fatal(changed, err)
	}
	if changed, err := add("/volumes/b", true); changed || err != nil {
		t.Fatal(changed, err)
	}
	data, _ = os.ReadFile(file)
	line := `command="borg serve --restrict-to-path /volumes/a --restrict-to-path /volumes/b --append-only",restrict ` + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + " laptop\n"
	if string(data) != foreign+line {
		t.Errorf("the file has\n%s", data)
	}
	if _, err := add("/volumes/c", false); !errors.Is(err, snapshot.ErrRefused) {
		t.Errorf("more rights: %v", err)
	}
	write(t, file, string(ssh.MarshalAuthorizedKey(key)))
	if _, err := add("/volumes/c", true); !errors.Is(err, snapshot.ErrRefused) {
		t.Errorf("a line of another: %v", err)
	}
}

// FuzzKey: whatever is taken for a key becomes one line with the options that
// we gave it, and is read again as that.
func FuzzKey(f *testing.F) {
	f.Add("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIH4Cc1dN0lbwxl3MSbqCCtjc2yO4eTtN5b9JEt7KVjqq me@host")
	f.Add("command=\"x\" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIH4Cc1dN0lbwxl3MSbqCCtjc2yO4eTtN5b9JEt7KVjqq")
	f.Add("-----BEGIN OPENSSH PRIVATE KEY-----")
	f.Fuzz(func(t *testing.T, in string) {
		key, comment, err := ParseKey(in)
		if err != nil {
			return
		}
		g := Grant{Key: key, Comment: comment, Paths: []string{"/volumes/a"}, AppendOnly: true}
		line := g.Line()
		if strings.ContainsAny(line, "\n\r\x00") || !strings.HasPrefix(line, `command="borg serve --restrict-to-path /volumes/a --append-only",restrict ssh-`) &&
			!strings.HasPrefix(line, `command="borg serve --restrict-to-path /volumes/a --append-only",restrict `+key.Type()) {
			t.Errorf("%q becomes %q", in, line)
		}
		if again, ok := parseGrant(line); !ok || again.Line() != line {
			t.Errorf("%q is not read again", line)
		}
	})
}
