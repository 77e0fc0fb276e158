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

// liveFiles is how many small files are made and removed.
const liveFiles = 10000

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
	if s.tool.name == nameDisk {
		return s.liveIn(below, entries)
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
	err = s.liveIn(m.dir, entries)
	if rss, _, memErr := m.memory(); memErr == nil {
		s.samples["liveRss"] = float64(rss) / (1 << 20)
	}
	return errors.Join(err, m.close())
}

// liveVolume makes a volume of the corpus, once.
func (s *session) liveVolume() (string, error) {
	dir := filepath.Join(s.dir, "live")
	if _, err := os.Stat(filepath.Join(dir, ".s4")); err == nil {
		return dir, nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	copied := command{name: "cp", argv: []string{"cp", "-a", filepath.Join(s.dir, "corpus"), dir}}
	if _, _, err := s.output(s.ctx, copied); err != nil {
		return "", err
	}
	for _, t := range s.tools {
		if t.name == nameS4 {
			_, err := s.run(s.ctx, t, dir, "init")
			return dir, err
		}
	}
	return dir, os.Mkdir(filepath.Join(dir, ".s4"), 0o755)
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

func (s *session) liveIn(dir string, entries int) error {
	all := []string{dir, "-path", filepath.Join(dir, ".s4"), "-prune", "-o"}
	for _, walk := range []struct {
		key string
		do  []string
	}{
		{"liveFind", []string{"-print"}},
		{"liveAgain", []string{"-print"}},
		{"liveStat", []string{"-newermt", "1971-01-01", "-print"}},
	} {
		if err := s.find(walk.key, entries, append(all, walk.do...)...); err != nil {
			return err
		}
	}
	return errors.Join(s.liveSmall(filepath.Join(dir, "made")), s.liveBig(filepath.Join(dir, "big")))
}

// liveSmall makes and removes small files.
func (s *session) liveSmall(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	start := time.Now()
	for i := range liveFiles {
		if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), []byte("some text\n"), 0o644); err != nil {
			return err
		}
	}
	s.seconds("liveMake", time.Since(start))
	start = time.Now()
	if _, _, err := s.output(s.ctx, command{name: "rm", argv: []string{"rm", "-r", dir}}); err != nil {
		return err
	}
	s.seconds("liveRemove", time.Since(start))
	return nil
}

// liveBig writes a big file and reads it, from the page cache, as far as that
// has room.
func (s *session) liveBig(path string) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(path)) }()
	buf := make([]byte, block)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(buf) // never fails
	start := time.Now()
	for n := int64(0); n < s.Big; n += block {
		if _, err := f.Write(buf[:min(block, s.Big-n)]); err != nil {
			return err
		}
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
