// Package probe measures, inside one process, what starting a process would
// hide: how long s4's packages take for a single look-up, or for one archive
// among thirty. The bench runs itself as a probe; a request comes as a file of
// JSON and the answer goes to stdout as JSON.
//
// What is found is compared with what the request says must be there: a figure
// for a wrong answer is an error.
package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/history"
	"github.com/s4-storage/s4/index"
)

// Word as the first argument makes the bench a probe.
const Word = "probe"

// Args are the arguments after the program's name for one probe.
func Args(kind, requestFile string) []string { return []string{Word, kind, requestFile} }

// Run answers one request: KIND and the request's file.
func Run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) != 2 {
		return errors.New("probe: KIND REQUEST")
	}
	text, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	var answer any
	switch args[0] {
	case "items":
		answer, err = ask(ctx, text, items)
	case "ingest":
		answer, err = ask(ctx, text, ingest)
	case "fill":
		answer, err = ask(ctx, text, fill)
	case "look":
		answer, err = ask(ctx, text, look)
	case "growth":
		answer, err = ask(ctx, text, growth)
	default:
		err = fmt.Errorf("probe: unknown %q", args[0])
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(answer)
}

func ask[Q, A any](ctx context.Context, text []byte, do func(context.Context, Q) (A, error)) (a A, err error) {
	var q Q
	if err := json.Unmarshal(text, &q); err != nil {
		return a, err
	}
	return do(ctx, q)
}

// Took is what one step took.
type Took struct {
	Wall float64 `json:"wall"` // s
	CPU  float64 `json:"cpu"`  // s, of all threads
}

// clock measures one step of this process.
type clock struct {
	start time.Time
	cpu   time.Duration
}

func startClock() clock { return clock{time.Now(), cpuTime()} }

func (c clock) took() Took {
	return Took{time.Since(c.start).Seconds(), (cpuTime() - c.cpu).Seconds()}
}

func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Median of what is not empty.
func Median(s []float64) float64 {
	s = slices.Sorted(slices.Values(s))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}

// median of how long each of n calls takes, in seconds, after a tenth as many
// that are not counted.
func median(n int, call func(i int) error) (float64, error) {
	for i := range n/10 + 1 {
		if err := call(i); err != nil {
			return 0, err
		}
	}
	all := make([]float64, n)
	for i := range n {
		start := time.Now()
		err := call(i)
		all[i] = time.Since(start).Seconds()
		if err != nil {
			return 0, err
		}
	}
	return Median(all), nil
}

// timeline is a history over one repository and an index file.
type timeline struct {
	history *history.History
	source  *history.BorgSource
	index   *index.Index
}

func openTimeline(ctx context.Context, repo, db string) (*timeline, error) {
	r, err := openRepository(ctx, repo)
	if err != nil {
		return nil, err
	}
	// The source opens the repository when it needs it, and closes what it
	// has opened; that this one is open already is no part of any measure.
	source := history.NewBorgSource(r.ID().String(), true, func(context.Context) (*borgio.Repository, error) { return r, nil }, nil)
	x, err := index.Open(ctx, db, nil)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	h := history.New(history.Options{Index: x, Sources: sources(source), Location: time.UTC})
	if err := h.Refresh(ctx); err != nil {
		return nil, errors.Join(err, h.Close(), source.Close(), x.Close())
	}
	return &timeline{h, source, x}, nil
}

func (t *timeline) close() error {
	return errors.Join(t.history.Close(), t.source.Close(), t.index.Close())
}

func openRepository(ctx context.Context, repo string) (*borgio.Repository, error) {
	loc, err := borgio.ParseLocation(repo)
	if err != nil {
		return nil, err
	}
	return borgio.Open(ctx, loc, borgio.Options{})
}
