package volume

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/snapshot"
)

// maxName is the longest name in bytes: a volume's name is a directory's name
// at the remote.
const maxName = 255

// CheckName tells whether name may be a volume's: 1 to 255 bytes of UTF-8
// that is one directory name, is shown on one line, and is not read as
// something else by borg (":: " separates the archive, braces are
// placeholders). The error wraps snapshot.ErrUsage.
func CheckName(name string) error {
	reason := ""
	switch {
	case name == "":
		reason = "it is empty"
	case len(name) > maxName:
		reason = fmt.Sprintf("it is longer than %d bytes", maxName)
	case !utf8.ValidString(name):
		reason = "it is not UTF-8"
	case name == "." || name == "..":
		reason = "it names a directory of its own"
	case strings.HasPrefix(name, "-"), strings.HasPrefix(name, "~"):
		reason = "of its first character"
	case strings.Contains(name, "/"):
		reason = "it contains a slash"
	case strings.Contains(name, "::"):
		reason = "it contains two colons"
	case strings.ContainsAny(name, "{}"):
		reason = "it contains braces"
	case strings.ContainsFunc(name, unicode.IsControl):
		reason = "it contains a control character"
	case strings.TrimSpace(name) != name:
		reason = "it begins or ends with a space"
	default:
		return nil
	}
	if len(name) > 60 {
		name = name[:60] + "…"
	}
	return hint.With(fmt.Errorf("%w: %q cannot be a volume's name: %s", snapshot.ErrUsage, name, reason),
		"choose one with --name NAME")
}

// archivePrefix is name as it may stand in an archive's name.
func archivePrefix(name string) string {
	const longest = 100
	s := strings.Map(func(c rune) rune {
		if c == '.' || c == '-' || c == '_' || unicode.IsLetter(c) || unicode.IsDigit(c) {
			return c
		}
		return '_'
	}, name)
	for len(s) > longest {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}
