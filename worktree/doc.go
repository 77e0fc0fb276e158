// Package worktree is the files-on-disk side of push, pull, clone, restore and
// status. It walks a live tree quickly, tells what differs from a snapshot,
// and brings paths to a snapshot's state without ever losing what is there.
//
// # Words
//
// Root: the directory everything happens in, opened once. No operation
// leaves it and none follows a symlink: every path is resolved beneath the
// root's descriptor with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS, or, where
// openat2 is missing, one component at a time with O_NOFOLLOW. File systems
// mounted inside are crossed, as borg does.
//
// Live: an entry of the live tree as statx sees it. Extended attributes are
// read only where a decision needs them.
//
// Tree: the snapshot side, an interface that a history satisfies.
//
// Stamp: (inode, ctime) of a path, noted when s4 itself wrote it. An archive
// records the ctime of the file that was pushed, and a file that was pulled
// can never have it; the stamp stands in for it. A stamp also holds the
// fingerprint of the snapshot's entry it was made for, so it says "this inode,
// untouched since, is that entry as well as this host could make it", which
// holds for an ordinary user who cannot give files away, too. Stamps belong to
// the working tree, not to the index; losing them costs only time, because
// what is unknown is compared by content.
//
// Clean: a live path that is known to be a given entry, because its
// metadata agrees and its ctime or its stamp shows that nothing touched it. A
// ctime that several files share shows nothing where directories may have changed
// places.
//
// Temporary file: ".s4-tmp-" and eight characters of [0-9a-z], in the
// directory of the file it is going to be. Such names are never part of a tree
// on either side. What a killed run left is removed by the next Apply.
//
// Order: every walk, change and action comes depth first, parents before
// children, names of one directory sorted bytewise; this is bytewise order of
// paths with "/" lowest (see [ComparePaths]).
//
// # Invariants
//
//   - A name changes from its old file to its whole new file in one rename;
//     content and metadata are complete before it.
//   - A path is replaced or removed only if it still is what [Root.Plan] saw,
//     otherwise it is left alone and reported as refused.
//   - Damaged content replaces nothing. A directory that becomes a file is
//     emptied only once the file is complete.
//   - Bytes taken from local files are verified against the id of the extent
//     they stand for; local files are never trusted.
//   - Stamps are recorded after the data are synced, so a stamp never vouches
//     for what a power failure took.
//   - Any run can be stopped at any point and run again.
//
// A directory whose Mtime and Ctime are both 0 was made up by the index, for an
// archive that records a path but not its parents: it is created where it is
// missing, and its metadata is neither compared nor set.
package worktree
