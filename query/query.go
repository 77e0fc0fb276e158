// Package query answers questions about the past of a tree: when a path was what
// (log), what differs (diff), where something is or was (find, deleted), and what
// takes the space (du).
//
// Answers come from the index alone, for all that is indexed. Who asks about all
// of time fills the index first. Contents are read for patches only, and where a
// live file was touched.
package query

import (
	"context"
	"errors"
	"io/fs"
	"strings"

	"github.com/s4-storage/s4/history"
	"github.com/s4-storage/s4/index"
	"github.com/s4-storage/s4/internal/pathspec"
	"github.com/s4-storage/s4/snapshot"
)

// Past is a time line, and the index that it is told from.
type Past struct {
	*history.History
	Index *index.Index
}

// Prepare indexes one snapshot before all others. Note hears a line where that
// is to be done; it may be nil.
func (p Past) Prepare(ctx context.Context, s *snapshot.Info, note func(text string)) error {
	if s.Indexed {
		return nil
	}
	if note != nil {
		note("Reading the names of " + s.Name)
	}
	err := p.Ensure(ctx, s.Num)
	s.Indexed = err == nil
	return err
}

// Has tells whether a snapshot is known to have something at path.
func (p Past) Has(ctx context.Context, s snapshot.Info, path string) bool {
	_, err := p.Find(ctx, s.Num, path)
	return err == nil
}

// Matching lists what patterns mean in a snapshot, without what is below that.
func (p Past) Matching(ctx context.Context, s snapshot.Info, set *pathspec.Set) (paths []string, err error) {
	roots := set.Roots()
	if roots == nil {
		roots = []string{""}
	}
	last := ""
	for _, root := range roots {
		for n, err := range p.Walk(ctx, s.Num, root) {
			if errors.Is(err, fs.ErrNotExist) {
				break
			}
			if err != nil {
				return nil, err
			}
			below := last != "" && strings.HasPrefix(n.Path, last+"/")
			if n.Path != "" && !below && set.Match(n.Path) {
				paths = append(paths, n.Path)
				last = n.Path
			}
		}
	}
	return paths, nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// cutPath gives path as seen from dir, if it is dir or below it.
func cutPath(path, dir string) (below string, ok bool) {
	switch {
	case dir == "":
		return path, true
	case path == dir:
		return "", true
	}
	return strings.CutPrefix(path, dir+"/")
}
