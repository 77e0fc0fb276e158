package fault

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestOneLine(t *testing.T) {
	for in, want := range map[string]string{
		"":                                       "",
		" two\r\n lines\t":                       "two lines",
		"caf\xe9 \x1b[31mred\x00 \u202egpj":      "caf? ?[31mred? ?gpj",
		"été":                                    "été",
		"a" + strings.Repeat("é", maxLine):       "a" + strings.Repeat("é", maxLine/2-1) + "…",
		strings.Repeat("x ", maxLine/2) + "rest": strings.Repeat("x ", maxLine/2) + "…",
	} {
		if got := OneLine(in); got != want || !utf8.ValidString(got) {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
