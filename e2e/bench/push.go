package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/btrfsvol"
)

const (
	pushPlain  = "none"
	pushSealed = "repokey-blake2"
	pushTen    = 10 // files changed
	pushPage   = 4 << 10
	pushBig    = 1 << 30
)

// pushing is a tree that one tool stores in a repository of its own.
type pushing struct {
	*session
	tree, repo string
	env        []string
	made       int // snapshots
}

// push: a tree stored for the first time, again, and after little has changed.
func (s *session) push() error {
	work := filepath.Join(s.dir, "push")
	if err := s.mendPush(work); err != nil {
		return err
	}
	tree := filepath.Join(work, "plain")
	if err := newTree(s.params).write(tree); err != nil {
		return err
	}
	for mode, key := range map[string]string{pushPlain: "pushFirst", pushSealed: "pushSealed"} {
		if mode == pushPlain && s.tool.name == nameRestic {
			continue // it always encrypts
		}
		p := &pushing{session: s, tree: tree, repo: filepath.Join(work, "repo-"+mode)}
		if err := errors.Join(readAll(tree), p.begin(mode), p.store(key)); err != nil {
			return err
		}
		if key == "pushFirst" || s.tool.name == nameRestic {
			if err := p.store("pushSame"); err != nil {
				return err
			}
		}
	}
	return errors.Join(s.pushBtrfs(work), s.mendPush(work))
}

// mendPush removes what a turn before has made.
func (s *session) mendPush(work string) error {
	err := unix.Unmount(filepath.Join(work, "btrfs"), 0)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EPERM) {
		return err
	}
	return os.RemoveAll(work)
}

// pushBtrfs measures on subvolumes, where only what changed need be looked at.
func (s *session) pushBtrfs(work string) (err error) {
	if os.Geteuid() != 0 {
		return nil // only root may mount
	}
	image, dir := filepath.Join(work, "image"), filepath.Join(work, "btrfs")
	err = errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(image, nil, 0o600), os.Truncate(image, int64(s.Files)*40<<10+3*pushBig))
	for _, argv := range [][]string{{"mkfs.btrfs", "-q", image}, {"mount", "-o", "loop,noatime,nodev", image, dir}} {
		if err == nil {
			_, _, err = s.output(s.ctx, command{name: argv[0], argv: argv})
		}
	}
	if errors.Is(err, exec.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Unmount(dir, 0)) }()
	files, big := filepath.Join(dir, "files"), filepath.Join(dir, "big")
	t := newTree(s.params)
	err = errors.Join(btrfsvol.Create(files), btrfsvol.Create(big))
	if err == nil {
		err = t.write(files)
	}
	if err == nil {
		_, err = t.writeBig(filepath.Join(big, bigName), min(s.Big, pushBig))
	}
	if err != nil {
		return err
	}
	mode := pushPlain
	if s.tool.name == nameRestic {
		mode = pushSealed
	}
	p := &pushing{session: s, tree: files, repo: filepath.Join(work, "repo-files")}
	q := &pushing{session: s, tree: big, repo: filepath.Join(work, "repo-big")}
	for _, step := range []func() error{
		func() error { return p.begin(mode) },
		func() error { return p.store("") },
		func() error { return p.store("pushSameBtrfs") },
		func() error { return t.touch(files, pushTen) },
		func() error { return p.store("pushTen") },
		func() error { return q.begin(mode) },
		func() error { return q.store("pushBig") },
		func() error { return writePage(filepath.Join(big, bigName)) },
		func() error { return q.store("pushPage") },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// touch writes to so many files in different places.
func (t *tree) touch(dir string, n int) error {
	for i := range n {
		f, err := os.OpenFile(filepath.Join(dir, t.files[i*len(t.files)/n].path), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString("more\n")
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// writePage writes anew what is in the middle of a file.
func writePage(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	page := make([]byte, pushPage)
	fill(page, rand.New(rand.NewPCG(1, 2)), false)
	_, err = f.WriteAt(page, st.Size()/2&^(pushPage-1))
	return errors.Join(err, f.Sync())
}

// begin makes the repository. What the tool remembers of others is not there.
func (p *pushing) begin(mode string) error {
	home := p.repo + ".home"
	if err := os.MkdirAll(home, 0o700); err != nil {
		return err
	}
	p.env = []string{"HOME=" + home, "BORG_BASE_DIR=" + home}
	for _, name := range []string{"CACHE", "CONFIG", "STATE"} {
		p.env = append(p.env, "XDG_"+name+"_HOME="+filepath.Join(home, strings.ToLower(name)))
	}
	var commands [][]string
	switch p.tool.name {
	case nameS4:
		if err := os.RemoveAll(filepath.Join(p.tree, ".s4")); err != nil {
			return err
		}
		commands = [][]string{{"init"}, {"remote", "add", "origin", p.repo, "--encryption", mode}}
	case nameBorg:
		commands = [][]string{{"init", "--encryption", mode, p.repo}}
	default:
		commands = p.tool.init(p.repo)
	}
	for _, args := range commands {
		if _, _, err := p.output(p.ctx, p.command(args)); err != nil {
			return err
		}
	}
	return nil
}

func (p *pushing) command(args []string) command {
	c := p.tool.command(p.tree, args...)
	c.env = p.env
	return c
}

// store takes a snapshot and records what it took, unless key is "".
func (p *pushing) store(key string) error {
	args := []string{"push", "--quiet"}
	if p.tool.name != nameS4 {
		args = p.tool.backup(p.repo, when(p.made))
	}
	p.made++
	start := time.Now()
	_, took, err := p.output(p.ctx, p.command(args))
	if err != nil {
		return fmt.Errorf("%s after %v: %w", key, time.Since(start).Round(time.Second), err)
	}
	if key != "" {
		p.record(key, took)
	}
	return nil
}
