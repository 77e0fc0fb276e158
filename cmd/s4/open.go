package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/quote"
	"github.com/s4-storage/s4/internal/reach"
	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/volume"
)

// here is the directory the command works from.
func (a *app) here() string {
	if a.Dir != "" {
		return a.Dir
	}
	return "."
}

// volume opens the volume that the command was started in.
func (a *app) volume() (*volume.Volume, error) {
	root, err := volume.Find(a.here())
	if err != nil {
		return nil, err
	}
	v, err := volume.Open(root, a.access)
	if err == nil && v.ID() == "" {
		v.Close()
		return nil, hint.With(fmt.Errorf("%s/%s/config names no volume", root, volume.Dir),
			"bring it back from a snapshot, or make it anew with: s4 -C "+root+" init")
	}
	return v, err
}

// lookFlags are of the verbs that look at the past.
type lookFlags struct {
	Repo string `short:"r" placeholder:"URL" help:"Look into this borg repository instead of a volume."`
}

// withPast opens the time line of --repo, or else of the volume that the
// command was started in, and closes it after do. The volume is nil with --repo.
func (a *app) withPast(ctx context.Context, f lookFlags, do func(*volume.Volume, *volume.Past) error) error {
	if f.Repo == "" {
		return a.withVolume(func(v *volume.Volume) error {
			past, err := a.past(ctx, v)
			if err != nil {
				return err
			}
			return do(v, past)
		})
	}
	past, loc, err := volume.RepositoryPast(ctx, f.Repo, a.access)
	if err != nil {
		return err
	}
	defer past.Close()
	if loc.Archive != "" {
		return hint.With(usage("--repo names a repository, not an archive"), "give the archive's name as TIME: "+loc.Archive)
	}
	if err := past.Refresh(ctx); err != nil {
		return reach.Explain(err, loc)
	}
	return do(nil, past)
}

// past opens the volume's time line and looks at the sources that need no
// network, so that it is up to date and never waits; at all, where the index
// was lost.
func (a *app) past(ctx context.Context, v *volume.Volume) (*volume.Past, error) {
	past, err := v.Past(ctx)
	if err != nil {
		return nil, err
	}
	blank, err := past.Blank(ctx)
	if err != nil {
		return nil, err
	}
	if !past.Remote || blank {
		if err := past.Refresh(ctx); err != nil {
			a.warn("there may be newer snapshots: %s", errorText(err))
		}
	}
	return past, nil
}

// gaps are the snapshots that an answer about all of time leaves out.
type gaps struct {
	Missing []string `json:"not_indexed"` // their names under .s4/history
	broken  error    // what to end with when all else is told; nil where a source is only out of reach
}

// complete indexes what is not yet, and says in one line what cannot be.
func (a *app) complete(ctx context.Context, past *volume.Past) (gaps, error) {
	g := gaps{Missing: []string{}}
	report, done := a.reporter()
	missing, why := past.Complete(ctx, report)
	done()
	line, err := past.Timeline(ctx)
	switch {
	case err != nil:
		return g, err
	case len(missing) == 0 || len(missing) == len(line):
		return g, why
	}
	for _, s := range missing {
		g.Missing = append(g.Missing, s.Dir)
	}
	if errors.Is(why, snapshot.ErrDamaged) || errors.Is(why, snapshot.ErrKey) {
		g.broken = why
	}
	text := "not read yet"
	if why != nil {
		text, _, _ = strings.Cut(why.Error(), "\n")
	}
	a.warn("%d of %s left out, not indexed yet: %s", len(missing), count(int64(len(line)), "snapshot"), text)
	return g, nil
}

// inVolume turns a path as the person typed it into one below the volume's
// root: relative to where they are, "" for the root itself. Without a volume
// it is below a repository's root.
func (a *app) inVolume(v *volume.Volume, path string) (string, error) {
	if v == nil {
		return strings.TrimPrefix(filepath.Clean("/"+path), "/"), nil
	}
	at, err := filepath.Abs(a.here())
	if err != nil {
		return "", err
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(at, path)
	}
	rel, err := filepath.Rel(v.Shown, path)
	if strings.HasPrefix(rel, "..") {
		rel, err = filepath.Rel(volume.Resolved(v.Shown), volume.Resolved(path))
	}
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return "", usage("%s is outside the volume %s", path, v.Shown)
	}
	if rel == "." {
		return "", nil
	}
	return rel, nil
}

// withMoment does something with the snapshot, and the path in it, that
// TIME[:PATH] names.
func (a *app) withMoment(ctx context.Context, f lookFlags, arg string, do func(*volume.Volume, *volume.Past, snapshot.Info, string) error) error {
	return a.withPast(ctx, f, func(v *volume.Volume, past *volume.Past) error {
		s, path, err := moment(ctx, past, arg)
		if err != nil {
			return err
		}
		return do(v, past, s, path)
	})
}

// moment splits TIME:PATH. A TIME may hold colons itself (RFC 3339, before:…),
// so the longest beginning that names a snapshot is taken.
func moment(ctx context.Context, past *volume.Past, arg string) (snapshot.Info, string, error) {
	s, err := past.Resolve(ctx, arg)
	if err == nil {
		return s, "", nil
	}
	for i := len(arg) - 1; i > 0; i-- {
		if arg[i] != ':' {
			continue
		}
		if s, err := past.Resolve(ctx, arg[:i]); err == nil {
			return s, strings.Trim(arg[i+1:], "/"), nil
		}
	}
	if when, _, found := strings.Cut(arg, ":"); found {
		_, err = past.Resolve(ctx, when)
	}
	return snapshot.Info{}, "", err
}

// find walks to a path in a snapshot, and says so when nothing is there.
func find(ctx context.Context, past *volume.Past, s snapshot.Info, path string) (snapshot.Entry, error) {
	e, err := past.Find(ctx, s.Num, path)
	if errors.Is(err, fs.ErrNotExist) {
		return e, hint.With(fmt.Errorf("%q was not there at %s: %w", path, s.Dir, fs.ErrNotExist),
			"see when it was with: s4 log "+quote.Shell(path))
	}
	return e, err
}

// withVolume opens the volume the command was started in and closes it after do.
func (a *app) withVolume(do func(*volume.Volume) error) error {
	v, err := a.volume()
	if err != nil {
		return err
	}
	defer v.Close()
	return do(v)
}

// warn tells what went wrong without ending the command.
func (a *app) warn(format string, args ...any) {
	fmt.Fprintln(a.stderr, "s4: warning: "+quote.Text(fmt.Sprintf(format, args...)))
}

// print writes a result.
func (a *app) print(format string, args ...any) error {
	_, err := fmt.Fprintf(a.stdout, format, args...)
	return err
}

func usage(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{snapshot.ErrUsage}, args...)...)
}
