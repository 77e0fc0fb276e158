// Package borgio reads and writes BorgBackup 1.x repositories natively: in a
// local directory without borg or Python, and on another host through the "borg
// serve" that is there.
//
// # Words
//
// A repository stores objects: byte strings of at most 20 MiB, each named by
// the keyed hash of its plaintext. A local repository keeps them in segments,
// files to which transactions only ever append; a commit ends a transaction;
// compaction copies what is live out of old segments and removes those. The
// repository index finds the segment and offset of an object by its id.
//
// The object with the zero id is the manifest: the list of archives. An
// archive is an object that describes one backup and lists the objects whose
// plaintexts, joined, are its item stream; an item is one file, directory,
// link or device with its metadata. A regular file's item lists its chunks:
// the objects whose plaintexts, joined, are its content. A section is a piece
// of an item stream that archives have in common as long as nothing in it
// changes.
//
// A transaction adds to a repository: objects, archives, and last the manifest
// that names them; or it deletes archives, and the objects that no remaining archive
// refers to. What it writes to is its target, which holds the repository's
// lock. The outline of an archive that was written here tells its sections, so
// that a further archive takes over those in which nothing changed.
//
// # Format
//
// How a local repository stores objects is told in internal/disk, and how "borg
// serve" gives them in internal/serve.
//
//	object     type u8, which tells the key mode, then
//	             encrypted modes: MAC [32] · IV [8] · AES-256-CTR of payload
//	             others: payload
//	payload    2 bytes for the compression, then compressed plaintext
//	key        base64 of msgpack, PBKDF2 and AES-256-CTR over key material
//	manifest, archive, item: msgpack maps with text keys
//
// The source of all of this is BorgBackup 1.x itself, docs/internals and the
// behaviour of its programs.
//
// # Invariants
//
//   - Reading writes nothing to a repository, and blocks no writer: a local one
//     is read without a lock. On a remote one the server's shared
//     lock is held only for the moment in which the manifest and the index are
//     read, well below the second that borg waits; all else is read without it.
//     A reader that misses because a writer compacted looks anew and tries
//     again. A writer at work does not stop who was reading a remote within
//     the last half a minute, until something turns out to have been moved;
//     the manifest, and what needs a new session, wait for Options.LockWait.
//   - What a caller gets was verified: key type, then MAC, then decompression
//     within a bound, then the id and the length; manifests and archives by
//     their own authentication too. Damage is an [*IntegrityError] of the one
//     object that it hit.
//   - An authentic manifest that is older than one met before is served, with a
//     warning: see Options.Remember.
//   - Lengths are checked against bounds before memory is taken for them.
//   - No counter block of the encryption is used twice, whatever crashes:
//     blocks are reserved, in the repository and on this machine, before use.
//   - A manifest is written after all that it names, is authenticated, is newer
//     than the one before, and keeps what this package does not know of that one.
//   - An object is deleted only when the items of all archives that remain were read,
//     and none refers to it.
//   - The same content is cut into the same chunks and has the same ids as with
//     borg, and is stored once.
//   - No call waits for a remote without end: see Options.Timeout.
//   - Names and paths are raw bytes in strings, never normalised.
package borgio
