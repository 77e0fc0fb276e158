package probe

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/s4-storage/s4/history"
	"github.com/s4-storage/s4/snapshot"
)

func sources(all ...snapshot.Source) []snapshot.Source { return all }

// Items asks for all items of an archive.
type Items struct {
	Repository string `json:"repository"`
	Archive    string `json:"archive"`
}

// ItemsAnswer tells how much there was.
type ItemsAnswer struct {
	Items int64 `json:"items"`
	Bytes int64 `json:"bytes"` // of regular files
}

func items(ctx context.Context, q Items) (a ItemsAnswer, err error) {
	r, err := openRepository(ctx, q.Repository)
	if err != nil {
		return a, err
	}
	defer r.Close()
	m, err := r.Manifest(ctx)
	if err != nil {
		return a, err
	}
	for _, ref := range m.Archives {
		if ref.Name != q.Archive {
			continue
		}
		archive, err := r.Archive(ctx, ref.ID)
		if err != nil {
			return a, err
		}
		for it, err := range r.Items(ctx, archive) {
			if err != nil {
				return a, err
			}
			a.Items++
			a.Bytes += it.Size
		}
		return a, nil
	}
	return a, fmt.Errorf("no archive %s: %w", q.Archive, fs.ErrNotExist)
}

// Ingest asks to index a repository's archives into a new index file, one by
// one: the newest first, as s4 does.
type Ingest struct {
	Repository string `json:"repository"`
	Index      string `json:"index"`
}

// IngestAnswer tells what each archive took.
type IngestAnswer struct {
	First      Took   `json:"first"`
	Next       []Took `json:"next"`
	FirstBytes int64  `json:"firstBytes"` // of the index with one archive
	Bytes      int64  `json:"bytes"`      // with all
}

func ingest(ctx context.Context, q Ingest) (a IngestAnswer, err error) {
	if err := removeIndex(q.Index); err != nil {
		return a, err
	}
	for i, total := 0, 1; i < total; {
		// The file is looked at when the index is closed, as a whole.
		i, total, err = a.part(ctx, q, i)
		if err != nil {
			return a, err
		}
	}
	return a, nil
}

// part indexes the first archive, or all the others, and gives how many are
// indexed then.
func (a *IngestAnswer) part(ctx context.Context, q Ingest, begin int) (done, total int, err error) {
	t, err := openTimeline(ctx, q.Repository, q.Index)
	if err != nil {
		return 0, 0, err
	}
	line, err := t.history.Timeline(ctx)
	if err == nil && len(line) < 2 {
		err = errors.New("at least two archives are needed")
	}
	if err != nil {
		return 0, 0, errors.Join(err, t.close())
	}
	end := len(line)
	if begin == 0 {
		end = 1
	}
	for i := begin; i < end; i++ {
		c := startClock()
		if err := t.history.Ensure(ctx, line[len(line)-1-i].Num); err != nil {
			return 0, 0, errors.Join(err, t.close())
		}
		if took := c.took(); i == 0 {
			a.First = took
		} else {
			a.Next = append(a.Next, took)
		}
	}
	if err := t.close(); err != nil {
		return 0, 0, err
	}
	size, err := indexSize(q.Index)
	if begin == 0 {
		a.FirstBytes = size
	}
	a.Bytes = size
	return end, len(line), err
}

// Parts of an index on disk.
var indexParts = []string{"", "-wal", "-shm", ".lock"}

func removeIndex(path string) error {
	for _, suffix := range indexParts {
		if err := os.RemoveAll(path + suffix); err != nil {
			return err
		}
	}
	return nil
}

func indexSize(path string) (size int64, err error) {
	for _, suffix := range indexParts {
		switch info, err := os.Stat(path + suffix); {
		case err == nil:
			size += info.Size()
		case !errors.Is(err, fs.ErrNotExist):
			return 0, err
		}
	}
	return size, nil
}

// fill indexes all archives at one go, as s4 does in the background.
func fill(ctx context.Context, q Ingest) (took Took, err error) {
	if err := removeIndex(q.Index); err != nil {
		return took, err
	}
	c := startClock()
	t, err := openTimeline(ctx, q.Repository, q.Index)
	if err != nil {
		return took, err
	}
	if err := t.history.Fill(ctx, history.FillOptions{}); err != nil {
		return took, errors.Join(err, t.close())
	}
	err = t.close()
	return c.took(), err
}
