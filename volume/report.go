package volume

import (
	"context"
	"fmt"
	"slices"

	"github.com/s4-storage/s4/history"
	"github.com/s4-storage/s4/snapshot"
)

// Progress is how far a verb has come. Totals are 0 while unknown.
type Progress struct {
	Verb       string // "pushing", "indexing", …
	Files      int64
	TotalFiles int64
	Bytes      int64
	TotalBytes int64
	Path       string // the one it is at
	Done       bool   // the last of its verb
}

// Reporter hears what a verb has to say while it runs. Each may be nil.
type Reporter struct {
	Progress func(Progress)
	Note     func(text string) // one line of news
	Warn     func(text string) // one line about something that went wrong without ending the verb
}

func (r Reporter) progress(p Progress) {
	if r.Progress != nil {
		r.Progress(p)
	}
}

func (r Reporter) note(format string, args ...any) {
	if r.Note != nil {
		r.Note(fmt.Sprintf(format, args...))
	}
}

func (r Reporter) warn(format string, args ...any) {
	if r.Warn != nil {
		r.Warn(fmt.Sprintf(format, args...))
	}
}

// fill indexes every snapshot that is not yet, newest first.
func (p *Past) fill(ctx context.Context, report Reporter) error {
	return p.Fill(ctx, history.FillOptions{Progress: func(f history.FillProgress) {
		report.progress(indexing(f))
	}})
}

// Complete indexes what is not yet, so that questions about all of time have
// whole answers. It gives the snapshots that could not be indexed, and why. The
// error alone, without snapshots, is that it could not even be tried.
func (p *Past) Complete(ctx context.Context, report Reporter) (missing []snapshot.Info, err error) {
	line, err := p.Timeline(ctx)
	if err != nil || !slices.ContainsFunc(line, pending) {
		return nil, err
	}
	why := p.fill(ctx, report)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if line, err = p.Timeline(ctx); err != nil {
		return nil, err
	}
	for _, s := range line {
		if pending(s) {
			missing = append(missing, s)
		}
	}
	if len(missing) == 0 {
		return nil, nil // what failed is not on the time line any more
	}
	return missing, why
}

func pending(s snapshot.Info) bool { return !s.Indexed }

func indexing(f history.FillProgress) Progress {
	return Progress{Verb: fmt.Sprintf("indexing %d/%d", min(f.Done+1, f.Total), f.Total), Files: f.Items,
		Path: f.Snapshot.Name, Done: f.Done == f.Total}
}
