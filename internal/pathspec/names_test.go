package pathspec

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/s4-storage/s4/snapshot"
)

func TestNames(t *testing.T) {
	for _, c := range []struct {
		expression string
		o          NamesOptions
		yes, no    []string
		part       string
	}{
		{"a.txt", NamesOptions{}, []string{"a.txt", "d/a.txt"}, []string{"a-txt", "a.txt/x", "xa.txt"}, "a.txt"},
		{"*.jpg", NamesOptions{}, []string{"x.jpg", "d/.jpg"}, []string{"x.JPG", "d.jpg/x"}, ".jpg"},
		{"a*longer?b", NamesOptions{}, []string{"alongerxb"}, []string{"alongerb"}, "longer"},
		{"photos/*.jpg", NamesOptions{}, []string{"photos/1.jpg"}, []string{"photos/x/1.jpg", "x/photos/1.jpg"}, ".jpg"},
		{"**/raw/**", NamesOptions{}, []string{"raw/x", "a/raw/b/c"}, []string{"raw", "raws/x"}, ""},
		{"d/x**y", NamesOptions{}, []string{"d/xy", "d/x1/2y"}, []string{"d/x/z"}, "y"},
		{`\*[*]`, NamesOptions{}, []string{"**"}, []string{"*", "a*"}, "*"},
		{"*", NamesOptions{}, []string{"a", "b/c", "\xff"}, nil, ""},
		{"ÄRGER*", NamesOptions{Fold: true}, []string{"ärger\xff", "x/Ärger"}, []string{"xärger"}, ""},
		{"\xfe[A-B]", NamesOptions{Fold: true}, []string{"\xfea", "\xfeB"}, []string{"\xffa"}, ""},
		{"^a.c$", NamesOptions{Regexp: true}, []string{"abc", "d/a\nc"}, []string{"abcd", "ABC"}, "a"},
		{"note", NamesOptions{Regexp: true}, []string{"my notes"}, []string{"note/x"}, "note"},
		{"note", NamesOptions{Regexp: true, Fold: true}, []string{"MY NOTES"}, nil, ""},
		{"^d/.*x$", NamesOptions{Regexp: true}, []string{"d/e/x", "d/x"}, []string{"c/d/x"}, ""},
	} {
		n, err := NewNames([]string{c.expression}, c.o)
		if err != nil {
			t.Fatal(err)
		}
		match := func(path string) bool {
			at := strings.LastIndexByte(path, '/')
			return n.Match(path[:max(at, 0)], path[at+1:])
		}
		for _, path := range c.yes {
			if !match(path) {
				t.Errorf("%q does not match %q", c.expression, path)
			}
		}
		for _, path := range c.no {
			if match(path) {
				t.Errorf("%q matches %q", c.expression, path)
			}
		}
		if got := strings.Join(n.Parts(), "|"); got != c.part {
			t.Errorf("%q: parts %q, want %q", c.expression, got, c.part)
		}
	}
	for e, o := range map[string]NamesOptions{"[a": {}, `a\`: {}, "(": {Regexp: true}} {
		if _, err := NewNames([]string{e}, o); !errors.Is(err, snapshot.ErrUsage) {
			t.Errorf("%q: %v", e, err)
		}
	}
	n, err := NewNames([]string{"ab*", "cd"}, NamesOptions{})
	if err != nil || !slices.Equal(n.Parts(), []string{"ab", "cd"}) || !n.Match("", "abc") || !n.Match("x", "cd") {
		t.Errorf("two patterns: %v, %v", n.Parts(), err)
	}
}

// FuzzParts: the parts that are promised are in every name that matches, and a
// literal matches itself.
func FuzzParts(f *testing.F) {
	f.Add("a*b", "axb")
	f.Add("x/**y[a-b]z", "x/q/yaz")
	f.Add(`\[**/b`, "[/b")
	f.Fuzz(func(t *testing.T, glob, path string) {
		if len(glob) > 100 || len(path) > 100 || path == "" {
			return
		}
		if !valid(Literal(path)) || !Match(Literal(path), path) {
			t.Fatalf("%q is not matched by %q", path, Literal(path))
		}
		n, err := NewNames([]string{glob}, NamesOptions{})
		if err != nil {
			return
		}
		at := strings.LastIndexByte(path, '/')
		if n.Match(path[:max(at, 0)], path[at+1:]) && !strings.Contains(path[at+1:], part(glob)) {
			t.Fatalf("%q matches %q without %q", glob, path, part(glob))
		}
	})
}
