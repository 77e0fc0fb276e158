// Package snapshots keeps the btrfs snapshots of a volume: it takes, lists and
// deletes them, and chooses which are kept.
//
// # Words
//
//   - store: the directory `.s4/snapshots` of a volume. It is a subvolume of its
//     own, so that taking a snapshot changes nothing in the volume, and so that
//     no snapshot contains others.
//   - handle: a snapshot's name in the store: its time as
//     [snapshot.DirFormat], with _2 and so on behind it where a second has more
//     than one.
//   - note: the file HANDLE.json beside a snapshot: what its [snapshot.Info]
//     says and btrfs does not record.
//   - pinned: kept whatever the rules say, as the snapshot that a remote was
//     last pushed from is.
//
// # Invariants
//
// A note is durable before its snapshot is made, and goes after it. So a
// snapshot never lacks its note unless somebody took it away; then the handle
// stands for it. A note without a snapshot means nothing and is cleared away.
package snapshots
