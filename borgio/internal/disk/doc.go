// Package disk reads the files of a local BorgBackup 1.x repository in place,
// without a lock, while writers may be at work; and it writes transactions, and
// whole new repositories, and compacts them, as Borg would. It finds objects by id and checks how
// they are stored; what is in them it does not know.
//
// # Words
//
// Segments are files to which transactions only ever append entries: a PUT
// stores an object, a DELETE removes one, a COMMIT ends the transaction. What
// comes after the last COMMIT does not count. Compaction copies what is live
// out of old segments and removes those. The repository index finds the segment
// and offset of an object's PUT; replaying the segments gives the same. A view
// is the repository as one transaction left it. The ledger is what Borg calls
// hints: what compaction and the quota have to know of each segment.
//
// # Format
//
// Integers are little-endian.
//
//	config     INI, section [repository]: version 1, id 64 hex digits,
//	             segments_per_dir, key base64 on continued lines
//	data/D/N   segment N, D = N / segments_per_dir
//	segment    "BORG_SEG", then entries
//	entry      crc32 u32 · size u32 · tag u8 · id [32] · data
//	             tag 0 PUT, 1 DELETE (no data), 2 COMMIT (no id, no data);
//	             size counts the whole entry, crc32 (IEEE) all behind itself
//	index.N    "BORG_IDX" · entries i32 · buckets i32 · 32 u8 · 8 u8, then
//	             buckets of id [32] · segment u32 · offset u32, open-addressed
//	             from u32(id) mod buckets; segment 0xffffffff is empty,
//	             0xfffffffe a tombstone. N is the last segment it knows
//	hints.N    msgpack {"version": 2, "segments": {segment: live objects},
//	             "compact": {segment: bytes that could be freed},
//	             "storage_quota_use": bytes of all PUTs, "shadow_index":
//	             {deleted id: segments with a PUT of it}}
//	integrity.N  msgpack {"version": 2, "index": JSON with XXH64 digests of
//	             index.N, "hints": likewise}
//	nonce      16 hex digits: the next free counter block
//	transactions  a line for each commit, where only appending is allowed
//
// # How a transaction is written
//
// Under the exclusive lock, what follows the last COMMIT is removed: a writer left
// it that died. New segments take the next numbers; each is synced, and its
// directory, before the next begins. The manifest begins a segment, and the COMMIT
// has one for itself, the last: when that is synced the transaction is there, and
// until then nothing of it is. Then the index is written, or left stale; see
// worthIndex. Roll-back removes the segments, the newest first.
//
// A new repository is made in a hidden directory, .NAME.NUMBER.tmp beside its place,
// which is locked by flock(2) meanwhile, and is moved after its first commit. See
// [Making] for a directory that is there already.
//
// # How a repository is compacted
//
// Under the exclusive lock, as a transaction of its own: of each segment of which
// enough could be freed, what is live is copied behind the last commit. Before a new
// segment would be begun, a COMMIT ends the one that is full, and then the segments
// from which all was copied are removed, the oldest first; the last COMMIT has a
// segment for itself. A DELETE is copied, too, while a segment before it still has a
// PUT of the object: the shadow index knows. Whoever deletes writes the index and
// the hints, so that it does.
//
// # Invariants
//
//   - Reading writes nothing, not even a lock. Only a [Writer] writes.
//   - What was committed is never changed, and only a compaction removes it, after a
//     copy of what is live of it was committed. Whenever a writer dies, the files are
//     the last transaction's, or the one's that it was committing.
//   - A writer that lost its lock writes no new segment and removes none.
//   - A repository that lost what its index knows, or with a segment damaged that
//     no index covers, is not written to.
//   - An index that is missing, stale, or damaged is replaced or completed in
//     memory by replaying segments.
//   - A read that misses, because compaction removed the segment or because the
//     index misled it, looks at the repository anew and tries again.
//   - An object that is given had the right id, tag, size and checksum in its
//     segment. That it is what it claims to be, only its key can tell.
package disk

import "github.com/s4-storage/s4/borgio/internal/fault"

// ObjectError tells which check of how it is stored an object failed. It
// matches [fault.ErrIntegrity], and [io/fs.ErrNotExist] when it is missing.
type ObjectError struct {
	Check string // "lookup", "segment", "segment entry"
	Err   error
}

func (e *ObjectError) Error() string { return e.Check + ": " + e.Err.Error() }

// Is matches [fault.ErrIntegrity].
func (e *ObjectError) Is(target error) bool { return target == fault.ErrIntegrity }

// Unwrap gives the cause.
func (e *ObjectError) Unwrap() error { return e.Err }
