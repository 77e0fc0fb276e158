package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/s4-storage/s4/e2e/bench/probe"
	"github.com/s4-storage/s4/e2e/bench/sshd"
)

// file: one small file, from the start of the program to its end, in which all
// bytes have come. s4 is measured with its index and with none.
func (s *session) file() error {
	repo, f := s.repository(s.tool, "history"), s.view.one
	args, err := s.tool.dump(s.ctx, s.bench, repo, s.view.oldAt, f.path)
	if err != nil {
		return err
	}
	c := s.tool.command("", args...)
	take := func(c command, keys ...string) error {
		out, took, err := s.output(s.ctx, c)
		if err == nil && !bytes.Equal(out, s.view.old.content(f)) {
			err = fmt.Errorf("%s: wrong content", f.path)
		}
		if err != nil {
			return err
		}
		for _, key := range keys {
			s.record(key, took)
		}
		return nil
	}
	if s.tool.name != nameS4 {
		return take(c, "file", "fileFresh") // what both of s4's are compared with
	}
	if err := take(c, "file"); err != nil {
		return err
	}
	fresh, err := s.freshCache()
	if err != nil {
		return err
	}
	c.env = append(c.env, "XDG_CACHE_HOME="+fresh)
	return errors.Join(take(c, "fileFresh"), os.RemoveAll(fresh))
}

// freshCache is an empty directory for caches.
func (b *bench) freshCache() (string, error) {
	dir := filepath.Join(b.dir, "fresh")
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o755)
}

// items: all items of the old snapshot, parsed. s4's command line has nothing
// that needs just that, so a small program calls borgio.
func (s *session) items() error {
	return s.listItems("history", s.view.oldAt, s.view.oldCount, "items")
}

func (s *session) listItems(kind string, at time.Time, want int, key string) error {
	repo := s.repository(s.tool, kind)
	if s.tool.name == nameBorg {
		lines := 0
		took, err := s.timed(s.ctx, s.tool.command("", "list", "--json-lines", repo+"::"+borgArchive(at)), countLines(&lines))
		if err == nil && lines != want {
			err = fmt.Errorf("borg lists %d items instead of %d", lines, want)
		}
		if err == nil {
			s.record(key, took)
		}
		return err
	}
	var a probe.ItemsAnswer
	took, err := s.probe("items", probe.Items{Repository: repo, Archive: borgArchive(at)}, &a)
	if err == nil && a.Items != int64(want) {
		err = fmt.Errorf("%d items instead of %d", a.Items, want)
	}
	if err == nil {
		s.record(key, took)
	}
	return err
}

// probeIn runs a probe in a process of its own.
func (b *bench) probeIn(ctx context.Context, kind string, request, answer any) (took spent, err error) {
	text, err := json.Marshal(request)
	if err != nil {
		return took, err
	}
	file := filepath.Join(b.dir, "home", "probe.json")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return took, err
	}
	self, err := os.Executable()
	if err != nil {
		return took, err
	}
	out, took, err := b.output(ctx, command{name: "probe " + kind, argv: append([]string{self}, probe.Args(kind, file)...)})
	if err == nil {
		err = json.Unmarshal(out, answer)
	}
	return took, err
}

func (s *session) probe(kind string, request, answer any) (spent, error) {
	return s.probeIn(s.ctx, kind, request, answer)
}

// The big file as a stream into a pipe: from the start of the program to its
// end.
func (s *session) streamPlain() error { return s.streamBig("big", "stream") }

// Peers that always encrypt are compared with the encrypted repository, which
// for them is the only one.
func (s *session) streamSealed() error {
	if s.tool.name == nameRestic || s.tool.name == nameKopia {
		return s.streamBig("big", "sealed")
	}
	return s.streamBig("sealed", "sealed")
}

func (s *session) streamSSH() error       { return s.streamRemote("big", "ssh") }
func (s *session) streamSSHSealed() error { return s.streamRemote("sealed", "sshSealed") }

func (s *session) streamBig(kind, key string) error {
	args, err := s.tool.dump(s.ctx, s.bench, s.repository(s.tool, kind), when(0), bigName)
	if err != nil {
		return err
	}
	return s.streamCommand(s.tool.command("", args...), key)
}

func (s *session) streamCommand(c command, key string) error {
	took, err := s.timed(s.ctx, c, s.drainBig)
	if err != nil {
		return err
	}
	s.recordUse(key, took)
	s.samples[key] = s.rate(took.Wall)
	return nil
}

// streamRemote is streamBig through ssh to this machine.
func (s *session) streamRemote(kind, key string) error {
	if err := s.startServer(); err != nil {
		return err
	}
	var c command
	if s.tool.name == nameCat {
		c = s.tool.command("", "-F", s.server.Config, sshd.Host, "cat", s.bigFile())
		c.name = "ssh cat"
	} else {
		args, err := s.tool.dump(s.ctx, s.bench, "ssh://"+sshd.Host+s.repository(s.tool, kind), when(0), bigName)
		if err != nil {
			return err
		}
		c = s.tool.command("", args...)
		c.env = s.farEnv()
	}
	before, err := s.server.Spent()
	if err != nil {
		return err
	}
	if err := s.streamCommand(c, key); err != nil {
		return err
	}
	after, err := s.server.Spent()
	s.samples[key+"Far"] = after - before
	return err
}

// startServer sees to it that there is a server on this machine.
func (s *session) startServer() error {
	if s.server != nil {
		return nil
	}
	server, err := sshd.Start(s.ctx, filepath.Join(s.dir, "ssh"), "BORG_BASE_DIR="+filepath.Join(s.dir, "home", "borg"))
	if err != nil {
		return fmt.Errorf("sshd: %w", err)
	}
	s.server = server
	return nil
}

// farEnv leads s4 and borg to that server.
func (s *session) farEnv() []string {
	return []string{"BORG_RSH=ssh -F " + s.server.Config, "BORG_REMOTE_PATH=" + s.borg().program}
}
