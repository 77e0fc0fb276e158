package index

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/mattn/go-sqlite3"
)

// conn is one sqlite connection with its prepared statements, for one
// goroutine at a time. It uses the driver without database/sql, whose
// bookkeeping costs more than a look-up does.
type conn struct {
	c     *sqlite3.SQLiteConn
	stmts map[string]*sqlite3.SQLiteStmt
}

// busyStep is how long sqlite itself waits for a lock; longer waits are ours,
// in [conn.begin], because they must end with the context.
const busyStep = 200 * time.Millisecond

// openConn connects to the existing database file. cacheKiB bounds the page
// cache.
func openConn(path string, readOnly bool, cacheKiB int) (*conn, error) {
	query := url.Values{
		"mode":          {"rw"},
		"_busy_timeout": {fmt.Sprint(busyStep.Milliseconds())},
		"_cache_size":   {fmt.Sprint(-cacheKiB)},
		"_query_only":   {fmt.Sprint(readOnly)},
		"_mutex":        {"no"},
		"_synchronous":  {"NORMAL"},
	}
	escape := strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23")
	c, err := (&sqlite3.SQLiteDriver{}).Open("file:" + escape.Replace(path) + "?" + query.Encode())
	if err != nil {
		return nil, err
	}
	return &conn{c: c.(*sqlite3.SQLiteConn), stmts: map[string]*sqlite3.SQLiteStmt{}}, nil
}

func (c *conn) close() error {
	var errs []error
	for _, s := range c.stmts {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, c.c.Close())...)
}

func (c *conn) prepare(query string) (*sqlite3.SQLiteStmt, error) {
	if s, ok := c.stmts[query]; ok {
		return s, nil
	}
	s, err := c.c.Prepare(query)
	if err != nil {
		return nil, err
	}
	stmt := s.(*sqlite3.SQLiteStmt)
	c.stmts[query] = stmt
	return stmt, nil
}

// exec runs one prepared statement and tells how many rows it changed.
func (c *conn) exec(query string, args ...driver.Value) (int64, error) {
	s, err := c.prepare(query)
	if err != nil {
		return 0, err
	}
	res, err := s.Exec(args)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// script runs statements that are not worth preparing.
func (c *conn) script(sql string) error {
	_, err := c.c.Exec(sql, nil)
	return err
}

// query calls each with every row of a prepared statement. The row is reused
// between calls; blobs in it are not.
func (c *conn) query(query string, args []driver.Value, each func(row []driver.Value) error) error {
	s, err := c.prepare(query)
	if err != nil {
		return err
	}
	rows, err := s.Query(args)
	if err != nil {
		return err
	}
	row := make([]driver.Value, len(rows.Columns()))
	for {
		err := rows.Next(row)
		if err == nil {
			err = each(row)
		}
		if errors.Is(err, io.EOF) {
			return rows.Close()
		}
		if err != nil {
			return errors.Join(err, rows.Close())
		}
	}
}

// integer gives the single integer that a statement yields; ok is false when
// there is no row or it is NULL.
func (c *conn) integer(query string, args ...driver.Value) (n int64, ok bool, err error) {
	err = c.query(query, args, func(row []driver.Value) error {
		n, ok = row[0].(int64)
		return nil
	})
	return n, ok, err
}

// begin starts a write transaction and waits for its turn until ctx ends.
func (c *conn) begin(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := c.exec("BEGIN IMMEDIATE"); !isBusy(err) {
			return err
		}
	}
}

func (c *conn) rollback() error {
	if c.c.AutoCommit() {
		return nil // sqlite has done so itself, as when the disk is full
	}
	_, err := c.exec("ROLLBACK")
	return err
}

func isBusy(err error) bool {
	e, ok := errors.AsType[sqlite3.Error](err)
	return ok && (e.Code == sqlite3.ErrBusy || e.Code == sqlite3.ErrLocked)
}

// isCorrupt tells an unusable database from every other failure.
func isCorrupt(err error) bool {
	e, ok := errors.AsType[sqlite3.Error](err)
	return ok && (e.Code == sqlite3.ErrCorrupt || e.Code == sqlite3.ErrNotADB)
}
