package posixacl

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAgainstSetfacl compares with what the kernel keeps after setfacl.
func TestAgainstSetfacl(t *testing.T) {
	if _, err := exec.LookPath("setfacl"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("setfacl is missing")
	}
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("setfacl", "-m", "u:1234:rwx,u:7:r--,g:99:-w-,d:u:1234:r-x,d:o::---", dir).CombinedOutput(); err != nil {
		t.Skipf("no ACLs here: %s", out)
	}
	for name, text := range map[string]string{
		AccessXattr:  "user::rwx\nuser:nobody-here:rwx\t:1234\nuser:7:r--\ngroup::r-x\ngroup:g:-w-:99\nmask::rwx\nother::---\n",
		DefaultXattr: "user::rwx,user:x:r-x:1234,group::r-x,mask::r-x,other::---",
	} {
		kernel := make([]byte, 1000)
		n, err := unix.Lgetxattr(dir, name, kernel)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ToXattr(text)
		if err != nil || !bytes.Equal(got, kernel[:n]) {
			t.Errorf("%s: %x, want %x (%v)", name, got, kernel[:n], err)
		}
		if err := unix.Lsetxattr(dir, name, got, 0); err != nil {
			t.Errorf("the kernel refuses it: %v", err)
		}
		back, err := ToText(got)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ToXattr(back); err != nil || !bytes.Equal(again, got) {
			t.Errorf("by way of text %q: %x, want %x (%v)", back, again, got, err)
		}
	}
}

func TestPlain(t *testing.T) {
	for text, want := range map[string]bool{
		"u::rw,g::r,o::-": true, "u::-,g::-,o::rwx": true, "u::rw,u:7:r,g::r,m::r,o::-": false,
		"u::rw,g::r,m::r": false, "u::rw,g::r,m::r,o::-": false, "": false,
	} {
		b, err := ToXattr(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := Plain(b); got != want {
			t.Errorf("%q is plain: %t", text, got)
		}
	}
}

func TestMalformed(t *testing.T) {
	for _, text := range []string{"user", "who::rwx", "user:unknown:rwx", "mask:7:rwx", "user::rwz", "user:a:rwx:4294967296", "a:b:c:d:e"} {
		if _, err := ToXattr(text); !errors.Is(err, ErrSyntax) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, b := range [][]byte{{2}, {1, 0, 0, 0}, {2, 0, 0, 0, 1}, {2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0}} {
		if _, err := ToText(b); !errors.Is(err, ErrSyntax) {
			t.Errorf("%x: %v", b, err)
		}
	}
	if b, err := ToXattr("# nothing\n"); b != nil || err != nil {
		t.Errorf("empty list: %x, %v", b, err)
	}
}

func FuzzRoundTrip(f *testing.F) {
	f.Add("user::rwx\nuser:ann:rw-:1000\ngroup::r--\nmask::rwx\nother::---\n")
	f.Add("u:1:r,g::x,o::-")
	f.Fuzz(func(t *testing.T, text string) {
		b, err := ToXattr(text)
		if err != nil {
			return
		}
		back, err := ToText(b)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ToXattr(back); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%q gives %x, %q gives %x (%v)", text, b, back, again, err)
		}
	})
}

// FuzzToText: what the kernel keeps comes back by way of text, in the kernel's
// order.
func FuzzToText(f *testing.F) {
	for _, text := range []string{"u::rwx,u:7:r,g::x,g:9:-,m::rw,o::-", "u::-"} {
		b, err := ToXattr(text)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		text, err := ToText(in)
		if err != nil || len(in) > 8*maxCount {
			return
		}
		b, err := ToXattr(text)
		if err != nil || len(b) != len(in) && len(in) > 4 {
			t.Fatalf("%x is %q, which is %x (%v)", in, text, b, err)
		}
		again, err := ToText(b)
		if err != nil || len(again) != len(text) {
			t.Fatalf("%q comes back as %q (%v)", text, again, err)
		}
	})
}

// TestBounds: a text of any length takes little.
func TestBounds(t *testing.T) {
	const n = 4 << 20
	for name, text := range map[string]string{
		"fields":   strings.Repeat(":", n),
		"names":    "u:" + strings.Repeat("x", n) + ":r",
		"entries":  strings.Repeat("u:1:r,", n/6),
		"comments": strings.Repeat("#,", n/2),
		"rights":   "u::" + strings.Repeat("r", n),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := ToXattr(text)
		runtime.ReadMemStats(&after)
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
			t.Errorf("%s: %d bytes, %.50v", name, grown, err)
		}
	}
}
