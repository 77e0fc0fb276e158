// Package disk reads the files of a local BorgBackup 1.x repository in place,
// without a lock, while writers may be at work. It finds objects by id and
// checks how they are stored; what is in them it does not know.
//
// # Words
//
// Segments are files to which transactions only ever append entries: a PUT
// stores an object, a DELETE removes one, a COMMIT ends the transaction. What
// comes after the last COMMIT does not count. Compaction copies what is live
// out of old segments and removes those. The repository index finds the segment
// and offset of an object's PUT; replaying the segments gives the same. A view
// is the repository as one transaction left it.
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
//	integrity.N  msgpack {"index": JSON with XXH64 digests of index.N}
//
// # Invariants
//
//   - Nothing is ever written, not even a lock.
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
