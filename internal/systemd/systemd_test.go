package systemd

import (
	"os/exec"
	"strings"
	"testing"
)

func TestEscapePath(t *testing.T) {
	for path, want := range map[string]string{
		"/":                 "-",
		"/srv/photos":       "srv-photos",
		"/srv//a/":          "srv-a",
		"/srv/my files":     `srv-my\x20files`,
		"/srv/a-b":          `srv-a\x2db`,
		"/.hidden/.x":       `\x2ehidden-.x`,
		"/srv/übung":        `srv-\xc3\xbcbung`,
		`/srv/a\b`:          `srv-a\x5cb`,
		"/home/a_b:c.d/e":   "home-a_b:c.d-e",
		"/srv/100% \"big\"": `srv-100\x25\x20\x22big\x22`,
	} {
		if got := EscapePath(path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
		if escape, err := exec.LookPath("systemd-escape"); err == nil {
			out, err := exec.CommandContext(t.Context(), escape, "--path", path).Output()
			if theirs := strings.TrimSpace(string(out)); err != nil || theirs != want {
				t.Errorf("%s: systemd-escape says %s (%v), want %s", path, theirs, err, want)
			}
		}
	}
}

func TestWord(t *testing.T) {
	for in, want := range map[string]string{
		"plain":      `"plain"`,
		"two words":  `"two words"`,
		`a"b\c`:      `"a\"b\\c"`,
		"100% $HOME": `"100%% $$HOME"`,
		"line\nend":  `"line\x0aend"`,
		"":           `""`,
	} {
		if got := Word(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
	if got := Value("a$b%c"); got != `"a$b%%c"` {
		t.Errorf("value: %s", got)
	}
}
