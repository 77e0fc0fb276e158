package btrfsvol

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// MayDelete tells whether this process may delete its own subvolumes in dir,
// snapshots too: root may, and everybody where the file system is mounted with
// user_subvol_rm_allowed.
func MayDelete(dir string) (bool, error) {
	if os.Geteuid() == 0 {
		return true, nil
	}
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, dir, 0, unix.STATX_MNT_ID, &st); err != nil {
		return false, fail("look at the mount of", dir, err)
	}
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false, err
	}
	return allowsDeletion(string(data), st.Mnt_id), nil
}

// allowsDeletion looks for the option in /proc/PID/mountinfo, see proc(5): the
// mount's id comes first, the file system's options last.
func allowsDeletion(mountinfo string, id uint64) bool {
	for line := range strings.Lines(mountinfo) {
		f := strings.Fields(line)
		if len(f) > 0 && f[0] == strconv.FormatUint(id, 10) {
			return slices.Contains(strings.Split(f[len(f)-1], ","), "user_subvol_rm_allowed")
		}
	}
	return false
}
