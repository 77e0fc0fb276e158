package history

import (
	"context"
	"errors"
	"io"
	"regexp"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/snapshot"
)

// classified is an error with what a person can do about it.
type classified struct {
	error
	class error
}

func (c classified) Unwrap() []error { return []error{c.error, c.class} }

// classify adds to borgio's errors the sentinels of package snapshot.
func classify(err error) error {
	for _, class := range []struct{ from, to error }{
		{borgio.ErrUnreachable, snapshot.ErrUnreachable},
		{borgio.ErrLocked, snapshot.ErrLocked},
		{borgio.ErrPassphrase, snapshot.ErrKey},
		{borgio.ErrNoPassphrase, snapshot.ErrKey},
		{borgio.ErrKeyMissing, snapshot.ErrKey},
		{borgio.ErrKeyMismatch, snapshot.ErrKey},
		{borgio.ErrKeyDamaged, snapshot.ErrKey},
		{borgio.ErrKeyKind, snapshot.ErrKey},
		{borgio.ErrIntegrity, snapshot.ErrDamaged},
	} {
		if errors.Is(err, class.from) && !errors.Is(err, class.to) {
			return classified{err, class.to}
		}
	}
	return err
}

func isDamage(err error) bool { return errors.Is(err, snapshot.ErrDamaged) }

// borgFile is a file's content with errors in snapshot's words.
type borgFile struct{ f *borgio.File }

var (
	_ snapshot.File   = borgFile{}
	_ snapshot.Viewer = borgFile{}
)

func (b borgFile) Size() int64  { return b.f.Size() }
func (b borgFile) Close() error { return b.f.Close() }

func (b borgFile) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := b.f.ReadAtContext(ctx, p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		err = classify(err)
	}
	return n, err
}

func (b borgFile) View(ctx context.Context, off int64, n int) (snapshot.View, error) {
	v, err := b.f.View(ctx, off, n)
	if err != nil {
		v.Release()
		if !errors.Is(err, io.EOF) {
			err = classify(err)
		}
		return snapshot.View{}, err
	}
	return snapshot.View{Parts: v.Parts, Release: v.Release}, nil
}

func (b borgFile) WriteTo(w io.Writer) (int64, error) {
	n, err := b.f.WriteTo(w)
	return n, classify(err)
}

// variable finds what differs in the names of archives of one series: UUIDs,
// long hexadecimal numbers, dates, times, numbers.
var variable = regexp.MustCompile(`[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}|[0-9a-fA-F]{16,}|[-_:. ]*[0-9][-0-9TZ:._+ ]*`)

// seriesOf names the tree that an archive shows one state of: the volume, or
// else the host and what of the archive's name stays the same.
func seriesOf(i snapshot.Info) string {
	if i.Volume != "" {
		return "volume:" + i.Volume
	}
	return i.Host + ":" + variable.ReplaceAllString(i.Name, "#")
}
