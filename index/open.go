package index

import (
	"context"
	"database/sql/driver"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed sql/*.sql
var migrations embed.FS

const (
	applicationID = 0x73344978 // "s4Ix" in the file's header
	readers       = 4
	readCacheKiB  = 4 << 10
	writeCacheKiB = 4 << 10
)

// Index is an open catalogue. All methods are safe for concurrent use.
type Index struct {
	path string
	log  *slog.Logger

	write *pool         // of the one writer
	read  *pool         // of readers
	news  *pool         // of the connection that watches for commits of others
	done  chan struct{} // closed by Close

	closeOnce sync.Once
	closeErr  error

	// Of the writer:
	last     *inventory // of the snapshot added last
	lastSeen int64      // and its connection's data_version then
	spare    *inventory // memory for the next one

	ownerMu sync.RWMutex
	owners  map[uint64]owner
}

// ErrClosed is what every method answers after Close.
var ErrClosed = fmt.Errorf("index: %w", fs.ErrClosed)

// Open opens the catalogue in the file at path and makes it, mode 0600, where
// it is missing. A file that is damaged, of a newer s4, or no catalogue at all
// is renamed to path.broken-TIME with one line in the log, and a new one made.
// A nil log discards.
func Open(ctx context.Context, path string, log *slog.Logger) (*Index, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	x := &Index{
		path: path, log: log,
		read: newPool(readers), news: newPool(1),
		done:   make(chan struct{}),
		owners: map[uint64]owner{},
	}
	w, err := x.openOrReplace(ctx)
	if err != nil {
		return nil, fmt.Errorf("open index %s: %w", path, err)
	}
	x.write = newPool(1, w)
	return x, nil
}

// Close ends all connections, once the calls that use them have returned.
func (x *Index) Close() error {
	x.closeOnce.Do(func() {
		close(x.done)
		x.closeErr = errors.Join(x.write.close(), x.read.close(), x.news.close())
	})
	return x.closeErr
}

// openOrReplace gives a connection to a database of the current schema. A
// lock file keeps two processes from migrating or replacing it at once.
func (x *Index) openOrReplace(ctx context.Context) (*conn, error) {
	lock, err := os.OpenFile(x.path+".lock", os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	for {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, &os.PathError{Op: "flock", Path: lock.Name(), Err: err}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}

	if _, err := os.Lstat(x.suspect()); err == nil {
		if err := x.setAside("found damaged in use"); err != nil {
			return nil, err
		}
	}
	c, err := x.openCurrent(ctx)
	unusable, ok := errors.AsType[*unusableError](err)
	if !ok {
		return c, err
	}
	if err := x.setAside(unusable.why); err != nil {
		return nil, err
	}
	return x.openCurrent(ctx)
}

// unusableError says that the file cannot be worked with whatever one does.
type unusableError struct{ why string }

func (e *unusableError) Error() string { return e.why }

func (x *Index) openCurrent(ctx context.Context) (_ *conn, err error) {
	f, err := os.OpenFile(x.path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	f.Close()
	c, err := openConn(x.path, false, writeCacheKiB)
	if err == nil {
		err = migrate(ctx, c)
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}
	if isCorrupt(err) {
		return nil, &unusableError{"damaged: " + err.Error()}
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (x *Index) suspect() string { return x.path + ".suspect" }

// setAside renames the database and what sqlite keeps beside it.
func (x *Index) setAside(why string) error {
	suffix := ".broken-" + time.Now().UTC().Format("20060102T150405.000000")
	for _, beside := range []string{"", "-wal", "-shm"} {
		err := os.Rename(x.path+beside, x.path+suffix+beside)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set aside: %w", err)
		}
	}
	if err := os.Remove(x.suspect()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("set aside: %w", err)
	}
	x.log.Warn("index set aside and started anew", "path", x.path, "kept", x.path+suffix, "why", why)
	return nil
}

// note looks at an error on its way out: a database that turns out damaged is
// marked, so that the next Open replaces it.
func (x *Index) note(err error) error {
	if isCorrupt(err) {
		if f, e := os.OpenFile(x.suspect(), os.O_CREATE|os.O_WRONLY, 0o600); e == nil {
			f.Close()
		}
	}
	return err
}

// migrate brings the database to the newest schema, each step in a
// transaction of its own.
func migrate(ctx context.Context, c *conn) error {
	files, err := fs.Glob(migrations, "sql/*.sql") // sorted
	if err != nil {
		return err
	}
	pragma := func(name string) (int64, error) {
		n, _, err := c.integer("PRAGMA " + name)
		return n, err
	}
	app, err := pragma("application_id")
	if err != nil {
		return err
	}
	version, err := pragma("user_version")
	if err != nil {
		return err
	}
	tables, _, err := c.integer("SELECT count(*) FROM sqlite_schema")
	if err != nil {
		return err
	}
	switch {
	case app == 0 && version == 0 && tables == 0: // new
	case app != applicationID:
		return &unusableError{"not an index of s4"}
	case version > int64(len(files)):
		return &unusableError{fmt.Sprintf("schema %d is newer than this s4 knows (%d)", version, len(files))}
	}
	// The log is 16 MiB when it is carried over into the file, and afterwards:
	// many of the pages that one snapshot changes are changed by the next, too.
	if err := c.script("PRAGMA journal_mode = WAL; PRAGMA journal_size_limit = 16777216; PRAGMA wal_autocheckpoint = 4000"); err != nil {
		return err
	}
	for i, name := range files {
		if int64(i) < version {
			continue
		}
		sql, err := migrations.ReadFile(name)
		if err != nil {
			return err
		}
		if err := c.begin(ctx); err != nil {
			return err
		}
		err = c.script(fmt.Sprintf("%s;\nPRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT", sql, applicationID, i+1))
		if err != nil {
			return errors.Join(fmt.Errorf("migrate with %s: %w", name, err), c.rollback())
		}
	}
	return checkSchema(c)
}

// checkSchema sees that what the queries need is there and that sqlite can
// make sense of the tables' roots. Reading everything would take too long.
func checkSchema(c *conn) error {
	for _, table := range []string{"source", "chain", "snapshot", "owner", "dir", "version", "moved", "counter", "section"} {
		err := c.query("SELECT * FROM "+table+" LIMIT 1", nil, func([]driver.Value) error { return nil })
		if isCorrupt(err) {
			return err
		}
		if err != nil {
			return &unusableError{err.Error()}
		}
	}
	n, _, err := c.integer("SELECT count(*) FROM counter")
	if err == nil && n != 1 {
		return &unusableError{"counters are missing"}
	}
	return err
}

// take gets a connection out of a pool and opens it where it is not open yet.
func (x *Index) take(ctx context.Context, from *pool) (*conn, error) {
	select {
	case <-x.done:
		return nil, ErrClosed
	default:
	}
	select {
	case <-from.free:
	default: // to ask ctx for its end may cost more than a look-up
		select {
		case <-from.free:
		case <-x.done:
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	c := from.get()
	if c != nil {
		return c, nil
	}
	c, err := openConn(x.path, true, readCacheKiB)
	if err != nil {
		from.put(nil)
		return nil, x.note(err)
	}
	return c, nil
}

// reading runs f with a reader's connection.
func (x *Index) reading(ctx context.Context, f func(c *conn) error) error {
	c, err := x.take(ctx, x.read)
	if err != nil {
		return err
	}
	defer x.read.put(c)
	return x.note(f(c))
}

// consistently is reading where several statements must see one state.
func (x *Index) consistently(ctx context.Context, f func(c *conn) error) error {
	return x.reading(ctx, func(c *conn) error {
		if _, err := c.exec("BEGIN"); err != nil {
			return err
		}
		return errors.Join(f(c), c.rollback())
	})
}

// writing runs f in a transaction that is committed if f succeeds.
func (x *Index) writing(ctx context.Context, f func(c *conn) error) error {
	c, err := x.take(ctx, x.write)
	if err != nil {
		return err
	}
	defer x.write.put(c)
	if err := c.begin(ctx); err != nil {
		return x.note(err)
	}
	err = f(c)
	if err == nil {
		_, err = c.exec("COMMIT")
	}
	if err != nil {
		x.hold(nil, nil)
		return errors.Join(x.note(err), c.rollback())
	}
	return nil
}

// Relax forgets what is kept for the next snapshot to be added.
func (x *Index) Relax(ctx context.Context) {
	if c, err := x.take(ctx, x.write); err == nil {
		x.hold(nil, nil)
		x.write.put(c)
	}
}

// DataVersion gives a number that changes whenever any process, this one
// included, has committed a change. It is cheap: no page is read.
func (x *Index) DataVersion(ctx context.Context) (int64, error) {
	c, err := x.take(ctx, x.news)
	if err != nil {
		return 0, err
	}
	defer x.news.put(c)
	n, _, err := c.integer("PRAGMA data_version")
	return n, x.note(err)
}
