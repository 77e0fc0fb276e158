package snapshot

import "errors"

// What can go wrong, by what a person can do about it. Every package wraps one
// of these where it applies; a missing thing is always [io/fs.ErrNotExist].
// cmd/s4 maps them to exit codes.
var (
	ErrUsage       = errors.New("wrong usage")
	ErrRefused     = errors.New("refused to protect data")
	ErrUnreachable = errors.New("remote cannot be reached")
	ErrLocked      = errors.New("locked by another")
	ErrDamaged     = errors.New("damaged data")
	ErrKey         = errors.New("wrong or missing key or passphrase")
)
