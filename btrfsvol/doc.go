// Package btrfsvol does for a volume on btrfs what only btrfs can: snapshots in
// an instant, and what has changed between two of them without looking at the
// files.
//
// # Words
//
// A subvolume is a file tree with a root of its own inside a file system; its
// root directory has the inode number 256. A snapshot is a subvolume that began
// as another one's copy. A generation (the kernel also says transid) is the
// number of a transaction: a subvolume's own is that of its last change on
// disk, so what was written a moment ago may not show in it yet, see [Sync].
//
// Subvolumes inside a subvolume (nested ones) are no part of it: a snapshot has
// an empty directory in the place of each.
//
// # What needs root
//
// Everybody may look at a subvolume, and make a subvolume or a snapshot of
// their own subvolume. To delete one, a file system must have been mounted with
// user_subvol_rm_allowed. [Changes] needs CAP_SYS_ADMIN.
package btrfsvol
