package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/fault"
	"github.com/s4-storage/s4/borgio/internal/lock"
)

// CreateOptions say what a new repository is like.
type CreateOptions struct {
	ID           [32]byte
	AppendOnly   bool
	StorageQuota int64                       // bytes; 0: none
	MakeParents  bool                        // make the directories above it where they are missing
	Environ      func(string) (string, bool) // for the lock
	Logger       *slog.Logger
}

// readme tells that a directory is a repository; Borg too looks for its first words.
const readme = `This is a Borg Backup repository.
See https://borgbackup.readthedocs.io/
`

const configFormat = `[repository]
version = 1
segments_per_dir = 1000
max_segment_size = 524288000
append_only = %d
storage_quota = %d
additional_free_space = 0
id = %x

`

// Making is the first transaction on a new repository. With its commit the
// repository is there; killed before that, or rolled back, it never was: it is
// made in a hidden directory beside its place, and moved there after the commit.
// Only a directory that is there already is filled where it is, since its parent
// may be closed to its owner, or another file system. What a making that is killed
// leaves in it is [fault.ErrUnfinished] to [Open], and the next one begins anew.
type Making struct {
	*Writer
	dir  string
	tmp  string   // where it is made; "": in dir
	live *os.File // tmp, locked while somebody is at work in it
	over bool
}

// Create begins to make a repository at a path where nothing is, an empty directory,
// or a repository that was begun and never finished. What is read lies in the pool's
// buffers.
//
// Errors: [fault.ErrExists] when something is there or it would lie inside another
// repository; [fs.ErrNotExist] when there is no directory for it to be in;
// [fault.LockedError] when somebody else is making one there.
func Create(ctx context.Context, dir string, o CreateOptions, pool *buffer.Pool) (*Making, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	there, err := checkVacant(dir)
	if err != nil {
		return nil, err
	}
	m := &Making{dir: dir}
	if there {
		err = m.inPlace(ctx, o, pool)
	} else {
		err = m.beside(ctx, o, pool)
	}
	if err != nil {
		return nil, spaceError(err)
	}
	return m, nil
}

// beside begins in a hidden directory.
func (m *Making) beside(ctx context.Context, o CreateOptions, pool *buffer.Pool) error {
	parent := filepath.Dir(m.dir)
	if o.MakeParents {
		if err := os.MkdirAll(parent, 0o700); err != nil {
			return err
		}
	}
	sweep(m.dir, o.Logger)
	for m.live == nil { // another's sweep may come in between
		var err error
		if m.tmp, err = os.MkdirTemp(parent, hiddenName(m.dir, "*")); err != nil {
			return err
		}
		m.live, _ = enter(m.tmp)
	}
	err := fill(m.tmp, o)
	if err == nil {
		var l *lock.Lock
		if l, err = lock.Exclusive(ctx, m.tmp, lock.Options{Environ: o.Environ, Logger: o.Logger}); err == nil {
			err = m.begin(ctx, m.tmp, l, o, pool)
		}
	}
	if err != nil {
		return errors.Join(err, m.remove())
	}
	return nil
}

// inPlace begins in the directory itself, in place of what is left there.
func (m *Making) inPlace(ctx context.Context, o CreateOptions, pool *buffer.Pool) error {
	l, err := claim(ctx, m.dir, o)
	if err != nil {
		return err
	}
	if err = clearOut(m.dir); err == nil {
		err = fill(m.dir, o)
	}
	if err != nil {
		return errors.Join(err, giveUp(m.dir, l))
	}
	if err := m.begin(ctx, m.dir, l, o, pool); err != nil {
		return errors.Join(err, m.remove())
	}
	return nil
}

// begin begins the transaction under a lock, which it gives back if it fails.
func (m *Making) begin(ctx context.Context, dir string, l *lock.Lock, o CreateOptions, pool *buffer.Pool) error {
	repo, err := Open(ctx, dir, pool, o.Logger)
	if err != nil {
		return errors.Join(err, l.Release())
	}
	if m.Writer, err = repo.begin(ctx, l); err != nil {
		return errors.Join(err, repo.Close())
	}
	return nil
}

