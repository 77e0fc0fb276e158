package btrfsvol

import (
	"encoding/binary"
	"errors"
	"math"
	"os"
	"strings"
)

// linkFinder finds an inode's paths in a subvolume, by the references from
// inodes to directories that btrfs keeps.
type linkFinder struct {
	dir  *os.File          // the subvolume's root
	dirs map[uint64]string // paths of directories
	args *searchArgs
}

// The items that hold references, as in the kernel's btrfs_tree.h.
const (
	inodeRef    = 12 // offset: the directory; (index u64, length u16, name)…
	inodeExtref = 13 // (directory u64, index u64, length u16, name)…

	searchHeader = 32 // transid u64, objectid u64, offset u64, type u32, length u32
)

var errTreeItem = errors.New("damaged reference of an inode")

// paths are an inode's, in no order.
func (l *linkFinder) paths(ino uint64) ([]string, error) {
	if l.args == nil {
		l.args = new(searchArgs)
	}
	var paths []string
	a := l.args
	a.MinObject, a.MaxObject = ino, ino
	a.MinType, a.MaxType = inodeRef, inodeExtref
	a.MinOffset, a.MaxOffset = 0, math.MaxUint64
	a.MinTrans, a.MaxTrans = 0, math.MaxUint64
	for {
		a.Items, a.BufSize = math.MaxUint32, uint64(len(a.Buf))
		if err := ioctl(l.dir, iocTreeSearch, a); err != nil {
			return nil, fail("find hard links in", l.dir.Name(), err)
		}
		if a.Items == 0 {
			return paths, nil
		}
		buf := a.Buf[:]
		for range a.Items {
			if len(buf) < searchHeader {
				return nil, errTreeItem
			}
			offset := binary.NativeEndian.Uint64(buf[16:])
			kind := binary.NativeEndian.Uint32(buf[24:])
			length := binary.NativeEndian.Uint32(buf[28:])
			buf = buf[searchHeader:]
			if uint64(length) > uint64(len(buf)) {
				return nil, errTreeItem
			}
			var err error
			if paths, err = l.item(kind, offset, buf[:length], paths); err != nil {
				return nil, err
			}
			buf = buf[length:]
			a.MinType, a.MinOffset = kind, offset+1
		}
		if a.MinOffset == 0 { // it was the last of its type
			if a.MinType++; a.MinType > a.MaxType {
				return paths, nil
			}
		}
	}
}

// item adds the paths that an item refers to.
func (l *linkFinder) item(kind uint32, dir uint64, p []byte, paths []string) ([]string, error) {
	for len(p) > 0 {
		if kind == inodeExtref {
			if len(p) < 8 {
				return nil, errTreeItem
			}
			dir, p = binary.LittleEndian.Uint64(p), p[8:]
		}
		if len(p) < 10 {
			return nil, errTreeItem
		}
		n := 10 + int(binary.LittleEndian.Uint16(p[8:]))
		if len(p) < n {
			return nil, errTreeItem
		}
		path, err := l.directory(dir)
		if err != nil {
			return nil, err
		}
		paths = append(paths, join(path, string(p[10:n])))
		p = p[n:]
	}
	return paths, nil
}

// directory is the path of a directory.
func (l *linkFinder) directory(ino uint64) (string, error) {
	if path, ok := l.dirs[ino]; ok || ino == rootIno {
		return path, nil
	}
	args := lookupArgs{Ino: ino}
	if err := ioctl(l.dir, iocInoLookup, &args); err != nil {
		return "", fail("find hard links in", l.dir.Name(), err)
	}
	path := strings.TrimSuffix(cString(args.Path[:]), "/")
	l.dirs[ino] = path
	return path, nil
}
