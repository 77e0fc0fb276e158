package btrfsvol

import "testing"

func TestAllowsDeletion(t *testing.T) {
	const mounts = `25 1 254:0 / / rw,relatime - ext4 /dev/vda rw
310 25 0:49 / /mnt/a\040b rw,noatime shared:3 - btrfs /dev/loop0 rw,space_cache=v2,user_subvol_rm_allowed,subvolid=5,subvol=/
311 25 0:50 / /mnt/c rw,noatime - btrfs /dev/loop1 rw,space_cache=v2,subvolid=5,subvol=/
`
	for id, want := range map[uint64]bool{25: false, 310: true, 311: false, 31: false} {
		if got := allowsDeletion(mounts, id); got != want {
			t.Errorf("%d: %t", id, got)
		}
	}
}
