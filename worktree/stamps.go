package worktree

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/mattn/go-sqlite3"

	"github.com/s4-storage/s4/snapshot"
)

// Stamp vouches that a path, while it has this inode and ctime, is the
// snapshot's entry with this fingerprint.
type Stamp struct {
	Path  string
	Ino   uint64
	Ctime int64  // ns
	Of    uint64 // see [Fingerprint]
}

// NewStamp vouches that l, as it was seen, is e: right after a push that read
// it, for example.
func NewStamp(l Live, e snapshot.Entry) Stamp {
	return Stamp{Path: l.Path, Ino: l.Ino, Ctime: l.Ctime, Of: Fingerprint(e)}
}

// vouches tells whether the stamp says that l is e. None says nothing.
func (s *Stamp) vouches(l *Live, e *snapshot.Entry) bool {
	return s != nil && s.Ino == l.Ino && s.Ctime == l.Ctime && s.Of == Fingerprint(*e)
}

// Fingerprint is a hash of everything an entry says about a file except its
// name, its links and what only helps to find it: equal for one version of a
// file in whatever index.
func Fingerprint(e snapshot.Entry) uint64 {
	b := make([]byte, 0, 128)
	for _, n := range [...]uint64{
		uint64(e.Mode), uint64(e.UID), uint64(e.GID), uint64(e.Size), e.Rdev,
		uint64(e.Mtime), uint64(e.Ctime), uint64(e.Flags), uint64(len(e.Target)),
	} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	b = append(b, e.Target...)
	for _, x := range e.Xattrs {
		b = binary.AppendUvarint(b, uint64(len(x.Name)))
		b = append(b, x.Name...)
		b = binary.AppendUvarint(b, uint64(len(x.Value)))
		b = append(b, x.Value...)
	}
	return xxhash.Sum64(b)
}

// Stamps is the database of one working tree's stamps: a small sqlite file.
// Its keys are paths with "/" replaced by NUL, which no path holds, so that
// sqlite's bytewise order is the order of walks.
type Stamps struct{ db *sql.DB }

const (
	stampsApplication = 0x73345354 // "s4ST"
	stampsVersion     = 1
	stampsSchema      = `CREATE TABLE stamp (
		path  BLOB PRIMARY KEY,
		ino   INTEGER NOT NULL,
		ctime INTEGER NOT NULL,
		of    INTEGER NOT NULL
	) WITHOUT ROWID`
)

var errNotStamps = errors.New("not a database of stamps that this version knows")

// OpenStamps opens or makes the database at path, mode 0600. One that is
// broken, or made by a newer version, is set aside and a new one begun: then
// files are compared by content once more. A nil log discards.
func OpenStamps(ctx context.Context, path string, log *slog.Logger) (*Stamps, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s, err := openStamps(ctx, path)
	if err == nil || !isForeign(err) {
		return s, err
	}
	aside := path + ".broken-" + time.Now().UTC().Format("20060102T150405.000")
	log.Warn("database of stamps set aside, files will be compared by content", "path", path, "aside", aside, "reason", err)
	if err := os.Rename(path, aside); err != nil {
		return nil, fmt.Errorf("set stamps aside: %w", err)
	}
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("set stamps aside: %w", err)
		}
	}
	return openStamps(ctx, path)
}

func isForeign(err error) bool {
	if errors.Is(err, errNotStamps) {
		return true
	}
	e, ok := errors.AsType[sqlite3.Error](err)
	return ok && (e.Code == sqlite3.ErrCorrupt || e.Code == sqlite3.ErrNotADB)
}

func openStamps(ctx context.Context, path string) (_ *Stamps, err error) {
	// sqlite would create the file with the umask's mode.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open stamps: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("open stamps: %w", err)
	}
	db, err := sql.Open("sqlite3", "file:"+(&url.URL{Path: path}).EscapedPath()+
		"?_busy_timeout=60000&_journal_mode=WAL&_synchronous=NORMAL&_txlock=immediate")
	if err != nil {
		return nil, fmt.Errorf("open stamps: %w", err)
	}
	s := &Stamps{db}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open stamps: %w", err), db.Close())
	}
	return s, nil
}

