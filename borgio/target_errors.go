package borgio

import "github.com/s4-storage/s4/borgio/internal/fault"

// What can go wrong with writing besides, for [errors.Is].
var (
	// ErrExists: something is where a repository is to be made, or it would lie
	// inside another one. It is a kind of [io/fs.ErrExist].
	ErrExists = fault.ErrExists
	// ErrNoSpace: the file system is too full for the transaction, or for what
	// Borg wants to be left free.
	ErrNoSpace = fault.ErrNoSpace
	// ErrQuota: the repository's storage quota does not allow for it.
	ErrQuota = fault.ErrQuota
	// ErrLockLost: somebody broke the lock under a transaction.
	ErrLockLost = fault.ErrLockLost
	// ErrUnknown: a commit was on its way when the connection, or the disk,
	// failed. Only the manifest can tell whether it was made.
	ErrUnknown = fault.ErrUnknown
)

// LockedError tells who holds a local repository. It matches [ErrLocked].
type LockedError = fault.LockedError
