package history

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	"github.com/s4-storage/s4/internal/owner"
	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/worktree"
)

// Scan implements [snapshot.Source].
//
// Items have no Content, since content is read by path, and what borg would
// record of them: sockets are left out, times of access and birth are not told.
// So what an archive and a btrfs snapshot hold is alike.
//
// The tree is cut into sections where the hash of a path says so. A section's
// object is the hash of what stat tells of its items, inode and ctime among it:
// where that is equal, so are extended attributes and all else. Thus in a
// further snapshot only stat is asked of what stayed as it was.
func (s *BtrfsSource) Scan(ctx context.Context, info snapshot.Info, known []snapshot.Section) snapshot.Scanner {
	scan := &btrfsScanner{
		source: s, info: info, known: make(map[[32]byte]bool, len(known)), at: -1,
		links: map[uint64]*linkGroup{}, log: s.log.With("snapshot", info.Handle),
	}
	for _, k := range known {
		scan.known[k.Objects[0]] = true
	}
	scan.eager.Store(len(known) == 0)
	if scan.root, scan.err = s.root(info); scan.err != nil {
		return scan
	}
	scan.next, scan.stop = iter.Pull2(scan.root.Walk(ctx, worktree.Options{Exclude: s.exclude, Attributes: scan.eager.Load}))
	return scan
}

// btrfsScanner walks through a btrfs snapshot. It holds one section.
type btrfsScanner struct {
	source *BtrfsSource
	info   snapshot.Info
	log    *slog.Logger
	root   *worktree.Root // nil when it could not be opened
	next   func() (worktree.Live, error, bool)
	stop   func()
	known  map[[32]byte]bool
	names  owner.Names
	links  map[uint64]*linkGroup // that are not complete, by inode
	eager  atomic.Bool           // attributes are read while directories are listed

	items  []scanned
	raw    []byte   // of all items, one after the other
	object [32]byte // the section's
	at     int      // present item
	asked  int      // items of the section that were wanted
	ahead  *worktree.Live
	item   snapshot.Item
	ended  bool
	lost   int // entries left out
	err    error
}

// scanned is an item of the section.
type scanned struct {
	worktree.Live
	linkTo string
	end    int // of its bytes in raw
}

// linkGroup is a hard-link group that is being met.
type linkGroup struct {
	first string
	left  uint32 // names not met yet
}

const (
	meanSection = 128  // items, and a power of two
	maxSection  = 1024 // bounds the memory
	maxTold     = 20   // lines in the log about what is left out

	// nestedIno is the inode of the empty directory that stands where the
	// volume has another subvolume.
	nestedIno = 2
)

// Objects implements [snapshot.Scanner]: they are known once everything has been
// asked for.
func (s *btrfsScanner) Objects() [][32]byte { return nil }

// Next implements [snapshot.Scanner].
func (s *btrfsScanner) Next() bool {
	if s.err != nil || s.root == nil {
		return false
	}
	// Attributes are read ahead where most items are wanted.
	if len(s.items) > 0 {
		s.eager.Store(2*s.asked > len(s.items))
	}
	s.items, s.raw, s.at, s.asked = s.items[:0], s.raw[:0], -1, 0
	for !s.ended && len(s.items) < maxSection {
		l, ok := s.step()
		if !ok {
			break
		}
		if len(s.items) > 0 && xxhash.Sum64String(l.Path)%meanSection == 0 {
			s.ahead = l
			break
		}
		s.take(l)
	}
	s.object = sha256.Sum256(s.raw)
	return s.err == nil && len(s.items) > 0
}

// step gives the next entry of the tree that is to be taken.
func (s *btrfsScanner) step() (*worktree.Live, bool) {
	if l := s.ahead; l != nil {
		s.ahead = nil
		return l, true
	}
	for {
		l, err, ok := s.next()
		switch {
		case !ok:
			if s.ended = true; s.lost > maxTold {
				s.log.Warn("left out of the snapshot", "more paths", s.lost-maxTold)
			}
			s.err = s.stillThere()
			return nil, false
		case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), err != nil && l.Path == "":
			s.err = err
			return nil, false
		case err != nil:
			if s.lost++; s.lost <= maxTold {
				s.log.Warn("left out of the snapshot", "path", l.Path, "error", err)
			}
		case l.Mode&modeType != modeSocket:
			if l.Ino == nestedIno && l.Path != "" {
				l.Mtime, l.Ctime = 0, 0 // else those of this look
			}
			return &l, true
		}
	}
}