func (s *Stamps) prepare(ctx context.Context) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // fails after Commit, and means nothing then
	var application, version, tables int
	for pragma, into := range map[string]*int{
		"PRAGMA application_id":              &application,
		"PRAGMA user_version":                &version,
		"SELECT count(*) FROM sqlite_schema": &tables,
	} {
		if err := tx.QueryRowContext(ctx, pragma).Scan(into); err != nil {
			return err
		}
	}
	if tables > 0 {
		if application != stampsApplication || version != stampsVersion {
			return errNotStamps
		}
		return nil
	}
	for _, stmt := range []string{
		stampsSchema,
		fmt.Sprintf("PRAGMA application_id = %d", stampsApplication),
		fmt.Sprintf("PRAGMA user_version = %d", stampsVersion),
	} {
		if _, err := tx.ExecContext(ctx, stmt); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// Close closes the database.
func (s *Stamps) Close() error { return s.db.Close() }

// Put records stamps, each replacing its path's old one, in one transaction.
func (s *Stamps) Put(ctx context.Context, stamps []Stamp) error {
	if len(stamps) == 0 {
		return nil
	}
	return s.change(ctx, "INSERT OR REPLACE INTO stamp (path, ino, ctime, of) VALUES (?, ?, ?, ?)", func(stmt *sql.Stmt) error {
		for _, t := range stamps {
			if _, err := stmt.ExecContext(ctx, stampKey(t.Path), int64(t.Ino), t.Ctime, int64(t.Of)); err != nil {
				return err
			}
		}
		return nil
	})
}

// Forget drops the stamps of paths.
func (s *Stamps) Forget(ctx context.Context, paths []string) error {
	if len(paths) == 0 {
		return nil
	}
	return s.change(ctx, "DELETE FROM stamp WHERE path = ?", func(stmt *sql.Stmt) error {
		for _, p := range paths {
			if _, err := stmt.ExecContext(ctx, stampKey(p)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Stamps) change(ctx context.Context, query string, run func(*sql.Stmt) error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("record stamps: %w", err)
		}
	}()
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // fails after Commit, and means nothing then
	stmt, err := tx.PrepareContext(ctx, query)
	if err != nil {
		return err
	}
	if err := errors.Join(run(stmt), stmt.Close()); err != nil {
		return err
	}
	return tx.Commit()
}

// All yields the stamps of path and of everything below it, in walk order.
func (s *Stamps) All(ctx context.Context, path string) iter.Seq2[Stamp, error] {
	return func(yield func(Stamp, error) bool) {
		query, args := "SELECT path, ino, ctime, of FROM stamp ORDER BY path", []any(nil)
		if path != "" {
			key := stampKey(path)
			query = "SELECT path, ino, ctime, of FROM stamp WHERE path = ? OR (path > ? AND path < ?) ORDER BY path"
			args = []any{key, append(key, 0), append(stampKey(path), 1)}
		}
		rows, err := s.db.QueryContext(ctx, query, args...)
		if err != nil {
			yield(Stamp{}, fmt.Errorf("read stamps: %w", err))
			return
		}
		defer func() { _ = rows.Close() }() // rows.Err tells all
		for rows.Next() {
			var key sql.RawBytes
			var t Stamp
			var of int64
			var ino int64
			if err := rows.Scan(&key, &ino, &t.Ctime, &of); err != nil {
				yield(Stamp{}, fmt.Errorf("read stamps: %w", err))
				return
			}
			t.Path, t.Ino, t.Of = strings.ReplaceAll(string(key), "\x00", "/"), uint64(ino), uint64(of)
			if !yield(t, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(Stamp{}, fmt.Errorf("read stamps: %w", err))
		}
	}
}

func stampKey(path string) []byte {
	return append(make([]byte, 0, len(path)+1), strings.ReplaceAll(path, "/", "\x00")...)
}
