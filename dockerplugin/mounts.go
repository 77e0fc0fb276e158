package dockerplugin

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// mount is a line of proc_pid_mountinfo(5).
type mount struct {
	device string // major:minor
	root   string // what of the file system is mounted
	at     string
}

func parseMounts(data []byte) []mount {
	var mounts []mount
	for line := range bytes.Lines(data) {
		f := bytes.Fields(line)
		if len(f) < 6 {
			continue
		}
		mounts = append(mounts, mount{string(f[2]), unescape(f[3]), unescape(f[4])})
	}
	return mounts
}

// unescape undoes the kernel's \ooo for blanks and backslashes.
func unescape(b []byte) string {
	digit := func(c byte) bool { return '0' <= c && c <= '7' }
	var out strings.Builder
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+3 < len(b) && digit(b[i+1]) && digit(b[i+2]) && digit(b[i+3]) {
			out.WriteByte((b[i+1]-'0')<<6 | (b[i+2]-'0')<<3 | (b[i+3] - '0'))
			i += 3
			continue
		}
		out.WriteByte(b[i])
	}
	return out.String()
}

func readMounts(proc string) ([]mount, error) {
	data, err := os.ReadFile(filepath.Join(proc, "mountinfo"))
	return parseMounts(data), err
}

// below tells whether path is dir or in it.
func below(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

// mountedBelow is a mount in a directory, or "".
func mountedBelow(dir string) (string, error) {
	mounts, err := readMounts("/proc/self")
	if err != nil {
		return "", err
	}
	for _, m := range mounts {
		if below(m.at, dir) {
			return m.at, nil
		}
	}
	return "", nil
}

// usedElsewhere names a process that sees the directory at another place, as
// those in a container do that has mounted it, or is "". The mount here tells
// nothing: a container's is one of its own.
func usedElsewhere(dir string) (string, error) {
	mounts, err := readMounts("/proc/self")
	if err != nil {
		return "", err
	}
	var on mount // which dir lies on; of those at the same place the last is on top
	for _, m := range mounts {
		if below(dir, m.at) && len(m.at) >= len(on.at) {
			on = m
		}
	}
	root := filepath.Join(on.root, strings.TrimPrefix(dir, on.at))
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return "", err
	}
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return "", err
	}
	seen := map[string]bool{own: true}
	for _, proc := range procs {
		// A process may end at any time.
		space, err := os.Readlink(filepath.Join(proc, "ns/mnt"))
		if err != nil || seen[space] {
			continue
		}
		seen[space] = true
		mounts, _ := readMounts(proc)
		for _, m := range mounts {
			// A service with a copy of the host's mounts has it at the same place.
			if m.device == on.device && below(m.root, root) && !below(m.at, dir) {
				return fmt.Sprintf("process %s has it at %s", filepath.Base(proc), m.at), nil
			}
		}
	}
	return "", nil
}
