package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio/internal/fault"
	"github.com/s4-storage/s4/borgio/internal/lock"
)

// left is what a directory holds, seen as what a making left that was killed.
type left struct {
	vacant bool // nothing
	sign   bool // something tells that a repository was to be
	other  bool // something that no making leaves before its first commit
}

// begun tells of a repository that was begun and never finished: nothing was
// committed to it and nothing is in it but perhaps the first manifest.
func (l left) begun() bool { return l.sign && !l.other }

// leftIn looks at all that is in dir. One thing too many makes it something else:
// it may be a repository that has lost its index and its commits, whose objects can
// still be saved. With committed, a first transaction that was made is no such thing.
func leftIn(dir string, committed bool) (l left, err error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return l, err
	}
	defer f.Close()
	entries, err := f.ReadDir(maxLeft + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return l, err
	}
	l.vacant, l.other = len(entries) == 0, len(entries) > maxLeft
	for _, e := range entries {
		name := e.Name()
		mine := e.Type().IsRegular()
		switch written(name) {
		case "README":
			if name == "README" {
				repository := isRepository(dir)
				st, err := e.Info()
				mine = mine && (repository || err == nil && st.Size() == 0)
				l.sign = l.sign || repository
			}
		case "config":
			l.sign = l.sign || name == "config"
		case "config.old", "nonce":
		case "data":
			if mine, err = bareData(filepath.Join(dir, name), committed); err != nil {
				return l, err
			}
		case "lock.roster", "lock.exclusive":
			mine, l.sign = true, true
		case "index", "hints", "integrity", "transactions":
			mine = mine && committed
		default:
			mine = false
		}
		l.other = l.other || !mine
	}
	return l, nil
}

// written is which file of a repository has a name, or will have it when it is
// written: Borg calls it nonce-abcdef.tmp before, and s4 nonce.s4.tmp. An index
// and what belongs to it come with a number.
func written(name string) string {
	base, temporary := strings.CutSuffix(name, ".tmp")
	if temporary {
		base, _, _ = strings.Cut(strings.TrimSuffix(base, ".s4"), "-")
	}
	for _, known := range []string{"lock.exclusive", "lock.roster", "index", "hints", "integrity"} {
		if strings.HasPrefix(base, known+".") {
			return known
		}
	}
	if temporary && base == "data" {
		return ""
	}
	return base
}

// maxLeft is how many names there may be.
const maxLeft = 100

// bareData tells whether a data directory has the segments of a first transaction at
// most; without committed, only such as nothing was committed in.
func bareData(dir string, committed bool) (bool, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, unix.ENOTDIR) || len(entries) > 1 || len(entries) == 1 && entries[0].Name() != "0" {
		return false, nil
	}
	if err != nil || len(entries) == 0 {
		return err == nil, err
	}
	segments, err := os.ReadDir(filepath.Join(dir, "0"))
	if errors.Is(err, unix.ENOTDIR) {
		return false, nil
	}
	for _, e := range segments {
		if e.Name() != "0" && e.Name() != "1" {
			return false, nil
		}
		if bare, err := bareSegment(filepath.Join(dir, "0", e.Name())); err != nil || !bare && !committed {
			return false, err
		}
	}
	return err == nil, err
}

var errNotBare = errors.New("there is more than a manifest")

// bareSegment tells whether a segment holds nothing but manifests, the last of which
// may be cut short, and no COMMIT.
func bareSegment(path string) (bool, error) {
	f, size, err := openRegular(path)
	if errors.Is(err, errNotRegular) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	end := int64(len(segmentMagic)) // of the last whole entry
	if size <= end {
		return size == 0 || size == end, nil
	}
	err = walkSegment(f, size, func(off int64, e entry) error {
		if e.tag != tagPut || e.id != manifest {
			return errNotBare
		}
		end = off + int64(e.size)
		return nil
	})
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		return err == nil, nil
	}
	var head [putHeaderSize]byte
	if n, _ := f.ReadAt(head[:], end); n < len(head) {
		return true, nil // too short for any object
	}
	e, err := parseEntry(head[:])
	return err == nil && e.tag == tagPut && e.id == manifest, nil
}

// Unfinished tells whether the repository was begun and never finished. One that
// has lost its manifest is none: something else of it is left, too.
func (s *Repository) Unfinished() (bool, error) {
	l, err := leftIn(s.dir, false)
	return l.begun(), err
}

// claim takes the lock of a directory that is empty, or was left by a making that
// was killed.
func claim(ctx context.Context, dir string, o CreateOptions) (*lock.Lock, error) {
	if l, err := leftIn(dir, false); err != nil || l.other {
		return nil, errors.Join(err, fmt.Errorf("%w: %s", fault.ErrExists, dir))
	}
	held, err := lock.Exclusive(ctx, dir, lock.Options{Environ: o.Environ, Logger: o.Logger})
	if err != nil {
		return nil, err
	}
	if l, err := leftIn(dir, false); err != nil || l.other { // somebody has finished it
		return nil, errors.Join(err, held.Release(), fmt.Errorf("%w: %s", fault.ErrExists, dir))
	}
	return held, nil
}

// clearOut removes all that [leftIn] knows but the lock. The configuration goes
// first, and last what tells that a repository was to be.
func clearOut(dir string) error {
	err := os.Remove(filepath.Join(dir, "config"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "lock.") && e.Name() != "README" {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(err, os.RemoveAll(filepath.Join(dir, "README")))
}

// giveUp leaves a directory that was claimed empty.
func giveUp(dir string, l *lock.Lock) error {
	err := errors.Join(clearOut(dir), l.Release())
	if rerr := os.Remove(filepath.Join(dir, "lock.roster")); !errors.Is(rerr, fs.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	return err
}

// hiddenName is the name of a directory where a repository is made that is to be dir.
func hiddenName(dir, number string) string { return "." + filepath.Base(dir) + "." + number + ".tmp" }

// enter opens a hidden directory for who works in it: nil where somebody else
// does, or has removed it. Some network file systems have no such locks, and locked
// is false.
func enter(tmp string) (f *os.File, locked bool) {
	f, err := os.OpenFile(tmp, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, false
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	there, serr := os.Lstat(tmp)
	mine, merr := f.Stat()
	if errors.Is(err, unix.EWOULDBLOCK) || serr != nil || merr != nil || !os.SameFile(there, mine) {
		f.Close()
		return nil, false
	}
	return f, err == nil
}

// sweep removes the hidden directories of makings of dir that were killed. One that
// holds anything else, or in which somebody is at work, stays.
func sweep(dir string, log *slog.Logger) {
	parent := filepath.Dir(dir)
	entries, err := os.ReadDir(parent)
	if err != nil { // whoever makes something there will say so
		return
	}
	before, behind, _ := strings.Cut(hiddenName(dir, "*"), "*.")
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), before)
		number, ok2 := strings.CutSuffix(number, "."+behind)
		if !ok || !ok2 || number == "" || strings.Trim(number, "0123456789") != "" {
			continue
		}
		tmp := filepath.Join(parent, e.Name())
		f, locked := enter(tmp)
		if f == nil {
			continue
		}
		if l, err := leftIn(tmp, true); err == nil && locked && !l.other {
			log.Info("removing a repository that was begun and never finished", "path", tmp, "error", os.RemoveAll(tmp))
		}
		f.Close()
	}
}
