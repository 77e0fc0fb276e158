package pathspec

import (
	"errors"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/s4-storage/s4/snapshot"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		glob string
		yes  string
		no   string
	}{
		{"*.txt", "a.txt .txt *.txt", "a.txt2 d/a.txt a.tx"},
		{"a?c", "abc aéc a\xffc", "ac a/c abbc"},
		{"a[b-d]c", "abc acc adc", "aac aec a/c"},
		{"a[!b]c", "aac aéc", "abc a/c"},
		{"a[]x]c", "a]c axc", "abc"},
		{`a[\]]c`, "a]c", `a\c`},
		{"**/x", "x a/x a/b/x", "ax a/bx x/a"},
		{"a/**", "a/b a/b/c a/", "a b/a"},
		{"a/**/z", "a/z a/b/z a/b/c/z", "az a/bz"},
		{"a**z", "az abz a/b/z", "a/b"},
		{`\*`, "*", "a"},
		{"*", "a .b", "a/b"},
		{"photos/*/raw", "photos/1/raw", "photos/1/2/raw photos/raw"},
		{"a*b*c*d*e*f*g*h", "abcdefgh", strings.Repeat("abcdefg", 20)},
		{"[a-", "", "a"},
	} {
		for _, p := range strings.Fields(c.yes) {
			if !Match(c.glob, p) {
				t.Errorf("%s does not match %q", c.glob, p)
			}
		}
		for _, p := range strings.Fields(c.no) {
			if Match(c.glob, p) {
				t.Errorf("%s matches %q", c.glob, p)
			}
		}
	}
}

func TestSet(t *testing.T) {
	s, err := New([]string{"dir", "odd[name]", "photos/20*/a", "x/*.go"}, func(p string) bool { return p == "odd[name]" })
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]bool{
		"dir": true, "dir/a/b": true, "dirt": false, "odd[name]": true, "oddn": false,
		"photos/2024/a": true, "photos/2024/a/deep": true, "photos/2024/b": false, "x/a.go": true, "": false,
	} {
		if s.Match(p) != want {
			t.Errorf("%q: %v", p, !want)
		}
	}
	if got := s.Roots(); !slices.Equal(got, []string{"dir", "odd[name]", "photos", "x"}) {
		t.Errorf("roots %q", got)
	}
	var none *Set
	if !none.Match("any") || none.Roots() != nil || !none.All() {
		t.Error("nothing said chooses less than all")
	}
	for _, bad := range []string{"[a", `a\`, "[", "[!"} {
		if _, err := New([]string{bad}, nil); !errors.Is(err, snapshot.ErrUsage) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// Within one name it agrees with the standard library.
func FuzzMatch(f *testing.F) {
	for _, s := range []string{"*.txt", "a?c", "[a-c]x", "**/x", `\*`, "[^x]", "[", "a-]", "[]a]"} {
		f.Add(s, "abc")
		f.Add(s, "a/x")
	}
	f.Fuzz(func(t *testing.T, glob, name string) {
		got := Match(glob, name)
		ours := !strings.Contains(glob, "**") && !strings.Contains(glob, "[!") && !strings.Contains(glob, "[]") && !strings.Contains(glob, "[^]")
		want, err := path.Match(glob, name)
		if err == nil && ours && valid(glob) && !strings.ContainsAny(glob+name, "/") && got != want {
			t.Errorf("%q on %q: %v", glob, name, got)
		}
	})
}
