package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/btrfsvol"
	"github.com/s4-storage/s4/e2e/bench/probe"
	"github.com/s4-storage/s4/e2e/bench/sshd"
)

const (
	pushPlain  = "none"
	pushSealed = "repokey-blake2"
	pushTen    = 10 // files changed
	pushPage   = 4 << 10
	pushBig    = 1 << 30
	pushLogins = 5
)

// pushing is a tree that one tool stores in a repository of its own.
type pushing struct {
	*session
	tree, repo string
	far        bool // reaches the repository through ssh
	env        []string
	made       int // snapshots
}

// push: a tree stored for the first time, again, and after little has changed.
func (s *session) push() error {
	if s.tool.name == nameCat {
		return s.pushLogin()
	}
	work := filepath.Join(s.dir, "push")
	if err := s.mendPush(work); err != nil {
		return err
	}
	tree := filepath.Join(work, "plain")
	t := newTree(s.params)
	if err := t.write(tree); err != nil {
		return err
	}
	p := &pushing{session: s, tree: tree, repo: filepath.Join(work, "repo-plain")}
	mode, key := s.ownMode(), "pushFirst"
	if mode == pushSealed {
		key = "pushSealed"
	}
	err := inTurn(
		func() error { return readAll(tree) },
		func() error { return p.begin(mode) },
		func() error { return p.store(key) },
		func() error { return p.store("pushSame") },
		func() error { return t.touch(tree, pushTen) },
		func() error { return p.store("pushTenPlain") },
		func() error { return p.check(t.files[0].path) },
	)
	if err == nil && mode != pushSealed {
		q := &pushing{session: s, tree: tree, repo: filepath.Join(work, "repo-sealed")}
		err = inTurn(
			func() error { return readAll(tree) },
			func() error { return q.begin(pushSealed) },
			func() error { return q.store("pushSealed") },
			func() error { return q.check(t.files[0].path) },
		)
	}
	if err != nil {
		return err
	}
	return errors.Join(s.softly(s.pushBtrfs(work, t)), s.mendPush(work))
}

// ownMode is how a repository is made where encryption is not what is measured.
func (s *session) ownMode() string {
	if s.tool.name == nameRestic || s.tool.name == nameKopia {
		return pushSealed // they always encrypt
	}
	return pushPlain
}

// inTurn does one thing after the other until something fails.
func inTurn(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// mendPush removes what a turn before has made.
func (s *session) mendPush(work string) error {
	return removeWithLoop(filepath.Join(work, "btrfs"), work)
}

// loopBtrfs mounts a new btrfs at dir, in an image beside it of at most so many
// bytes. removeWithLoop ends it.
func (s *session) loopBtrfs(dir string, size int64) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: only root may mount", errSkipped)
	}
	image := dir + ".image"
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(image, nil, 0o600), os.Truncate(image, size)); err != nil {
		return err
	}
	for _, argv := range [][]string{{"mkfs.btrfs", "-q", image}, {"mount", "-o", "loop,noatime,nodev", image, dir}} {
		if _, _, err := s.output(s.ctx, command{name: argv[0], argv: argv}); err != nil {
			return fmt.Errorf("%w: %w", errSkipped, err)
		}
	}
	return nil
}

// removeWithLoop removes a directory below which something may be mounted at mnt.
// While that cannot be unmounted, nothing is removed.
func removeWithLoop(mnt, dir string) error {
	err := unix.Unmount(mnt, 0)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("unmount %s: %w", mnt, err)
	}
	return os.RemoveAll(dir)
}

// pushBtrfs measures on subvolumes, where only what changed need be looked at.
func (s *session) pushBtrfs(work string, t *tree) (err error) {
	dir := filepath.Join(work, "btrfs")
	if err := s.loopBtrfs(dir, int64(s.Files)*40<<10+3*pushBig); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Unmount(dir, 0)) }()
	files, big := filepath.Join(dir, "files"), filepath.Join(dir, "big")
	p := &pushing{session: s, tree: files, repo: filepath.Join(work, "repo-files")}
	q := &pushing{session: s, tree: big, repo: filepath.Join(work, "repo-big")}
	far := &pushing{session: s, tree: files, repo: filepath.Join(work, "repo-far"), far: true}
	steps := []func() error{
		func() error { return errors.Join(btrfsvol.Create(files), btrfsvol.Create(big)) },
		func() error { return t.write(files) },
		func() error {
			_, err := t.writeBig(filepath.Join(big, bigName), min(s.Big, pushBig))
			return err
		},
		func() error { return p.begin(s.ownMode()) },
		func() error { return p.store("") },
		func() error { return p.store("pushSameBtrfs") },
		func() error { return t.touch(files, pushTen) },
		func() error { return p.store("pushTen") },
		func() error { return p.check(t.files[0].path) },
		func() error { return q.begin(s.ownMode()) },
		func() error { return q.store("pushBig") },
		func() error { return writePage(filepath.Join(big, bigName)) },
		func() error { return q.store("pushPage") },
		func() error { return q.check(bigName) },
	}
	if s.tool.name == nameS4 || s.tool.name == nameBorg {
		steps = append(steps,
			func() error { return s.startServer() },
			func() error { return far.begin(pushPlain) },
			func() error { return far.store("pushFarFirst") },
			func() error { return far.store("pushFarSame") },
			func() error { return t.touch(files, pushTen) },
			func() error { return far.store("pushFarTen") },
			func() error { return far.check(t.files[0].path) },
		)
	}
	return inTurn(steps...)
}

