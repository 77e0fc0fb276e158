package diff

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func randomText(r *rand.Rand, n int, alphabet string) []byte {
	var b []byte
	for range n {
		b = append(b, alphabet[r.IntN(len(alphabet))], '\n')
	}
	if len(b) > 0 && r.IntN(4) == 0 {
		b = b[:len(b)-1]
	}
	return b
}

// longest is the length of the longest common subsequence, by the book.
func longest(a, b [][]byte) int {
	row := make([]int, len(b)+1)
	for _, x := range a {
		diagonal := 0
		for j, y := range b {
			above := row[j+1]
			if bytes.Equal(x, y) {
				row[j+1] = diagonal + 1
			} else {
				row[j+1] = max(row[j+1], row[j])
			}
			diagonal = above
		}
	}
	return row[len(b)]
}

func kept(flags []bool) (n int) {
	for _, f := range flags {
		if !f {
			n++
		}
	}
	return n
}

// What stays of both is the same, and there is no more of it to be had.
func TestCompareFindsTheShortestWay(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		a, b := lines(randomText(r, r.IntN(20), "abcd")), lines(randomText(r, r.IntN(20), "abcd"))
		goes, comes := compare(a, b)
		var stay, stayToo []byte
		for i, l := range a {
			if !goes[i] {
				stay = append(stay, l...)
			}
		}
		for i, l := range b {
			if !comes[i] {
				stayToo = append(stayToo, l...)
			}
		}
		if !bytes.Equal(stay, stayToo) {
			t.Fatalf("%q to %q: %q stays of one and %q of the other", a, b, stay, stayToo)
		}
		if kept(goes) != longest(a, b) {
			t.Fatalf("%q to %q: %d lines stay, could be %d", a, b, kept(goes), longest(a, b))
		}
	}
}

func TestCompareOfWhatHasNothingInCommonEnds(t *testing.T) {
	var a, b []byte
	for i := range 100_000 {
		a = fmt.Appendf(a, "a%d\n", i)
		if i%1000 == 0 {
			b = fmt.Appendf(b, "a%d\n", i)
		}
		b = fmt.Appendf(b, "b%d\n", i)
	}
	start := time.Now()
	goes, _ := compare(lines(a), lines(b))
	if kept(goes) == 0 {
		t.Error("the lines in common were not found")
	}
	if d := time.Since(start); d > 2*time.Minute {
		t.Errorf("it took %v", d)
	}
}

// patch(1) makes the one of the other.
func TestUnifiedIsUnderstoodByPatch(t *testing.T) {
	program, err := exec.LookPath("patch")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("no patch here")
		}
		t.Skip("no patch here")
	}
	r := rand.New(rand.NewPCG(3, 4))
	dir := t.TempDir()
	for i := range 60 {
		old := randomText(r, r.IntN(60), "abcdefghij")
		now := bytes.ReplaceAll(old, []byte("a\n"), []byte("X\nY\n"))
		if i%3 == 0 {
			now = randomText(r, r.IntN(60), "abcdefghij")
		}
		if i%5 == 0 {
			now = bytes.TrimSuffix(now, []byte("\n"))
		}
		var text strings.Builder
		if err := unified(&text, old, now, func(l []byte) []byte { return l }); err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(old, now) != (text.Len() == 0) {
			t.Fatalf("%q to %q: %s", old, now, text.String())
		}
		if text.Len() == 0 {
			continue
		}
		path := filepath.Join(dir, "f")
		if err := os.WriteFile(path, old, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), program, "-s", "-F0", "f")
		cmd.Dir, cmd.Stdin = dir, strings.NewReader("--- f\n+++ f\n"+text.String())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s\n%s", err, out, text.String())
		}
		got, err := os.ReadFile(path)
		if len(now) == 0 && os.IsNotExist(err) { // patch removes what becomes empty
			continue
		}
		if err != nil || !bytes.Equal(got, now) {
			t.Fatalf("got %q, want %q, %v\n%s", got, now, err, text.String())
		}
	}
}

func FuzzUnified(f *testing.F) {
	f.Add([]byte("a\nb\nc"), []byte("a\nc\n"))
	f.Add([]byte(""), []byte("\n\n"))
	f.Fuzz(func(t *testing.T, old, now []byte) {
		var text bytes.Buffer
		if err := unified(&text, old, now, func(l []byte) []byte { return l }); err != nil {
			t.Fatal(err)
		}
		if got := apply(t, old, text.Bytes()); !bytes.Equal(got, now) {
			t.Errorf("%q to %q gave %q:\n%s", old, now, got, text.Bytes())
		}
	})
}

// apply is patch in its simplest form.
func apply(t *testing.T, old, patch []byte) (out []byte) {
	from := lines(old)
	at, before := 0, byte(0)
	for _, l := range lines(patch) {
		var start, n int
		if bytes.HasPrefix(l, []byte("@@")) {
			place, _, _ := strings.Cut(strings.TrimPrefix(string(l), "@@ -"), " ")
			if _, err := fmt.Sscanf(place, "%d,%d", &start, &n); err != nil {
				n = 1
			}
			if n > 0 {
				start--
			}
			for at < start {
				out = append(out, from[at]...)
				at++
			}
			continue
		}
		switch l[0] {
		case ' ', '-':
			if !bytes.HasPrefix(from[at], bytes.TrimSuffix(l[1:], []byte("\n"))) {
				t.Fatalf("line %d is not %q", at, l)
			}
			if l[0] == ' ' {
				out = append(out, from[at]...)
			}
			at++
		case '+':
			out = append(out, l[1:]...)
		case '\\':
			if before == '+' {
				out = bytes.TrimSuffix(out, []byte("\n"))
			}
		}
		before = l[0]
	}
	for ; at < len(from); at++ {
		out = append(out, from[at]...)
	}
	return out
}
