package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

const (
	liveFiles = 10000        // how many small files are made and removed
	liveMade  = "made-"      // begins the names of what is made for a while
	longAgo   = "1971-01-01" // all files are newer, but find has to look at each
)

// live: what people do with files, through a mount that passes it on to a
// directory, or in that directory itself.
func (s *session) live() error {
	below, err := s.liveVolume()
	if err != nil {
		return err
	}
	entries, err := countLive(below)
	if err != nil {
		return err
	}
	if err := s.liveUnlisted(below, entries); err != nil {
		return err
	}
	return s.liveThrough(below, func(dir string) error { return s.liveIn(dir, below, entries) })
}

// liveThrough does something in the live tree: through a fresh mount, or in the
// directory itself.
func (s *session) liveThrough(below string, do func(dir string) error) error {
	if s.tool.name == nameDisk {
		return do(below)
	}
	through := &tool{name: s.tool.name, program: s.tool.program, unmount: fusermount}
	through.mount = func(below, mountpoint string) []string {
		if s.tool.name == nameS4 {
			return []string{"-C", below, "mount", "--foreground", "--allow-other", mountpoint}
		}
		return []string{"-allow-other", mountpoint, below}
	}
	m, err := s.mount(s.ctx, through, below)
	if err != nil {
		return err
	}
	err = do(m.dir)
	if rss, _, memErr := m.memory(); memErr == nil {
		s.samples["liveRss"] = float64(rss) / (1 << 20)
	}
	return errors.Join(err, m.close())
}

// liveVolume makes a volume of the corpus, once, and makes it ready.
func (s *session) liveVolume() (string, error) {
	dir := filepath.Join(s.dir, "live")
	if !exists(filepath.Join(dir, ".s4")) {
		if err := s.makeLiveVolume(dir); err != nil {
			return "", err
		}
	}
	spreadDirectories(dir)
	left, err := filepath.Glob(filepath.Join(dir, liveMade+"*")) // by a run that was interrupted
	for _, path := range left {
		err = errors.Join(err, os.RemoveAll(path))
	}
	return dir, err
}

func (s *session) makeLiveVolume(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	copied := command{name: "cp", argv: []string{"cp", "-a", filepath.Join(s.dir, "corpus"), dir}}
	if _, _, err := s.output(s.ctx, copied); err != nil {
		return err
	}
	if t := s.bench.tool(nameS4); t != nil {
		_, err := s.run(s.ctx, t, dir, "init")
		return err
	}
	return os.Mkdir(filepath.Join(dir, ".s4"), 0o755)
}

// countLive is the number of lines that find gives, without .s4.
func countLive(dir string) (n int, err error) {
	err = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && path == filepath.Join(dir, ".s4") {
			return filepath.SkipDir
		}
		n++
		return err
	})
	return n, err
}

// liveUnlisted: rm -r of a tree, and attributes of all, in directories that the
// fresh mount has not listed before.
func (s *session) liveUnlisted(below string, entries int) error {
	tree, err := spreadDirectory(below)
	if err != nil {
		return err
	}
	for i := range liveFiles {
		sub := filepath.Join(tree, strconv.Itoa(i/filesPerDir))
		if i%filesPerDir == 0 {
			err = os.Mkdir(sub, 0o755)
		}
		if err == nil {
			err = writeLive(sub, i)
		}
		if err != nil {
			return err
		}
	}
	return s.liveThrough(below, func(dir string) error {
		if err := s.liveRemove("liveRemoveFirst", filepath.Join(dir, filepath.Base(tree))); err != nil {
			return err
		}
		return s.liveFind("liveStatFirst", dir, entries, "-newermt", longAgo)
	})
}

func (s *session) liveIn(dir, below string, entries int) error {
	for _, walk := range []struct {
		key   string
		tests []string
	}{{"liveFind", nil}, {"liveAgain", nil}, {"liveStat", []string{"-newermt", longAgo}}} {
		if err := s.liveFind(walk.key, dir, entries, walk.tests...); err != nil {
			return err
		}
	}
	made, err := spreadDirectory(below)
	if err != nil {
		return err
	}
	return errors.Join(s.liveSmall(filepath.Join(dir, filepath.Base(made))), s.touchMemory(below), s.liveBig(filepath.Join(dir, "big")))
}

// liveFind is find over the live tree, without .s4.
func (s *session) liveFind(key, dir string, entries int, tests ...string) error {
	args := append([]string{dir, "-path", filepath.Join(dir, ".s4"), "-prune", "-o"}, tests...)
	return s.find(key, entries, append(args, "-print")...)
}

// liveSmall makes small files in a directory, and removes it.
func (s *session) liveSmall(dir string) error {
	start := time.Now()
	for i := range liveFiles {
		if err := writeLive(dir, i); err != nil {
			return err
		}
	}
	s.seconds("liveMake", time.Since(start))
	return s.liveRemove("liveRemove", dir)
}

func writeLive(dir string, i int) error {
	return os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), []byte("some text\n"), 0o644)
}

// liveRemove removes a directory with all that is in it.
func (s *session) liveRemove(key, dir string) error {
	start := time.Now()
	if _, _, err := s.output(s.ctx, command{name: "rm", argv: []string{"rm", "-r", dir}}); err != nil {
		return err
	}
	s.seconds(key, time.Since(start))
	return nil
}

// touchMemory writes the big file once below, for nothing: on a virtual
// machine, memory is slow when it is touched for the first time, which whoever
// writes first would pay for all.
func (s *session) touchMemory(below string) error {
	f, err := os.CreateTemp(below, liveMade)
	if err != nil {
		return err
	}
	return errors.Join(s.writeBig(f, randomBlock()), f.Close(), os.Remove(f.Name()))
}

// liveBig writes a big file and reads it, from the page cache, as far as that
// has room.
func (s *session) liveBig(path string) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(path)) }()
	buf := randomBlock()
	start := time.Now()
	if err := s.writeBig(f, buf); err != nil {
		return err
	}
	s.samples["liveWrite"] = s.rate(time.Since(start).Seconds())
	if err := f.Sync(); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	start = time.Now()
	n, _, err := drain(f)
	s.samples["liveRead"] = s.rate(time.Since(start).Seconds())
	if err == nil && n != s.Big {
		err = fmt.Errorf("%d bytes of %s came back", n, path)
	}
	return err
}

func randomBlock() []byte {
	buf := make([]byte, block)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(buf) // never fails
	return buf
}

// writeBig writes as many bytes as the big file has, in sequence.
func (s *session) writeBig(w io.Writer, buf []byte) error {
	for n := int64(0); n < s.Big; n += block {
		if _, err := w.Write(buf[:min(block, s.Big-n)]); err != nil {
			return err
		}
	}
	return nil
}
