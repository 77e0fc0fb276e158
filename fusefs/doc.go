// Package fusefs shows a volume's live tree and its history, or a
// repository's history alone, as one mounted file system.
//
// # What is where
//
//	MOUNTPOINT/            the live tree: every call goes to the directory below
//	  .s4/                 the volume's own files; .s4/local and .s4/snapshots are not shown
//	    history -> .history, and likewise versions and deleted
//	    .history/          not listed, read-only, made by this package
//	      latest           -> the newest snapshot's directory
//	      2026-11-22T…Z/   one directory a snapshot
//	      yesterday        not listed, found by name: -> the directory it means
//	    .versions/         every path there ever was, each file as a directory
//	      notes.txt/       of its distinct versions, by the first snapshot
//	        2026-11-22T…Z.txt
//	      photos/.s4/      not listed: history, versions and deleted seen from photos/
//	    .deleted/          what the newest snapshot lacks, as it last was
//
//	  photos/.s4           not listed: -> ../.s4/.versions/photos/.s4
//
// Only the links history, versions and deleted are listed, so that whatever
// copies or crawls the live tree stays out of the past.
//
// A repository mounted without a volume has a snapshot's tree at its root
// instead of the live tree, and the same .s4/history in it.
//
// # Words
//
// The live side passes calls through; the history side answers them from
// [History]. A moment link is a symbolic link in history/ whose name is a
// TIME and whose target is a snapshot's directory name.
//
// # Node ids and inode numbers
//
// The kernel names files by node id. The live side's ids are small numbers
// given out by go-fuse. The history's are computed, so that nothing has to be
// remembered for a file that the kernel knows, however many there are:
//
//	bit  63      set: the history's; clear: the live side's
//	bit  62      seen from the mount's root (a repository mount); a directory
//	             may have one parent only, so the same directory below
//	             history/ needs another id
//	bit  61      set: a fixed node, a moment link, a snapshot's directory, or
//	             one in versions/ or deleted/ (then bits 0–60 say which); with
//	             bit 62, a moment link to the directory with the number in the
//	             version's place, of which 4 bits tell snapshots of one second
//	             apart
//	bits 36–60   snapshot number
//	bits 0–35    version number
//
// Inode numbers, as stat(2) shows them, are of the same shape, and equal over
// remounts as long as the index lives:
//
//	directory           its node id
//	file                bit 63 and the version: equal in all snapshots in which
//	                    the file is unchanged
//	hard-link group     bits 63, 62 and 61, and 61 bits mixed from the snapshot
//	                    and the group's LinkID
//
// Bit 63 keeps them apart from the live side's numbers, which have it cleared.
//
// # Invariants
//
//   - Look-ups, listings and attributes on the history side use [Tree] and
//     [Timeline] only; [Content] is asked at the first read of an open file.
//   - A snapshot never changes, so what the kernel has read from one it may
//     keep. Only the history directory itself, its links, and the root of a
//     mount that follows the newest snapshot change; the kernel is told.
//   - Beside a live tree the history side never answers ENOSYS: the kernel
//     would stop sending that operation for the live side, too.
//   - The live side opens its root once, before the mount. Everything is
//     reached from there with openat2(2) and RESOLVE_NO_SYMLINKS, so that
//     mounting over the directory itself works and no path leads out.
//   - A path is made from go-fuse's tree and opened while nothing is renamed
//     through the mount, and the file found is the one that was meant, or the
//     kernel looks again: others may have put another file there.
//   - What was deleted or replaced can be used as long as somebody uses it.
//
// Linux 5.8 or newer is needed; reads and writes bypass this process
// (passthrough) from 6.9 on when it runs as root.
package fusefs
