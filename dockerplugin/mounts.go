package dockerplugin

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/s4-storage/s4/internal/mountinfo"
)

// readMounts gives the mounts that a process sees.
func readMounts(proc string) ([]mountinfo.Mount, error) {
	table, err := os.ReadFile(filepath.Join(proc, "mountinfo"))
	var mounts []mountinfo.Mount
	for line := range strings.Lines(string(table)) {
		if m, ok := mountinfo.Parse(line); ok {
			mounts = append(mounts, m)
		}
	}
	return mounts, err
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
		if below(m.Dir, dir) {
			return m.Dir, nil
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
	var on mountinfo.Mount // which dir lies on; of those at the same place the last is on top
	for _, m := range mounts {
		if below(dir, m.Dir) && len(m.Dir) >= len(on.Dir) {
			on = m
		}
	}
	root := filepath.Join(on.Root, strings.TrimPrefix(dir, on.Dir))
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
			if m.Device == on.Device && below(m.Root, root) && !below(m.Dir, dir) {
				return fmt.Sprintf("process %s has it at %s", filepath.Base(proc), m.Dir), nil
			}
		}
	}
	return "", nil
}
