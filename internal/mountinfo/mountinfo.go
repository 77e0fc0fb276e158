// Package mountinfo reads /proc/PID/mountinfo, the kernel's table of mounts. The
// format is in proc_pid_mountinfo(5): a line is
//
//	ID parent major:minor root dir options [optional …] - type source superoptions
package mountinfo

import (
	"strconv"
	"strings"
)

// Mount is a line of the table.
type Mount struct {
	ID      uint64
	Device  string // of the file system, major:minor
	Root    string // what of the file system is mounted; in btrfs a subvolume
	Dir     string
	Type    string
	Source  string
	Options string // of the file system, separated by commas
}

// Parse reads a line; ok is false for what is none.
func Parse(line string) (m Mount, ok bool) {
	left, right, found := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
	a, b := strings.Split(left, " "), strings.Split(right, " ")
	if !found || len(a) < 6 || len(b) < 2 {
		return Mount{}, false
	}
	id, err := strconv.ParseUint(a[0], 10, 64)
	if err != nil {
		return Mount{}, false
	}
	m = Mount{ID: id, Device: a[2], Root: unescape(a[3]), Dir: unescape(a[4]), Type: b[0], Source: unescape(b[1])}
	if len(b) > 2 {
		m.Options = b[2]
	}
	return m, true
}

// unescape undoes the kernel's \ooo for blanks, newlines and backslashes.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
