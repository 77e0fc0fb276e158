package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// can reports whether s4 has a command that looks into a repository.
func (s *session) can(verb string) error {
	out, _, err := s.output(s.ctx, s.tool.command("", verb, "--help"))
	if err != nil || !bytes.Contains(out, []byte("--repo")) {
		return fmt.Errorf("%w: this s4 has no %s --repo", errSkipped, verb)
	}
	return nil
}

// softly lets a group go on where only one command is missing.
func (s *session) softly(err error) error {
	if errors.Is(err, errSkipped) {
		s.say("%v", err)
		return nil
	}
	return err
}

// versions: all versions of one file over the whole history. borg can only be
// asked for the file in one archive after the other.
func (s *session) versions() error {
	repo, path := s.repository(s.tool, "history"), s.view.story.path
	switch s.tool.name {
	case nameS4:
		return s.s4Versions("history", s.view.story, "versions")
	case nameRestic:
		out, took, err := s.output(s.ctx, s.tool.command("", "find", "--repo", repo, "/"+path))
		if got := bytes.Count(out, []byte("/"+path)); err == nil && got != s.Snapshots {
			err = fmt.Errorf("restic finds %d instead of %d", got, s.Snapshots)
		}
		if err == nil {
			s.record("versions", took)
		}
		return err
	}
	var all spent
	for n := range s.Snapshots {
		out, took, err := s.output(s.ctx, s.tool.command("", "list", repo+"::"+borgArchive(when(n)), path))
		if err == nil && bytes.Count(out, []byte{'\n'}) != 1 {
			err = fmt.Errorf("borg list: %q", tail(string(out)))
		}
		if err != nil {
			return err
		}
		all.Wall += took.Wall
		all.CPU += took.CPU
		all.Peak = max(all.Peak, took.Peak)
	}
	s.record("versions", all)
	return nil
}

func (s *session) s4Versions(kind string, story story, key string) error {
	out, took, err := s.output(s.ctx, s.tool.command("", "log", "--repo", s.repository(s.tool, kind), "--json", story.path))
	if err != nil {
		return err
	}
	var all []any
	if err := json.Unmarshal(out, &all); err != nil {
		return fmt.Errorf("s4 log: %w", err)
	}
	if len(all) != story.versions {
		return fmt.Errorf("s4 log: %d versions of %s instead of %d", len(all), story.path, story.versions)
	}
	s.record(key, took)
	return nil
}

// diff: what differs between two neighbouring snapshots.
func (s *session) diff() error {
	return s.diffOf("history", s.view.story, "diff")
}

func (s *session) diffOf(kind string, story story, key string) error {
	step := len(story.changed) / 2
	repo, a, b := s.repository(s.tool, kind), when(step), when(step+1)
	var args []string
	switch s.tool.name {
	case nameS4:
		if err := s.can("diff"); err != nil {
			return err
		}
		args = []string{"diff", "--repo", repo, s4Time(a), s4Time(b)}
	case nameBorg:
		args = []string{"diff", repo + "::" + borgArchive(a), borgArchive(b)}
	case nameRestic:
		args = []string{"diff", "--repo", repo}
		for _, at := range []time.Time{a, b} {
			id, err := resticSnapshot(s.ctx, s.bench, repo, at)
			if err != nil {
				return err
			}
			args = append(args, id)
		}
	}
	out, took, err := s.output(s.ctx, s.tool.command("", args...))
	if err != nil {
		return err
	}
	for _, path := range story.changed[step] {
		if !bytes.Contains(out, []byte(path)) {
			return fmt.Errorf("%s diff does not tell of %s", s.tool.name, path)
		}
	}
	s.record(key, took)
	return nil
}

// findName: where in all of the history a file is, by its name alone, that is
// there no more.
func (s *session) findName() error {
	return s.findIn("history", s.view.story, "name")
}

func (s *session) findIn(kind string, story story, key string) error {
	if story.gone == "" {
		return fmt.Errorf("%w: no file was deleted", errSkipped)
	}
	repo := s.repository(s.tool, kind)
	if s.tool.name == nameS4 {
		if err := s.can("find"); err != nil {
			return err
		}
	}
	out, took, err := s.output(s.ctx, s.tool.command("", "find", "--repo", repo, story.goneName()))
	if err == nil && !bytes.Contains(out, []byte(story.gone)) {
		err = fmt.Errorf("%s does not find %s", s.tool.name, story.gone)
	}
	if err == nil {
		s.record(key, took)
	}
	return err
}

// countLines counts what it reads.
func countLines(n *int) func(io.Reader) error {
	return func(r io.Reader) error {
		buf := make([]byte, 64<<10)
		for {
			k, err := r.Read(buf)
			*n += bytes.Count(buf[:k], []byte{'\n'})
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
		}
	}
}
