package fusefs

import (
	"errors"
	"strconv"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/s4-storage/s4/snapshot"
)

// The layout of node ids and inode numbers; the package comment explains it.
const (
	bitHistory  = 1 << 63
	bitRootView = 1 << 62
	bitSpecial  = 1 << 61

	versionBits = 36
	numBits     = 25
	ordinalBits = 4
	maxVersion  = 1<<versionBits - 1
	maxNum      = 1<<numBits - 1

	// In a special id, when the low bits hold a snapshot number:
	bitMoment   = 1 << 35 // a link to the snapshot
	bitSnapshot = 1 << 34 // the snapshot's directory in .s4/history

	// In a special id, when the low bits hold the index's number
	bitEverDir  = 1 << 60 // of a directory: one in .s4/versions
	bitEverFile = 1 << 59 // of a version: the directory of its path's versions
	bitGoneDir  = 1 << 58 // of a directory: one in .s4/deleted
	bitHereLink = 1 << 57 // of a directory of a snapshot: a link in it, see hereLink
	bitHere     = 1 << 56 // of a directory: where the time line is seen from it
	bitsByIndex = bitEverDir | bitEverFile | bitGoneDir | bitHereLink | bitHere

	bitHereRootView = 1 << 55 // the link's directory is seen from the mount's root
	hereWhich       = 53      // from this bit on: 0, or 1 more than a place in shortcuts

	idHistory  uint64 = bitHistory | bitSpecial | 1 // .s4/.history
	idDotS4    uint64 = bitHistory | bitSpecial | 2 // .s4 of a repository mount
	idVersions uint64 = bitHistory | bitSpecial | 3 // .s4/.versions
	idDeleted  uint64 = bitHistory | bitSpecial | 4 // .s4/.deleted

	idHistoryLink  uint64 = bitHistory | bitSpecial | 5 // .s4/history
	idVersionsLink uint64 = bitHistory | bitSpecial | 6 // .s4/versions
	idDeletedLink  uint64 = bitHistory | bitSpecial | 7 // .s4/deleted
)

// errIDRange says that a number outgrew its bits in a node id.
var errIDRange = errors.New("snapshot or version number too large for a node id")

// isHistory tells the history side's ids from the live side's.
func isHistory(id uint64) bool { return id&bitHistory != 0 }

// entryID computes the node id of an entry of a snapshot.
func entryID(rootView bool, num, version int64) (uint64, error) {
	if num <= 0 || num > maxNum || version < 0 || version > maxVersion {
		return 0, errIDRange
	}
	id := uint64(bitHistory) | uint64(num)<<versionBits | uint64(version)
	if rootView {
		id |= bitRootView
	}
	return id, nil
}

// splitID is the inverse of entryID.
func splitID(id uint64) (rootView bool, num, version int64) {
	return id&bitRootView != 0, int64(id >> versionBits & maxNum), int64(id & maxVersion)
}

// momentID computes the node id of a link to a snapshot's directory.
func momentID(info snapshot.Info) (uint64, error) {
	if info.Num <= 0 || info.Num > maxNum {
		return 0, errIDRange
	}
	return bitHistory | bitSpecial | bitMoment | ordinal(info)<<numBits | uint64(info.Num), nil
}

// ordinal is the end of a snapshot's directory name, 2 in …_2, as far as it has
// room in a node id. The kernel keeps where a link leads for as long as it
// knows its id, and these names change when one of several snapshots in a
// second goes.
func ordinal(info snapshot.Info) uint64 {
	_, end, _ := strings.Cut(info.Dir, "_")
	n, _ := strconv.ParseUint(end, 10, 64) // 0 for none
	return n & (1<<ordinalBits - 1)
}

// momentNum gives the snapshot number in a moment link's id.
func momentNum(id uint64) (num int64, ok bool) {
	return int64(id & maxNum), id&bitSpecial != 0 && id&bitMoment != 0 && id&(bitRootView|bitsByIndex) == 0
}

// snapshotID computes the node id of a snapshot's directory in .s4/history. It
// does not need the index to know the snapshot's tree already.
func snapshotID(num int64) (uint64, error) {
	if num <= 0 || num > maxNum {
		return 0, errIDRange
	}
	return bitHistory | bitSpecial | bitSnapshot | uint64(num), nil
}

// snapshotNum gives the snapshot number in such an id.
func snapshotNum(id uint64) (num int64, ok bool) {
	return int64(id & maxNum), id&bitSpecial != 0 && id&bitSnapshot != 0 && id&(bitRootView|bitsByIndex) == 0
}