// pushLogin is what nothing can be quicker than that asks a host through ssh: a
// login, and a program there that does nothing.
func (s *session) pushLogin() error {
	if err := s.startServer(); err != nil {
		return err
	}
	var all []float64
	for range pushLogins {
		_, took, err := s.output(s.ctx, s.tool.command("", "-F", s.server.Config, sshd.Host, "true"))
		if err != nil {
			return err
		}
		all = append(all, took.Wall)
	}
	s.samples["pushLogin"] = probe.Median(all)
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
	p.env = []string{"HOME=" + home, "BORG_BASE_DIR=" + home, "RESTIC_CACHE_DIR=" + filepath.Join(home, "restic")}
	for _, name := range []string{"CACHE", "CONFIG", "STATE"} {
		p.env = append(p.env, "XDG_"+name+"_HOME="+filepath.Join(home, strings.ToLower(name)))
	}
	if p.far {
		p.env = append(p.env, p.farEnv()...)
	}
	var commands [][]string
	switch {
	case p.tool.ours() && p.far: // the volume is there
		commands = [][]string{{"remote", "add", p.remote(), p.location(), "--encryption", mode}}
	case p.tool.ours():
		if err := os.RemoveAll(filepath.Join(p.tree, ".s4")); err != nil {
			return err
		}
		commands = [][]string{{"init"}, {"remote", "add", p.remote(), p.location(), "--encryption", mode}}
	case p.tool.name == nameBorg:
		commands = [][]string{{"init", "--encryption", mode, p.location()}}
	default:
		commands = p.tool.init(p.location())
	}
	for _, args := range commands {
		if _, _, err := p.output(p.ctx, p.command(args)); err != nil {
			return err
		}
	}
	return nil
}

// remote is the name of the repository for s4.
func (p *pushing) remote() string {
	if p.far {
		return "far"
	}
	return "origin"
}

// location is the repository as the tool is told of it.
func (p *pushing) location() string {
	if p.far {
		return "ssh://" + sshd.Host + p.repo
	}
	return p.repo
}

func (p *pushing) command(args []string) command {
	c := p.tool.command(p.tree, args...)
	c.env = p.env
	return c
}

// store takes a snapshot and records what it took, unless key is "".
func (p *pushing) store(key string) error {
	took, err := p.snapshot()
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	if key != "" {
		p.record(key, took)
	}
	return nil
}

// snapshot takes a snapshot.
func (p *pushing) snapshot() (spent, error) {
	args := []string{"push", "--quiet", p.remote()}
	if !p.tool.ours() {
		args = p.tool.backup(p.location(), when(p.made))
	}
	p.made++
	start := time.Now()
	_, took, err := p.output(p.ctx, p.command(args))
	if err != nil {
		err = fmt.Errorf("after %v: %w", time.Since(start).Round(time.Second), err)
	}
	return took, err
}

// check compares a file of the newest snapshot with what it is now.
func (p *pushing) check(path string) error {
	want, err := os.ReadFile(filepath.Join(p.tree, path))
	if err != nil {
		return err
	}
	// s4 has been given the place for the repository.
	args := []string{"cat", "--repo", filepath.Join(p.repo, filepath.Base(p.tree)), "latest:" + path}
	if !p.tool.ours() {
		if args, err = p.tool.dump(p.ctx, p.bench, p.repo, when(p.made-1), path); err != nil {
			return err
		}
	}
	got, _, err := p.output(p.ctx, p.command(args))
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("%s: the newest snapshot has %d other bytes than the %d that were stored", path, len(got), len(want))
	}
	return err
}
