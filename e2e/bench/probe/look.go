package probe

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/snapshot"
)

// Look asks how long single questions take, once everything is indexed and
// in memory. What is empty is not asked.
type Look struct {
	Repository string `json:"repository"`
	Index      string `json:"index"` // made by Ingest
	// Moments are TIMEs of which each has all of Paths.
	Moments []string `json:"moments"`
	Paths   []string `json:"paths"`
	// Directory has that many entries in the newest snapshot.
	Directory string `json:"directory"`
	Entries   int    `json:"entries"`
	// Path has that many versions.
	Path     string `json:"path"`
	Versions int    `json:"versions"`
	// Changed[i] says how many paths, directories not counted, differ between
	// snapshots i and i+1.
	Changed []int `json:"changed"`
}

// LookAnswer has medians in seconds; 0 for what was not asked.
type LookAnswer struct {
	Resolve   float64 `json:"resolve"` // TIME:PATH to metadata
	Directory float64 `json:"directory"`
	Versions  float64 `json:"versions"`
	Changes   float64 `json:"changes"`
}

func look(ctx context.Context, q Look) (a LookAnswer, err error) {
	t, err := openTimeline(ctx, q.Repository, q.Index)
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	line, err := t.history.Timeline(ctx)
	if err != nil {
		return a, err
	}
	for _, ask := range []struct {
		wanted bool
		do     func(context.Context, *timeline, []snapshot.Info) error
	}{
		{len(q.Moments) > 0, func(ctx context.Context, t *timeline, _ []snapshot.Info) (err error) {
			a.Resolve, err = q.resolve(ctx, t)
			return err
		}},
		{q.Entries > 0, func(ctx context.Context, t *timeline, line []snapshot.Info) (err error) {
			a.Directory, err = q.directory(ctx, t, line[len(line)-1].Num)
			return err
		}},
		{q.Versions > 0, func(ctx context.Context, t *timeline, line []snapshot.Info) (err error) {
			a.Versions, err = q.versions(ctx, t, line[len(line)-1].Num)
			return err
		}},
		{len(q.Changed) > 0, func(ctx context.Context, t *timeline, line []snapshot.Info) (err error) {
			a.Changes, err = q.changes(ctx, t, line)
			return err
		}},
	} {
		if ask.wanted {
			if err := ask.do(ctx, t, line); err != nil {
				return a, err
			}
		}
	}
	return a, nil
}

// How often each question is asked.
const (
	manyTimes = 2000
	someTimes = 300
)

func (q Look) resolve(ctx context.Context, t *timeline) (float64, error) {
	return median(manyTimes, func(i int) error {
		s, err := t.history.Resolve(ctx, q.Moments[i%len(q.Moments)])
		if err != nil {
			return err
		}
		path := q.Paths[i%len(q.Paths)]
		e, err := t.history.Find(ctx, s.Num, path)
		if err == nil && e.Mode&unix.S_IFMT != unix.S_IFREG {
			err = fmt.Errorf("%s is no file", path)
		}
		return err
	})
}

func (q Look) directory(ctx context.Context, t *timeline, num int64) (float64, error) {
	dir, err := t.history.Find(ctx, num, q.Directory)
	if err != nil {
		return 0, err
	}
	return median(someTimes, func(int) error {
		got, err := t.history.List(ctx, num, dir.Dir, "", q.Entries+1)
		if err == nil && len(got) != q.Entries {
			err = fmt.Errorf("%s has %d entries instead of %d", q.Directory, len(got), q.Entries)
		}
		return err
	})
}

func (q Look) versions(ctx context.Context, t *timeline, num int64) (float64, error) {
	return median(someTimes, func(int) error {
		got, err := t.history.Versions(ctx, num, q.Path)
		if err == nil && len(got) != q.Versions {
			err = fmt.Errorf("%s has %d versions instead of %d", q.Path, len(got), q.Versions)
		}
		return err
	})
}

func (q Look) changes(ctx context.Context, t *timeline, line []snapshot.Info) (float64, error) {
	if len(line) != len(q.Changed)+1 {
		return 0, fmt.Errorf("%d snapshots instead of %d", len(line), len(q.Changed)+1)
	}
	return median(len(q.Changed), func(i int) error {
		n := 0
		for c, err := range t.history.Changes(ctx, line[i].Num, line[i+1].Num) {
			if err != nil {
				return err
			}
			if !isDir(c.Old) || !isDir(c.New) {
				n++
			}
		}
		if n != q.Changed[i] {
			return fmt.Errorf("%d changes between snapshots %d and %d instead of %d", n, i, i+1, q.Changed[i])
		}
		return nil
	})
}

// isDir also of what is not there.
func isDir(e *snapshot.Entry) bool { return e == nil || e.Mode&unix.S_IFMT == unix.S_IFDIR }
