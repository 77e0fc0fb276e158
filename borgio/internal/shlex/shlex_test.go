package shlex

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/s4-storage/s4/borgio/internal/heap"
)

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		line string
		want []string
		err  error
	}{
		{"", nil, nil},
		{" \t\r\n", nil, nil},
		{"pass show borg", []string{"pass", "show", "borg"}, nil},
		{`printf '%s\n' "it's"`, []string{"printf", `%s\n`, "it's"}, nil},
		{`sh -c "printf 'a\n'"`, []string{"sh", "-c", `printf 'a\n'`}, nil},
		{`a"b\"c\\d"e '' ""`, []string{`ab"c\de`, "", ""}, nil},
		{`a\ b \'`, []string{"a b", "'"}, nil},
		{"pass #1 # all of it", []string{"pass", "#1", "#", "all", "of", "it"}, nil},
		{"caf\xe9 \xc3\xa9", []string{"caf\xe9", "\xc3\xa9"}, nil},
		{`a 'b`, nil, ErrQuote},
		{`a "b\"`, nil, ErrQuote},
		{`a \`, nil, ErrEscape},
		{`"a\`, nil, ErrEscape},
	} {
		if got, err := Split(c.line); !slices.Equal(got, c.want) || !errors.Is(err, c.err) {
			t.Errorf("%q: %q, %v, want %q, %v", c.line, got, err, c.want, c.err)
		}
	}
}

// TestAgainstPython splits random lines as Python does.
func TestAgainstPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("python3 is missing")
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	lines := make([]string, 5000)
	for i := range lines {
		var b strings.Builder
		for range rnd.IntN(12) {
			b.WriteString([]string{"a", "bc", " ", "\t", "\n", `"`, "'", `\`, "#", "$", "é", "\v", ";"}[rnd.IntN(13)])
		}
		lines[i] = b.String()
	}
	in, _ := json.Marshal(lines)
	cmd := exec.Command(python, "-c", `
import json, shlex, sys
def split(line):
    try:
        return shlex.split(line)
    except ValueError:
        return None
json.dump([split(line) for line in json.load(sys.stdin)], sys.stdout)`)
	cmd.Stdin = strings.NewReader(string(in))
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var want [][]string
	if err := json.Unmarshal(out, &want); err != nil {
		t.Fatal(err)
	}
	for i, line := range lines {
		got, err := Split(line)
		if (err != nil) != (want[i] == nil) || !slices.Equal(got, want[i]) {
			t.Errorf("%q: %q, %v; Python: %q", line, got, err, want[i])
		}
	}
}

func quote(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }

// FuzzSplit: words come back when they are quoted, and no memory is wasted.
func FuzzSplit(f *testing.F) {
	for _, s := range []string{`printf '%s\n' "it's"`, `a"b\"c\\d"e '' ""`, `sh -c "printf 'a\n'" # x`, `a\ b \'`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		var words []string
		var err error
		if over := heap.Over(40*len(line), func() { words, err = Split(line) }); over > 0 {
			t.Errorf("%d bytes over the bound", over)
		}
		if err != nil {
			return
		}
		quoted := make([]string, len(words))
		for i, w := range words {
			quoted[i] = quote(w)
		}
		again, err := Split(strings.Join(quoted, " \n"))
		if err != nil || !slices.Equal(again, words) {
			t.Fatalf("%q gives %q, then %q, %v", line, words, again, err)
		}
	})
}
