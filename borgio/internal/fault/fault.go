// Package fault holds what borgio and its inner packages share about errors:
// the kinds that borgio exports, and how the words of a program are quoted.
package fault

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"unicode"
)

// The kinds of errors; borgio documents them under the same names.
var (
	ErrNotRepository = fmt.Errorf("not a borg repository: %w", fs.ErrNotExist)
	ErrUnfinished    = error(unfinished{})
	ErrUnsupported   = errors.New("unsupported repository")
	ErrNoPassphrase  = errors.New("passphrase needed")
	ErrPassphrase    = errors.New("wrong passphrase")
	ErrKeyMissing    = errors.New("key missing")
	ErrKeyMismatch   = errors.New("key of another repository")
	ErrKeyDamaged    = errors.New("damaged key")
	ErrKeyKind       = fmt.Errorf("%w: key of an unknown kind", ErrUnsupported)
	ErrLocked        = errors.New("repository is locked")
	ErrUnreachable   = errors.New("remote unreachable")
	ErrNoBorg        = fmt.Errorf("%w: no borg there", ErrUnreachable)
	ErrHostKey       = fmt.Errorf("%w: host key verification failed", ErrUnreachable)
	ErrIntegrity     = errors.New("damaged data")
	ErrClosed        = fmt.Errorf("borg repository: %w", fs.ErrClosed)
	ErrExists        = fmt.Errorf("something is there already: %w", fs.ErrExist)
	ErrNoSpace       = errors.New("not enough free space for the repository")
	ErrQuota         = errors.New("storage quota of the repository exceeded")
	ErrLockLost      = errors.New("lock of the repository was broken by somebody else")
	ErrUnknown       = errors.New("it is not known whether the transaction was committed")
)

// unfinished is of the kind of ErrNotRepository, whose words would not help.
type unfinished struct{}

func (unfinished) Error() string { return "a repository that was begun and never finished" }

func (unfinished) Unwrap() error { return ErrNotRepository }

// LockedError tells who holds a repository. It matches [ErrLocked].
type LockedError struct {
	Host   string // as Borg names hosts; or the whole name of a lock that makes no sense
	PID    int    // 0: not known
	Reader bool   // the lock is a reader's, which keeps writers out only
}

func (e *LockedError) Error() string {
	who := "process " + strconv.Itoa(e.PID)
	if e.PID == 0 {
		who = "somebody"
	}
	if e.Reader {
		who += ", which reads,"
	}
	return fmt.Sprintf("%v: by %s on %s", ErrLocked, who, OneLine(e.Host))
}

// Is matches [ErrLocked].
func (e *LockedError) Is(target error) bool { return target == ErrLocked }

// maxLine is the length in bytes up to which others' words are repeated.
const maxLine = 300

// OneLine makes what a program said fit into an error message, and harmless to
// a terminal.
func OneLine(s string) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "?")), " ")
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if len(s) > maxLine {
		s = strings.ToValidUTF8(s[:maxLine], "") + "…"
	}
	return s
}
