package query

import (
	"context"
	"iter"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/history"
	"github.com/s4-storage/s4/index"
	"github.com/s4-storage/s4/internal/pathspec"
	"github.com/s4-storage/s4/snapshot"
)

// FindOptions say what is looked for.
type FindOptions struct {
	Names   *pathspec.Names
	Type    uint32            // the type bits of st_mode; 0 is any
	At      string            // TIME; "" is all of time
	Since   string            // TIME; keeps to what was there, or with Deleted went, then or later
	Until   string            // TIME; likewise, then or earlier
	Deleted bool              // only what the newest snapshot lacks
	Note    func(text string) // hears a line of news; may be nil
}

// FindPaths finds paths by name over all of time, as far as it is indexed, in
// the order of directories. A trace has the versions of that type alone, and with
// At that one.
func (p Past) FindPaths(ctx context.Context, o FindOptions) iter.Seq2[history.Trace, error] {
	return func(yield func(history.Trace, error) bool) {
		in, err := p.window(ctx, o)
		if err != nil {
			yield(history.Trace{}, err)
			return
		}
		for t, err := range p.Traces(ctx, index.Search{Gone: o.Deleted, Parts: o.Names.Parts(), Match: o.Names.Match}) {
			if err != nil {
				yield(t, err)
				return
			}
			inside := func(v history.Version) bool {
				return slices.ContainsFunc(t.Line[v.From:v.To+1], func(s snapshot.Info) bool { return in[s.Num] })
			}
			switch {
			case in == nil:
			case o.Deleted && !in[t.Line[t.Newest().To+1].Num]:
				continue
			case o.At != "":
				t.Versions = slices.DeleteFunc(t.Versions, func(v history.Version) bool { return !inside(v) })
			}
			if o.Type != 0 {
				t.Versions = slices.DeleteFunc(t.Versions, func(v history.Version) bool { return v.Mode&unix.S_IFMT != o.Type })
			}
			if in != nil && !o.Deleted && !slices.ContainsFunc(t.Versions, inside) {
				continue
			}
			if len(t.Versions) > 0 && !yield(t, nil) {
				return
			}
		}
	}
}

// window is the numbers of the snapshots that are looked at; nil is all.
func (p Past) window(ctx context.Context, o FindOptions) (map[int64]bool, error) {
	var line []snapshot.Info
	switch {
	case o.At != "":
		s, err := p.Resolve(ctx, o.At)
		if err == nil {
			err = p.Prepare(ctx, &s, o.Note)
		}
		if err != nil {
			return nil, err
		}
		line = []snapshot.Info{s}
	case o.Since != "" || o.Until != "":
		var err error
		if line, err = p.Between(ctx, o.Since, o.Until); err != nil {
			return nil, err
		}
	default:
		return nil, nil
	}
	in := make(map[int64]bool, len(line))
	for _, s := range line {
		in[s.Num] = true
	}
	return in, nil
}
