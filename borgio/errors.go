package borgio

import (
	"fmt"

	"github.com/s4-storage/s4/borgio/internal/fault"
)

// What can go wrong, for [errors.Is]. ErrNoBorg and ErrHostKey are kinds of
// ErrUnreachable, ErrKeyKind is one of ErrUnsupported, ErrUnfinished of
// ErrNotRepository.
var (
	// ErrNotRepository: nothing is there, or something else than a repository.
	ErrNotRepository = fault.ErrNotRepository
	// ErrUnfinished: a repository was begun, and whoever made it ended before
	// anything was committed. [Create] begins anew. It is none that has lost its
	// manifest, which is ErrIntegrity.
	ErrUnfinished = fault.ErrUnfinished
	// ErrUnsupported: made by Attic, Borg 1.0 or 2, or with a feature this
	// package does not know.
	ErrUnsupported = fault.ErrUnsupported

	// ErrNoPassphrase: the key needs a passphrase and none was given.
	ErrNoPassphrase = fault.ErrNoPassphrase
	// ErrPassphrase: the passphrase given is wrong.
	ErrPassphrase = fault.ErrPassphrase
	// ErrKeyMissing: there is no key file, or no key in the repository.
	ErrKeyMissing = fault.ErrKeyMissing
	// ErrKeyMismatch: the key belongs to another repository.
	ErrKeyMismatch = fault.ErrKeyMismatch
	// ErrKeyDamaged: what should be a key is damaged, or something else. Damage
	// that only opening it with the passphrase could tell is ErrPassphrase.
	ErrKeyDamaged = fault.ErrKeyDamaged
	// ErrKeyKind: the key is sealed in a way that this package does not know,
	// such as Borg 2's. It is a kind of ErrUnsupported.
	ErrKeyKind = fault.ErrKeyKind

	// ErrLocked: a writer holds the repository.
	ErrLocked = fault.ErrLocked
	// ErrUnreachable: the remote could not be reached, vanished, or gave no
	// answer in time.
	ErrUnreachable = fault.ErrUnreachable
	// ErrNoBorg: the remote can be logged in to, but has no borg.
	ErrNoBorg = fault.ErrNoBorg
	// ErrHostKey: ssh does not know or does not trust the remote's host key.
	ErrHostKey = fault.ErrHostKey

	// ErrIntegrity: data is damaged, missing or forged. The error is an
	// [*IntegrityError].
	ErrIntegrity = fault.ErrIntegrity
	// ErrClosed: the repository or file was closed.
	ErrClosed = fault.ErrClosed
)

// IntegrityError tells which object failed which check. It matches
// [ErrIntegrity], and [fs.ErrNotExist] when the object is missing.
type IntegrityError struct {
	Object ID     // zero: the manifest
	What   string // the check: "segment entry", "mac", "id", "size", "tam", …
	Err    error  // the cause; may be nil
}

// Error gives one line that names the object and the check.
func (e *IntegrityError) Error() string {
	name := "object " + e.Object.String()
	if e.Object == manifestID {
		name = "manifest"
	}
	if e.Err == nil {
		return fmt.Sprintf("%v: %s: %s", ErrIntegrity, name, e.What)
	}
	return fmt.Sprintf("%v: %s: %s: %v", ErrIntegrity, name, e.What, e.Err)
}

// Is matches [ErrIntegrity].
func (e *IntegrityError) Is(target error) bool { return target == ErrIntegrity }

// Unwrap gives the cause.
func (e *IntegrityError) Unwrap() error { return e.Err }

// damaged is an IntegrityError whose cause is a message.
func damaged(id ID, what, format string, args ...any) error {
	return &IntegrityError{Object: id, What: what, Err: fmt.Errorf(format, args...)}
}