// stillThere makes sure that the snapshot was not deleted during the walk, to
// which its rest would then have looked empty.
func (s *btrfsScanner) stillThere() error {
	was, err := s.root.Stat("")
	if err != nil {
		return err
	}
	root, err := s.source.root(s.info)
	if err != nil {
		return err
	}
	defer root.Close()
	if is, err := root.Stat(""); err != nil || is.Ino != was.Ino || is.Dev != was.Dev {
		return errors.Join(err, fs.ErrNotExist)
	}
	return nil
}

// take adds an entry to the section.
func (s *btrfsScanner) take(l *worktree.Live) {
	it := scanned{Live: *l}
	it.User, it.Group = s.names.User(l.UID), s.names.Group(l.GID)
	if l.Nlink > 1 {
		g := s.links[l.Ino]
		if g == nil {
			g = &linkGroup{l.Path, l.Nlink}
			s.links[l.Ino] = g
		}
		it.linkTo = g.first
		if g.left--; g.left == 0 {
			delete(s.links, l.Ino)
		}
	}
	b := s.raw
	for _, n := range [...]uint64{
		l.Ino, uint64(l.Ctime), uint64(l.Mtime), uint64(l.Size), uint64(l.Blocks), l.Rdev,
		uint64(l.Mode)<<32 | uint64(l.Flags), uint64(l.UID)<<32 | uint64(l.GID), uint64(l.Nlink),
	} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	for _, text := range [...]string{l.Path, it.User, it.Group, l.Target, it.linkTo} {
		b = binary.AppendUvarint(b, uint64(len(text)))
		b = append(b, text...)
	}
	it.end, s.raw = len(b), b
	s.items = append(s.items, it)
}

// Known implements [snapshot.Scanner].
func (s *btrfsScanner) Known() bool { return s.known[s.object] }

// Section implements [snapshot.Scanner].
func (s *btrfsScanner) Section() snapshot.Section {
	return snapshot.Section{Objects: [][32]byte{s.object}, End: len(s.raw)}
}

// NextItem implements [snapshot.Scanner].
func (s *btrfsScanner) NextItem() bool {
	if s.err != nil || s.at+1 >= len(s.items) {
		return false
	}
	s.at++
	return true
}

// Ahead implements [snapshot.Scanner].
func (s *btrfsScanner) Ahead() []byte { return s.raw[s.start():] }

// Leap implements [snapshot.Scanner].
func (s *btrfsScanner) Leap(n int) {
	for end := s.start() + n; s.at < len(s.items)-1 && s.items[s.at].end < end; s.at++ {
	}
}

// start is where the present item begins in raw.
func (s *btrfsScanner) start() int {
	if s.at <= 0 {
		return 0
	}
	return s.items[s.at-1].end
}

// Raw implements [snapshot.Scanner].
func (s *btrfsScanner) Raw() []byte { return s.raw[s.start():s.items[s.at].end] }

// Item implements [snapshot.Scanner].
func (s *btrfsScanner) Item() *snapshot.Item {
	s.asked++
	it := &s.items[s.at]
	if it.Xattrs == nil {
		var err error
		if it.Xattrs, err = s.root.AllXattrs(it.Path); err != nil {
			s.log.Warn("extended attributes left out", "path", it.Path, "error", err)
		}
	}
	s.item = snapshot.Item{Path: it.Path, Entry: it.Entry, LinkTo: it.linkTo}
	s.item.Atime, s.item.Birth = 0, 0
	s.item.Holes = it.holes()
	if it.linkTo != "" && it.linkTo != it.Path {
		s.item.Size = 0
	}
	return &s.item
}

// holes counts the bytes that take no room, which is given in whole blocks.
func (it *scanned) holes() int64 {
	const block = 4096
	if it.Mode&modeType != modeRegular {
		return 0
	}
	return min(it.Size, max(0, (it.Size+block-1)/block*block-it.Blocks*512))
}

// Err implements [snapshot.Scanner].
func (s *btrfsScanner) Err() error {
	if s.err == nil {
		return nil
	}
	return fmt.Errorf("read btrfs snapshot %s: %w", s.info.Handle, s.err)
}

// Close implements [snapshot.Scanner].
func (s *btrfsScanner) Close() {
	if s.root != nil {
		s.stop()
		s.root.Close()
	}
}
