package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSoak: s4 pushes and borg's create, prune and compact take turns in one
// repository, some of them killed, while the files change. The repository stays
// sound, and both programs give every archive back as it was. S4_SOAK is how long
// it goes on, such as 1h, and S4_SOAK_SEED what happens.
func TestSoak(t *testing.T) {
	need(t, "borg", "setfattr")
	long, every := 8*time.Second, 3
	if s := os.Getenv("S4_SOAK"); s != "" {
		var err error
		if long, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
		every = 10
	}
	seed, _ := strconv.ParseUint(os.Getenv("S4_SOAK_SEED"), 10, 64)
	for i, kind := range []string{"plain", "btrfs"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			make := newInhabited
			if kind == "btrfs" {
				make = newOnBtrfs
			}
			s := &soak{inhabited: make(t), Rand: rand.New(rand.NewPCG(seed, uint64(i))), sums: map[string]string{}}
			s.grow()
			s.run("s4", "push")
			s.record()
			for end, step := time.Now().Add(long), 1; time.Now().Before(end) || step <= every; step++ {
				s.step()
				s.record()
				if step%every == 0 {
					s.check()
				}
				if t.Failed() {
					t.Fatalf("in step %d: %s", step, strings.Join(s.did, ", "))
				}
			}
			s.run("s4", "push", "--force")
			s.record()
			s.check()
			t.Logf("%s; %d archives given back", strings.Join(s.did, ", "), s.checked)
		})
	}
}

type soak struct {
	*inhabited
	*rand.Rand
	sums    map[string]string // of the tree, by the archive of it
	did     []string
	made    int
	checked int
}

// grow makes files to begin with.
func (s *soak) grow() {
	for range 300 {
		s.edit()
	}
}

func (s *soak) step() {
	for range 1 + s.IntN(20) {
		s.edit()
	}
	s.made++
	theirs := []string{"borg", "create", "-e", ".s4", fmt.Sprintf("%s::borg%d", s.repo, s.made), "."}
	switch n := s.IntN(14); n {
	case 0, 1, 2, 3, 4:
		s.did = append(s.did, "push")
		s.run("s4", "push", "--force")
	case 5, 6, 7:
		s.did = append(s.did, "push killed")
		s.kill("s4", "push", "--force")
	case 8:
		s.did = append(s.did, "create killed")
		s.kill(theirs...)
	case 9:
		s.did = append(s.did, "prune")
		s.run("borg", "prune", "--keep-last", strconv.Itoa(1+s.IntN(5)), s.repo)
		s.run("borg", "compact", "--threshold", "0", s.repo)
	case 10:
		s.did = append(s.did, "s4 prune")
		s.run("s4", "prune", "--keep-last", strconv.Itoa(1+s.IntN(5)))
	case 11:
		s.did = append(s.did, "s4 prune killed")
		s.kill("s4", "prune", "--keep-last", strconv.Itoa(1+s.IntN(5)))
	default:
		s.did = append(s.did, "create")
		s.run(theirs...)
	}
}

// kill begins something, and kills it somewhere on its way.
func (s *soak) kill(args ...string) {
	s.t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	if args[0] == "s4" {
		cmd.Path, cmd.Err = filepath.Join(bin, "s4"), nil
	}
	cmd.Dir, cmd.Env = s.dir, s.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	most := 300 // milliseconds: about what it takes
	if args[0] == "borg" {
		most = 1500
	}
	timer := time.AfterFunc(time.Duration(s.IntN(most))*time.Millisecond, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	err := cmd.Wait()
	timer.Stop()
	if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || exit.ExitCode() >= 0) {
		s.t.Errorf("%s: %v", args, err)
	}
}

// archives lists the complete ones.
func (s *soak) archives() (names []string) {
	for _, name := range s.inhabited.archives() {
		if !strings.Contains(name, ".checkpoint") {
			names = append(names, name)
		}
	}
	return names
}

// record notes of what tree a new archive is, however it came to be.
func (s *soak) record() {
	s.t.Helper()
	sum := ""
	for _, name := range s.archives() {
		if _, known := s.sums[name]; !known {
			if sum == "" {
				sum = s.sum(s.dir)
			}
			s.sums[name] = sum
		}
	}
}

