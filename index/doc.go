// Package index is a catalogue, in one sqlite file, of the names and metadata
// of every snapshot of every source. It is a cache: losing it loses nothing,
// it is rebuilt from the sources, one snapshot at a time.
//
// # Words
//
//   - chain: the snapshots of one source with equal [snapshot.Info.Series],
//     ordered by key: one tree as it changed.
//   - key: a snapshot's place in time, in µs since the epoch, made unique over
//     the whole index by adding 1 until it is. A key therefore names a
//     snapshot, and with it the chain. It is never 0.
//   - version: one state of one path, a row of table version. It carries
//     since and until, the keys of the first and last indexed snapshot of the
//     chain that it is in. 0 means open to that side: it is in the chain's
//     first, or last, indexed snapshot.
//   - directory: the contents of one path of a chain, whatever became of it
//     over time. Its number is the version's column child, [snapshot.Entry.Dir].
//
// # Version intervals
//
// A version is in snapshot S if since <= S.key and (until = 0 or until >=
// S.key). Trees are not copied and not shared by hash, because of what
// intervals give:
//
//   - a file that stays as it is costs nothing when a snapshot is added at
//     either end of its chain, not even a row to touch, and a directory of
//     100,000 files costs its changes, not its width;
//   - all versions of a path are one range of the index on (dir, name, since);
//   - what differs between two snapshots are the closed ends between them,
//     which two partial indexes hold (since > 0, until > 0);
//   - deleting a snapshot touches only the closed ends at its key.
//
// # Sections
//
// Snapshots of one repository share most of their stream of items. The table
// section keeps what the stream of each chain's newest snapshot became: the
// version of every item, by its length and a keyed checksum of the item as it is
// stored. The next snapshot's sections that are among those are neither fetched
// nor parsed. Of its other items those that follow one another as they do in the
// neighbour are known by their checksums alone, without a look for where they
// end, and only new ones are decoded; what the neighbour has and the snapshot
// turns out not to have is cut off. A snapshot at the newest end of its chain, as each
// push adds one, is not even compared with what the sections hold that it shares:
// the stream's objects say beforehand which those are, and only the others are
// loaded. Should one of them not come, or a path of theirs come a second time, all is
// undone and done again the long way. While older snapshots are added one after
// another, what became of the one before is kept in memory.
//
// # Invariants
//
// The rows are in canonical form, so that they depend on the set of indexed
// snapshots and not on the order in which these came and went:
//
//   - since and until are 0 or keys of indexed snapshots of the row's chain;
//   - a version in the chain's first indexed snapshot has since 0, one in its
//     last has until 0;
//   - intervals of one path don't overlap;
//   - of two versions of a path that are in neighbouring snapshots, equal ones
//     are one row.
//
// A version's number stays with its path and content for ever and is never
// used again. What may change is which snapshots it stands for: inserting a
// snapshot in the middle of a chain can split a row, deleting one can join
// two. [Index.Stat] finds the right row from an outdated number.
//
// # Names
//
// A chain's root is a version too: name "", in the pseudo-directory numbered
// minus the chain's number. Directories that an archive lacks on the way to
// an item ("borg create a/b/c" stores just that) are synthesised: mode 040755,
// owner 0, mtime 0, so that they are equal from snapshot to snapshot. Paths
// that are no plain relative paths are skipped and reported, see [Added].
//
// # Processes
//
// Any number of processes use one file at once. Writers take turns
// (BEGIN IMMEDIATE, tried again until the context ends); readers never wait
// (WAL). Every snapshot is added in one transaction: it is there or it is not.
package index
