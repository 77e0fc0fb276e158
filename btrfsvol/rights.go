package btrfsvol

import (
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/internal/mountinfo"
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

// allowsDeletion looks for the option in the table of mounts.
func allowsDeletion(table string, id uint64) bool {
	for line := range strings.Lines(table) {
		if m, ok := mountinfo.Parse(line); ok && m.ID == id {
			return slices.Contains(strings.Split(m.Options, ","), "user_subvol_rm_allowed")
		}
	}
	return false
}