// Commit makes all that was put durable, and the repository appear. Where it fails
// there is none, unless the error is [fault.ErrUnknown].
//
// Errors: those of [Writer.Put], and [fault.ErrExists] when something is there now.
func (m *Making) Commit(ctx context.Context) error {
	if m.over {
		return fault.ErrClosed
	}
	if m.out.number == m.first && m.out.file == nil { // nothing was put: nothing is made
		return m.Rollback()
	}
	m.over = true
	err := m.Writer.Commit(ctx)
	if err == nil && m.tmp != "" {
		err = m.move()
	}
	if err != nil && !errors.Is(err, fault.ErrUnknown) {
		return errors.Join(err, m.remove())
	}
	return errors.Join(err, m.close())
}

// Rollback removes all that was made. After Commit it does nothing.
func (m *Making) Rollback() error {
	if m.over {
		return nil
	}
	m.over = true
	return errors.Join(m.Writer.Rollback(), m.remove())
}

// move puts the repository in its place.
func (m *Making) move() error {
	err := unix.Renameat2(unix.AT_FDCWD, m.tmp, unix.AT_FDCWD, m.dir, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) { // a file system that knows no flags
		err = unix.Rename(m.tmp, m.dir)
	}
	switch {
	case errors.Is(err, unix.EEXIST), errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("%w: %s", fault.ErrExists, m.dir)
	case err != nil:
		return spaceError(&fs.PathError{Op: "rename", Path: m.tmp, Err: err})
	}
	if err := syncDir(filepath.Dir(m.dir)); err != nil {
		return fmt.Errorf("%w: %w", fault.ErrUnknown, err)
	}
	return nil
}

// remove takes away what was made, and is not committed.
func (m *Making) remove() (err error) {
	if m.tmp != "" {
		err = os.RemoveAll(m.tmp)
	} else if l, cerr := claim(context.Background(), m.dir, CreateOptions{Environ: os.LookupEnv, Logger: slog.New(slog.DiscardHandler)}); cerr == nil {
		err = giveUp(m.dir, l)
	} // else somebody else has it
	return errors.Join(err, m.close())
}

func (m *Making) close() (err error) {
	if m.Writer != nil {
		err = m.repo.Close()
	}
	if m.live != nil {
		err = errors.Join(err, m.live.Close())
	}
	return err
}

// fill makes a repository of an empty directory. The configuration comes last:
// without one it is no repository. What it is to be is to be seen from the first.
func fill(dir string, o CreateOptions) error {
	if err := replaceFile(filepath.Join(dir, "README"), []byte(readme), 0o600); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o700); err != nil {
		return err
	}
	appendOnly := 0
	if o.AppendOnly {
		appendOnly = 1
	}
	return replaceFile(filepath.Join(dir, "config"), fmt.Appendf(nil, configFormat, appendOnly, o.StorageQuota, o.ID), 0o600)
}

// checkVacant makes sure that a repository may be made at dir: nothing is there, or
// an empty directory, or what a making left there; and none of the directories above
// is a repository, whose files Borg might take for its own.
func checkVacant(dir string) (there bool, err error) {
	left, err := leftIn(dir, false)
	switch {
	case err == nil && !left.vacant && !left.begun():
		return false, fmt.Errorf("%w: %s", fault.ErrExists, dir)
	case err == nil:
		there = true
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return false, fmt.Errorf("%w: %s", fault.ErrExists, dir)
	case !errors.Is(err, fs.ErrNotExist):
		return false, err
	}
	for dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
		if isRepository(dir) {
			return false, fmt.Errorf("%w: %s is a repository", fault.ErrExists, dir)
		}
	}
	return there, nil
}

// isRepository tells by the README, as Borg does.
func isRepository(dir string) bool {
	f, _, err := openRegular(filepath.Join(dir, "README"))
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, 100)
	n, _ := io.ReadFull(f, head)
	return bytes.Contains(head[:n], []byte("Borg Backup repository")) || bytes.Contains(head[:n], []byte("Borg repository"))
}
