package query

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/history"
	"github.com/s4-storage/s4/snapshot"
)

// UsageOptions say what is summed up.
type UsageOptions struct {
	Path  string // a directory; "" is everything
	At    string // TIME; only what this snapshot added
	Since string // TIME; only what snapshots from then on added
	Until string // TIME; likewise
	Depth int    // levels of directories below Path; 0 is Path alone
}

// Usage tells what the repositories of a time line hold: bytes as they are
// stored, once however many files have them, before compression.
type Usage struct {
	Snapshots []SnapshotUsage  // newest first, on the time line
	Dirs      []DirectoryUsage // Path and what is below it, the largest first
}

// SnapshotUsage is what one snapshot brought.
type SnapshotUsage struct {
	snapshot.Info
	Added int64 // bytes that no earlier snapshot of the repository has
	Only  int64 // bytes of them that no later one has, either
}

// DirectoryUsage is what the snapshots brought in one directory and all below it.
type DirectoryUsage struct {
	Path        string
	Added, Only int64
}

// Usage sums up which snapshots and directories added how much, as far as it
// is indexed. What several files hold counts for one of them. A path that no
// snapshot has is fs.ErrNotExist.
func (p Past) Usage(ctx context.Context, o UsageOptions) (*Usage, error) {
	line, err := p.usageLine(ctx, o)
	if err != nil {
		return nil, err
	}
	if o.Path != "" {
		if err := p.wasDirectory(ctx, o.Path); err != nil {
			return nil, err
		}
	}
	out := &Usage{Snapshots: make([]SnapshotUsage, len(line))}
	places := map[int64]int{}
	var sources []string
	for i, s := range line {
		place := len(line) - 1 - i
		out.Snapshots[place].Info = s
		places[s.Num] = place
		if !slices.Contains(sources, s.Source) {
			sources = append(sources, s.Source)
		}
	}
	dirs := map[string]*DirectoryUsage{}
	for _, source := range sources {
		sums, err := p.Index.Usage(ctx, source)
		if err != nil {
			return nil, err
		}
		for _, u := range sums {
			place, ok := places[u.Snapshot]
			below, inside := cutPath(u.Dir, o.Path)
			if !ok || !inside {
				continue
			}
			out.Snapshots[place].Added += u.Added
			out.Snapshots[place].Only += u.Only
			for _, dir := range levels(o.Path, below, o.Depth) {
				d := dirs[dir]
				if d == nil {
					d = &DirectoryUsage{Path: dir}
					dirs[dir] = d
				}
				d.Added += u.Added
				d.Only += u.Only
			}
		}
	}
	for _, d := range dirs {
		out.Dirs = append(out.Dirs, *d)
	}
	slices.SortFunc(out.Dirs, func(a, b DirectoryUsage) int {
		return cmp.Or(cmp.Compare(b.Added, a.Added), cmp.Compare(a.Path, b.Path))
	})
	return out, nil
}

// CompleteCopies indexes the snapshots that the time line shows from another
// repository than the one asked for, without which one cannot tell what a
// repository's other snapshots added. It gives how many could not be indexed,
// and why. Note hears a line for each; it may be nil.
func (p Past) CompleteCopies(ctx context.Context, note func(string)) (missing int, why error) {
	line, err := p.Timeline(ctx)
	if err != nil {
		return 0, err
	}
	shown := map[int64]bool{}
	sources := map[string]bool{}
	for _, s := range line {
		shown[s.Num], sources[s.Source] = true, true
	}
	known, err := p.Index.Snapshots(ctx, "")
	if err != nil {
		return 0, err
	}
	for _, s := range slices.Backward(known) {
		if s.Indexed || shown[s.Num] || !sources[s.Source] {
			continue
		}
		if err := p.Prepare(ctx, &s, note); err != nil {
			if ctx.Err() != nil {
				return 0, err
			}
			missing++
			why = cmp.Or(why, err)
		}
	}
	return missing, why
}

// wasDirectory gives an error where the path never was a directory.
func (p Past) wasDirectory(ctx context.Context, path string) error {
	traces, err := p.Trace(ctx, path)
	if err != nil {
		return err
	}
	for _, t := range traces {
		if slices.ContainsFunc(t.Versions, func(v history.Version) bool { return v.Mode&unix.S_IFMT == unix.S_IFDIR }) {
			return nil
		}
	}
	return fmt.Errorf("%w: %s is no directory", snapshot.ErrUsage, path)
}

// usageLine is the part of the time line that is asked for.
func (p Past) usageLine(ctx context.Context, o UsageOptions) ([]snapshot.Info, error) {
	if o.At == "" {
		return p.Between(ctx, o.Since, o.Until)
	}
	s, err := p.Resolve(ctx, o.At)
	return []snapshot.Info{s}, err
}

// levels are the directory at top and those on the way down, at most depth.
func levels(top, below string, depth int) []string {
	all := []string{top}
	for range depth {
		if below == "" {
			break
		}
		var name string
		name, below, _ = strings.Cut(below, "/")
		if top != "" {
			name = top + "/" + name
		}
		top = name
		all = append(all, top)
	}
	return all
}
