package archive

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/internal/posixacl"
	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/worktree"
)

// itemOf makes an archive's item of a live entry, but for content and hard links.
func (m *Maker) itemOf(l *worktree.Live) (*borgio.Item, error) {
	it := &borgio.Item{
		Path: itemPath(l.Path), Mode: l.Mode, UID: l.UID, GID: l.GID,
		User: m.names.User(l.UID), Group: m.names.Group(l.GID),
		Rdev: l.Rdev, Mtime: l.Mtime, Ctime: l.Ctime, HasCtime: true,
		Source: l.Target, BSDFlags: l.Flags,
	}
	for _, x := range l.Xattrs {
		var err error
		switch x.Name {
		case posixacl.AccessXattr:
			it.ACLAccess, err = m.acl(x)
		case posixacl.DefaultXattr:
			it.ACLDefault, err = m.acl(x)
		default:
			it.Xattrs = append(it.Xattrs, borgio.Xattr{Name: x.Name, Value: x.Value})
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", x.Name, err)
		}
	}
	return it, nil
}

func (m *Maker) acl(x snapshot.Xattr) ([]byte, error) {
	if x.Name == posixacl.AccessXattr && posixacl.Plain(x.Value) {
		return nil, nil
	}
	text, err := posixacl.ToNamedText(x.Value, func(group bool, id uint32) string {
		if group {
			return m.names.Group(id)
		}
		return m.names.User(id)
	})
	if err != nil || text == "" {
		return nil, err
	}
	return []byte(text[:len(text)-1]), nil // borg has no newline at the end
}

// itemPath is a path as archives have it.
func itemPath(path string) string {
	if path == "" {
		return "."
	}
	return path
}

func isRegular(mode uint32) bool { return mode&unix.S_IFMT == unix.S_IFREG }
func isLink(mode uint32) bool    { return mode&unix.S_IFMT == unix.S_IFLNK }
func isDir(mode uint32) bool     { return mode&unix.S_IFMT == unix.S_IFDIR }
func isSocket(mode uint32) bool  { return mode&unix.S_IFMT == unix.S_IFSOCK }

// linked tells whether an inode may have further names that archives know of.
// They record a symbolic link's target where another item names its master.
func linked(l *worktree.Live) bool { return l.Nlink > 1 && !isDir(l.Mode) && !isLink(l.Mode) }