// check looks at the repository, and gets every archive back.
func (s *soak) check() {
	s.t.Helper()
	s.run("borg", "check", "--verify-data", s.repo)
	for _, name := range s.archives() {
		out := s.t.TempDir()
		s.run("sh", "-c", `cd "$0" && borg extract --numeric-ids "$1"`, out, s.repo+"::"+name)
		if got := s.sum(out); got != s.sums[name] {
			s.t.Errorf("borg gives %s back as\n%s\nand it was\n%s", name, got, s.sums[name])
		}
		again := filepath.Join(s.t.TempDir(), "s4")
		s.run("s4", "restore", "--repo", s.repo, name, "--to", again)
		if got := s.sum(again); got != s.sums[name] {
			s.t.Errorf("s4 gives %s back as\n%s\nand it was\n%s", name, got, s.sums[name])
		}
		if err := errors.Join(os.RemoveAll(out), os.RemoveAll(again)); err != nil {
			s.t.Fatal(err)
		}
		s.checked++
	}
}

// sum is a checksum of everything in a tree that archives have; s4's own
// directory and the root aside.
func (s *soak) sum(dir string) string {
	s.t.Helper()
	h := sha256.New()
	first := map[uint64]string{} // the first name of each inode
	err := filepath.WalkDir(dir+"/.", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil || rel == "." {
			return err
		}
		if rel == ".s4" {
			return fs.SkipDir
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		fmt.Fprintf(h, "%q %o %d %d %d ", rel, st.Mode, st.Uid, st.Gid, st.Mtim.Nano())
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			if first[st.Ino] == "" {
				first[st.Ino] = rel
			}
			fmt.Fprintf(h, "%d %q ", st.Size, first[st.Ino])
		}
		value := make([]byte, 100)
		if n, err := unix.Lgetxattr(path, "user.x", value); err == nil {
			fmt.Fprintf(h, "x%x ", value[:n])
		}
		return addContent(h, path, d)
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func addContent(h hash.Hash, path string, d fs.DirEntry) error {
	switch {
	case d.Type()&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		fmt.Fprintf(h, "%q", target)
		return err
	case d.Type().IsRegular():
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(h, f)
		return err
	}
	return nil
}

// edit does something to the tree. What cannot be done is not done.
func (s *soak) edit() {
	files, dirs := []string{}, []string{s.dir}
	_ = filepath.WalkDir(s.dir+"/.", func(path string, d fs.DirEntry, err error) error {
		switch {
		case d.Name() == ".s4":
			return fs.SkipDir
		case d.IsDir() && d.Name() != ".":
			dirs = append(dirs, path)
		case d.Type().IsRegular():
			files = append(files, path)
		}
		return err
	})
	pick := func(list []string) string { return list[s.IntN(len(list))] }
	fresh := func() string { return filepath.Join(pick(dirs), fmt.Sprintf("%c%d", 'a'+s.IntN(6), s.IntN(40))) }
	noise := make([]byte, []int{10, 1000, 20_000, 1_500_000}[min(s.IntN(40)/12, 3)])
	rand.NewChaCha8([32]byte{byte(s.Uint32()), byte(s.Uint32()), byte(s.Uint32())}).Read(noise[:len(noise)/2+1])
	if len(files) == 0 {
		files = []string{fresh()}
	}
	switch s.IntN(16) {
	case 0, 1, 2, 3:
		_ = os.WriteFile(fresh(), noise, 0o644)
	case 4, 5:
		if f, err := os.OpenFile(pick(files), os.O_WRONLY, 0); err == nil {
			_, _ = f.WriteAt(noise, int64(s.IntN(300_000)))
			f.Close()
		}
	case 6:
		_ = os.Truncate(pick(files), int64(s.IntN(30_000)))
	case 7:
		_ = os.Rename(pick(files), fresh())
	case 8:
		_ = os.Rename(pick(files), pick(files))
	case 9:
		_ = os.Rename(dirs[len(dirs)-1], fresh())
	case 10:
		_ = os.Rename(pick(dirs), fresh())
	case 11:
		_ = os.Link(pick(files), fresh())
	case 12:
		_ = os.Remove(pick(files))
	case 13:
		_ = os.Mkdir(fresh(), 0o755)
	case 14:
		_ = unix.Setxattr(pick(files), "user.x", noise[:5], 0)
	default:
		if d := pick(dirs); s.IntN(8) == 0 && d != s.dir {
			_ = os.RemoveAll(d)
		} else {
			_ = os.Symlink("some where", fresh())
		}
	}
}
