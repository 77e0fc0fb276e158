package pathspec

import (
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/s4-storage/s4/snapshot"
)

func TestExclusion(t *testing.T) {
	for _, c := range []struct {
		pattern string
		yes, no string // a path with a slash at the end is a directory
	}{
		{"node_modules", "node_modules node_modules/ a/b/node_modules/ node_modules/x", "node_modules2 xnode_modules a/node_module"},
		{"*.tmp", "a.tmp .tmp d/a.tmp d.tmp/ d.tmp/x", "a.tmpx tmp a/tmp"},
		{"a*.o", "a.o d/ab.o a.o/", "a.c b.o a"},
		{"aa*aa", "aaaa d/aaxaa", "aaa aa"},
		{"cache/", "cache/ a/cache/ cache/x a/cache/b/c", "cache a/cache cached/"},
		{"data/tmp/*", "data/tmp/a data/tmp/a/ data/tmp/a/b data/tmp/.x", "data/tmp/ data/tmp x/data/tmp/a data/tmp2/a"},
		{"/build", "build build/ build/x", "a/build"},
		{"/*.log", "a.log", "d/a.log"},
		{"a/b", "a/b a/b/ a/b/c", "x/a/b a/bc"},
		{"a/b/", "a/b/ a/b/c", "a/b"},
		{"**/x/y", "x/y a/x/y a/b/x/y", "ax/y x/z"},
		{"a/**", "a/b a/b/c", "a/ b/a/c"},
		{"a/**/z", "a/z a/b/c/z", "az"},
		{`\!x`, "!x d/!x", "x"},
		{`\*`, "* d/*", "a"},
		{"[!.]*", "a a.b", ".a"},
		{"[a-c]?", "ab d/c\xff b\u00e4", "a dd abc"},
		{"new\nline", "new\nline d/new\nline", "new"},
		{"\xff*", "\xff \xffa", "\xfe"},
		{"*", "a a/b .x", ""},
	} {
		e, err := NewExclusion([]string{c.pattern})
		if err != nil {
			t.Fatal(c.pattern, err)
		}
		words := func(s string) []string { return strings.FieldsFunc(s, func(r rune) bool { return r == ' ' }) }
		for _, p := range words(c.yes) {
			if path, dir := strings.CutSuffix(p, "/"); !e.Hides(path, dir) {
				t.Errorf("%q does not leave out %q", c.pattern, p)
			}
		}
		for _, p := range words(c.no) {
			if path, dir := strings.CutSuffix(p, "/"); e.Hides(path, dir) {
				t.Errorf("%q leaves out %q", c.pattern, p)
			}
		}
	}
}

func TestExclusionRefuses(t *testing.T) {
	for _, p := range []string{"", "/", "//", "!a", "a//b", "./a", "a/..", "..", ".", "[", `a\`, `a\/`, "//a", "a//"} {
		if _, err := NewExclusion([]string{p}); !errors.Is(err, snapshot.ErrUsage) {
			t.Errorf("%q: %v", p, err)
		}
	}
}

func TestExclusionsTogether(t *testing.T) {
	of := func(patterns ...string) *Exclusion {
		e, err := NewExclusion(patterns)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	if e := of("a/", "a"); !e.Match("a", false) {
		t.Error("the pattern for directories counts more")
	}
	if e := of("a", "a/"); !e.Match("a", false) {
		t.Error("the later pattern takes back")
	}
	if !of("a", "b*").Equal(of("b*", "a", "a")) || of("a").Equal(of("a/")) || !of().Equal(nil) || of("a").Equal(nil) {
		t.Error("equality")
	}
	var none *Exclusion
	if none.Hides("a", true) || none.Match("a", false) || !none.Empty() || of("a").Empty() {
		t.Error("emptiness")
	}
}

// Git leaves out the same.
func TestExclusionAsGit(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	git := func(stdin string, args ...string) string {
		cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir}, args...)...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.Output()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 1 {
			err = nil // nothing is left out
		}
		if err != nil {
			t.Fatal(args, err)
		}
		return string(out)
	}
	git("", "init", "-q")
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	paths := map[string]bool{} // whether it is a directory
	for _, path := range []string{"a/a/a", "a/a/ab/b", "a/b", "a/ab", "b/a", "b/b/a/", "b/ab/", "ab/a/b", "ab/ab/ba", "ba", "aab/", ".a", ".b/a"} {
		name, isDir := strings.CutSuffix(path, "/")
		up := filepath.Dir(name)
		if isDir {
			up = name
		}
		if err := os.MkdirAll(filepath.Join(dir, up), 0o700); err != nil {
			t.Fatal(err)
		}
		for ; up != "."; up = filepath.Dir(up) {
			paths[up] = true
		}
		if !isDir {
			paths[name] = false
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	all := strings.Join(slices.Sorted(maps.Keys(paths)), "\x00") + "\x00"
	for range 150 {
		pattern := pick("", "", "/", "**/")
		for i, n := 0, 1+r.IntN(3); i < n; i++ {
			if i > 0 {
				pattern += "/"
			}
			for j, m := 0, 1+r.IntN(2); j < m; j++ {
				pattern += pick("a", "b", "?", "[ab]", "[!b]", `\a`, "*")
			}
			pattern = strings.ReplaceAll(pattern, "**", "*") // in a name git makes nothing of it
			if strings.HasPrefix(pattern, "*/") && n > 1 && r.IntN(2) == 0 {
				pattern = "*" + pattern
			}
		}
		pattern += pick("", "", "/")
		e, err := NewExclusion([]string{pattern})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, ".gitignore"), []byte(pattern+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		theirs := map[string]bool{}
		for _, p := range strings.Split(git(all, "check-ignore", "--no-index", "-z", "--stdin"), "\x00") {
			theirs[p] = true
		}
		for p, isDir := range paths {
			if e.Hides(p, isDir) != theirs[p] {
				t.Errorf("%q and %q: git says %v", pattern, p, theirs[p])
			}
		}
	}
}

func BenchmarkExclusion(b *testing.B) {
	e, err := NewExclusion([]string{"node_modules", "*.tmp", "cache/", "data/tmp/*", "/build", "**/x/*.o", "[a-z]*~"})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		e.Match("some/directory/of/a/project/with/a/file.txt", false)
	}
}
