package volume

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/s4-storage/s4/snapshot"
)

// PushOptions choose how to push.
type PushOptions struct {
	Remote  string // "" is the default remote
	Message string
	Force   bool // also onto snapshots never seen here
	// Patience is how long another s4 that is at work on the volume is waited
	// for, some seconds at least.
	Patience time.Duration
	// Connection is kept for the next push to the remote; nil: there is none.
	Connection *Connection
	// Captured is called, where it is not nil, as soon as what is pushed can no
	// longer change: a btrfs snapshot has it. It is never called where the files
	// are read as they stand.
	Captured func()
	Report   Reporter
}

// PushResult is what a push did.
type PushResult struct {
	Remote   string        `json:"remote"`
	URL      string        `json:"url"`               // the repository's
	Created  bool          `json:"created"`           // the repository was made
	UpToDate bool          `json:"up_to_date"`        // nothing had changed, nothing was added
	Snapshot snapshot.Info `json:"snapshot,omitzero"` // the new one, or the one that is up to date
	Files    int64         `json:"files"`
	Size     int64         `json:"size"`  // bytes in the volume's files
	Added    int64         `json:"added"` // bytes added to the repository
	Unread   []string      `json:"unread,omitempty"`

	Committed time.Time `json:"-"` // when the new snapshot was durable there
}

// Push stores the volume as an archive at a remote.
//
// Several remotes can be pushed to at once where the volume has btrfs snapshots:
// other work on the volume has to wait only while a snapshot is taken and while
// it is noted what became of it, not while anything is sent. A plain directory
// is locked from its first file to its last.
//
// Errors: snapshot.ErrRefused when the remote has snapshots that this volume
// has never seen, or belongs to another volume; snapshot.ErrLocked,
// snapshot.ErrUnreachable and snapshot.ErrKey as everywhere. When some files
// could not be read, the rest is pushed and the error is an *UnreadError.
func (v *Volume) Push(ctx context.Context, o PushOptions) (*PushResult, error) {
	result, err := v.push(ctx, o)
	if errors.Is(err, errOutdated) {
		result, err = v.push(ctx, o)
	}
	return result, err
}

// unread notes a path that could not be read.
func (r *PushResult) unread(p string, err error, report Reporter) {
	text := p + ": " + reason(err).Error()
	r.Unread = append(r.Unread, text)
	report.warn("%s", text)
}

// unreadError is the error of a push that went well but for what it could not read.
func (r *PushResult) unreadError() error {
	if len(r.Unread) == 0 {
		return nil
	}
	return &UnreadError{Count: len(r.Unread)}
}

// UnreadError says that a push went through without some paths.
type UnreadError struct{ Count int }

func (e *UnreadError) Error() string {
	return fmt.Sprintf("%d path(s) could not be read; everything else was pushed", e.Count)
}