// hereMomentID computes the node id of a link to a directory of a snapshot.
func hereMomentID(info snapshot.Info, dir int64) (uint64, error) {
	if dir < 0 || dir > maxVersion>>ordinalBits {
		return 0, errIDRange
	}
	id, err := entryID(true, info.Num, dir|int64(ordinal(info))<<(versionBits-ordinalBits))
	return id | bitSpecial, err
}

// hereMomentOf gives the snapshot's and the directory's number in such an id.
func hereMomentOf(id uint64) (num, dir int64) {
	_, num, dir = splitID(id)
	return num, dir & (maxVersion >> ordinalBits)
}

// isHereMoment tells whether an id is a snapshot's and a directory's numbers:
// a link to that directory, see hereMoment.
func isHereMoment(id uint64) bool { return id&bitRootView != 0 && id&bitSpecial != 0 }

// everID computes the node id of what was at one path over time.
func everID(e *snapshot.Entry) (uint64, error) {
	if e.Dir != 0 {
		return indexID(bitEverDir, e.Dir)
	}
	return indexID(bitEverFile, e.Version)
}

// indexID computes a node id from one of the index's numbers.
func indexID(bit uint64, number int64) (uint64, error) {
	if number <= 0 || number > maxVersion {
		return 0, errIDRange
	}
	return bitHistory | bitSpecial | bit | uint64(number), nil
}

// inode gives the inode number of an entry whose node id is id.
func inode(id uint64, num int64, e *snapshot.Entry) uint64 {
	switch {
	case e.Mode&syscall.S_IFMT == syscall.S_IFDIR:
		return id
	case e.LinkID != 0:
		// Group ids may use all of their 64 bits. Two groups of a snapshot
		// with one inode number would be linked together by whoever copies
		// them, so as many bits as possible are kept: 61, well mixed.
		return bitHistory | bitRootView | bitSpecial | mix(e.LinkID, uint64(num))>>3
	default:
		return bitHistory | uint64(e.Version)
	}
}

// mix scatters a, which stays distinct for a given b (the finalizer of
// splitmix64, a bijection).
func mix(a, b uint64) uint64 {
	a += b * 0x9e3779b97f4a7c15
	a = (a ^ a>>30) * 0xbf58476d1ce4e5b9
	a = (a ^ a>>27) * 0x94d049bb133111eb
	return a ^ a>>31
}

// blockSize is what the history side reports as the best size for reads.
const blockSize = 4096

// entryAttr gives an entry's attributes in the kernel's form.
func entryAttr(id uint64, num int64, e *snapshot.Entry) fuse.Attr {
	a := fuse.Attr{
		Ino:     inode(id, num, e),
		Mode:    e.Mode,
		Nlink:   max(e.Nlink, 1),
		Owner:   fuse.Owner{Uid: e.UID, Gid: e.GID},
		Rdev:    uint32(e.Rdev), // the kernel's 32-bit form is the low half of st_rdev
		Blksize: blockSize,
	}
	switch e.Mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		a.Size = uint64(e.Size)
		a.Blocks = blocks(e.Size - e.Holes)
	case syscall.S_IFLNK:
		a.Size = uint64(len(e.Target))
	case syscall.S_IFDIR:
		asDir(&a, e.Subdirs)
	}
	setTimes(&a, e.Mtime, e.Atime, e.Ctime)
	return a
}

// blocks is how much a file system takes for so many bytes, in units of 512.
func blocks(size int64) uint64 { return uint64(size+blockSize-1) / blockSize * (blockSize / 512) }

// asDir gives a directory the size and the links that one on a disk has: its
// own name, "." in it, and ".." in its directories.
func asDir(a *fuse.Attr, subdirs uint32) {
	a.Size, a.Blocks = blockSize, blocks(blockSize)
	a.Nlink = 2 + subdirs
}

// setTimes sets times given in ns; an unrecorded access or change time is
// shown as the modification time.
func setTimes(a *fuse.Attr, mtime, atime, ctime int64) {
	if atime == 0 {
		atime = mtime
	}
	if ctime == 0 {
		ctime = mtime
	}
	a.Mtime, a.Mtimensec = splitNS(mtime)
	a.Atime, a.Atimensec = splitNS(atime)
	a.Ctime, a.Ctimensec = splitNS(ctime)
}

// splitNS splits ns since the epoch, which may be before it, into seconds and
// a positive rest.
func splitNS(ns int64) (sec uint64, nsec uint32) {
	s, n := ns/1e9, ns%1e9
	if n < 0 {
		s, n = s-1, n+1e9
	}
	return uint64(s), uint32(n)
}
