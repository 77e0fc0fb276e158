package volume

import (
	"context"
	"fmt"

	"github.com/s4-storage/s4/history"
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

func indexing(f history.FillProgress) Progress {
	return Progress{Verb: fmt.Sprintf("indexing %d/%d", min(f.Done+1, f.Total), f.Total), Files: f.Items,
		Path: f.Snapshot.Name, Done: f.Done == f.Total}
}
