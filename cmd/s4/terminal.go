package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/term"

	"github.com/s4-storage/s4/internal/quote"
	"github.com/s4-storage/s4/volume"
)

// terminal returns the file behind w where that is a terminal.
func terminal(w any) (*os.File, bool) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, false
	}
	return f, true
}

// printJSON writes v as the command's one JSON document.
func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.stdout)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// say prints a line for the person unless --quiet; results go to stdout instead.
func (a *app) say(format string, args ...any) {
	if !a.Quiet {
		fmt.Fprintln(a.stderr, quote.Text(fmt.Sprintf(format, args...)))
	}
}

// reporter shows progress, news and warnings on stderr.
func (a *app) reporter() (volume.Reporter, func()) {
	bar := &progressBar{w: a.stderr, start: time.Now(), width: 80}
	tty, isTerminal := terminal(a.stderr)
	show := isTerminal && !a.Quiet
	if a.Progress != nil {
		show = *a.Progress
	}
	if isTerminal {
		if width, _, err := term.GetSize(int(tty.Fd())); err == nil {
			bar.width = width
		}
	}
	bar.redraw = isTerminal
	r := volume.Reporter{
		Note: func(text string) { bar.clear(); a.say("%s", text) },
		Warn: func(text string) { bar.clear(); a.warn("%s", text) },
	}
	if show {
		r.Progress = bar.show
	}
	return r, bar.clear
}

// progressBar draws one line over and over on a terminal; elsewhere it prints
// a line now and then.
type progressBar struct {
	w      io.Writer
	start  time.Time
	last   time.Time
	verb   string
	width  int
	redraw bool
	drawn  bool
}

func (b *progressBar) show(p volume.Progress) {
	now := time.Now()
	if p.Verb != b.verb {
		b.verb, b.start = p.Verb, now
	}
	every := 100 * time.Millisecond
	if !b.redraw {
		every = 5 * time.Second
	}
	if now.Sub(b.last) < every && !p.Done {
		return
	}
	b.last = now
	line := progressLine(p, now.Sub(b.start))
	if !b.redraw {
		fmt.Fprintln(b.w, line)
		return
	}
	if runes := []rune(line); len(runes) >= b.width {
		line = string(runes[:max(b.width-1, 0)])
	}
	fmt.Fprintf(b.w, "\r\x1b[K%s", line)
	b.drawn = true
}

func (b *progressBar) clear() {
	if b.drawn {
		fmt.Fprint(b.w, "\r\x1b[K")
		b.drawn = false
	}
}

// progressLine is such as
// "pushing [######------]  52%  1,204 files  310 MB  95 MB/s  photos/2024/a.jpg".
func progressLine(p volume.Progress, elapsed time.Duration) string {
	var b strings.Builder
	b.WriteString(p.Verb)
	share := -1.0
	switch {
	case p.TotalBytes > 0:
		share = float64(p.Bytes) / float64(p.TotalBytes)
	case p.TotalFiles > 0:
		share = float64(p.Files) / float64(p.TotalFiles)
	}
	if share >= 0 {
		const cells = 20
		share = min(share, 1)
		full := int(share * cells)
		fmt.Fprintf(&b, " [%s%s] %3.0f%%", strings.Repeat("#", full), strings.Repeat("-", cells-full), share*100)
	}
	fmt.Fprintf(&b, "  %s files", humanize.Comma(p.Files))
	if p.Bytes > 0 {
		fmt.Fprintf(&b, "  %s", size(p.Bytes))
		if s := elapsed.Seconds(); s > 0.2 {
			fmt.Fprintf(&b, "  %s/s", size(int64(float64(p.Bytes)/s)))
		}
	}
	if p.Path != "" {
		fmt.Fprintf(&b, "  %s", quote.Shell(p.Path))
	}
	return b.String()
}

// size is a number of bytes as a person reads it, in powers of 1000.
func size(n int64) string { return humanize.Bytes(uint64(max(n, 0))) }

// count is "1 file", "2 files".
func count(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return humanize.Comma(n) + " " + noun + "s"
}
