package quote

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// names are odd ones, each with what ls shows for it.
var names = map[string]string{
	"a": "a", "a b": "'a b'", "it's": `"it's"`, `it's "x"`: `'it'\''s "x"'`, "a\nb": `'a'$'\n''b'`,
	"\n": `''$'\n'`, "\t\nx": `''$'\t\n''x'`, "x\t": `'x'$'\t'`, "\xff": `''$'\377'`,
	"a\xffb\xfe\xfdc": `'a'$'\377''b'$'\376\375''c'`, "$x": "'$x'", "it's $5": `'it'\''s $5'`,
	"#a": "'#a'", "a#": "a#", "~a": "'~a'", "a~": "a~", "{": "'{'", "}": "'}'", "{a}": "{a}",
	"a=b": "'a=b'", `a\b`: `'a\b'`, "a!b": "'a!b'", "ä": "ä", "-n": "-n", "a]b": "a]b", "[": "'['",
	"^": "'^'", "a?b": "'a?b'", "a%b,c:d@e+f": "a%b,c:d@e+f", "\x01\x1b[31m": `''$'\001\033''[31m'`,
	"\x7f": `''$'\177'`, "'": `"'"`, "''": `"''"`, `"`: `'"'`, "a'b c": `"a'b c"`, "a'=b": `'a'\''=b'`,
	"a'#b": `'a'\''#b'`, "'#": `''\''#'`, "a'{b": `'a'\''{b'`, "a\b0": `'a'$'\b''0'`,
	"\a\b\f\v\r\x1b": `''$'\a\b\f\v\r\033'`, `a'b\c`: `'a'\''b\c'`, "@x": "@x", "'ä": `"'ä"`,
	"'\xff": `''\'''$'\377'`, "😀": "😀", "'?": `''\''?'`, "'{": `''\''{'`, "x\n'y": `'x'$'\n'\''y'`,
	"x\n\n1": `'x'$'\n\n''1'`, "~'": `"~'"`, "{'": `'{'\'''`, "\u0085": `''$'\302\205'`,
	"\u2028": `''$'\342\200\250'`,
}

func TestShell(t *testing.T) {
	for name, want := range names {
		if got := Shell(name); got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
	// Where it differs from ls: the direction of text is not turned, spaces of
	// other widths are seen, and no empty quotes stand before an apostrophe.
	for name, want := range map[string]string{
		"\u202egpj": `''$'\342\200\256''gpj'`, "a\u00a0": "'a\u00a0'", "it's\n": `'it'\''s'$'\n'`, "": "''",
		"👩\u200d🚀": "👩\u200d🚀",
	} {
		if got := Shell(name); got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
}

// The table is what ls really says.
func TestShellIsLikeLs(t *testing.T) {
	dir := t.TempDir()
	version, err := exec.CommandContext(t.Context(), "ls", "--version").Output()
	if err != nil || !bytes.Contains(version, []byte("GNU")) {
		t.Skip("no GNU ls here")
	}
	for name, want := range names {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		ls := exec.CommandContext(t.Context(), "ls", "-d", "--quoting-style=shell-escape", "--", name)
		ls.Dir, ls.Env = dir, append(os.Environ(), "LC_ALL=C.UTF-8")
		out, err := ls.Output()
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSuffix(string(out), "\n"); got != want {
			t.Errorf("%q: ls says %s, the table %s", name, got, want)
		}
	}
}

func TestShellComesBackFromBash(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash here")
	}
	all := []string{"it's\n", "\u202egpj", "", "\x01\x02'\"\\\x80"}
	for name := range names {
		all = append(all, name)
	}
	for c := 1; c < 256; c++ {
		all = append(all, string([]byte{byte(c)}), string([]byte{'a', byte(c), '1', '\''}))
	}
	check(t, bash, all)
}

// check lets bash read every name's word and give back its bytes.
func check(t *testing.T, bash string, all []string) {
	t.Helper()
	var script, want strings.Builder
	for _, name := range all {
		script.WriteString("printf '%s\\0' " + Shell(name) + "\n")
		want.WriteString(name + "\x00")
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), bash)
	cmd.Stdin, cmd.Env = strings.NewReader(script.String()), append(os.Environ(), "LC_ALL=C.UTF-8")
	got, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, got)
	}
	words := strings.Split(string(got), "\x00")
	for i, name := range all {
		if i >= len(words) || words[i] != name {
			t.Fatalf("%q: %s", name, Shell(name))
		}
	}
	if string(got) != want.String() {
		t.Fatal("words are left over")
	}
}

func TestText(t *testing.T) {
	for text, want := range map[string]string{
		`cannot read "a b": it's gone`: `cannot read "a b": it's gone`, "été": "été",
		"\x1b[2J": `\033[2J`, "a\nb\xff": `a\nb\377`, "": "", "\u202e": `\342\200\256`,
	} {
		if got := Text(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func FuzzShell(f *testing.F) {
	for name := range names {
		f.Add(name)
	}
	bash, err := exec.LookPath("bash")
	if err != nil {
		f.Skip("no bash here")
	}
	f.Fuzz(func(t *testing.T, name string) {
		if strings.Contains(name, "\x00") {
			t.Skip("no name")
		}
		for _, s := range []string{Shell(name), Text(name)} {
			if !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
				t.Fatalf("%q shows as %q", name, s)
			}
		}
		check(t, bash, []string{name})
	})
}
