package main

import (
	"io/fs"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/snapshot"
)

// snapshotJSON is a snapshot as every --json shows it.
type snapshotJSON struct {
	Time    time.Time `json:"time"`
	Dir     string    `json:"dir"` // its name under .s4/history
	ID      string    `json:"id"`
	Parent  string    `json:"parent,omitempty"`
	Volume  string    `json:"volume,omitempty"`
	Source  string    `json:"source"`
	Archive string    `json:"archive"` // its name
	Handle  string    `json:"archive_id"`
	Host    string    `json:"host,omitempty"`
	User    string    `json:"user,omitempty"`
	Message string    `json:"message,omitempty"`
	Files   int64     `json:"files"`
	Size    int64     `json:"size"`
}

func toJSON(s snapshot.Info) snapshotJSON {
	return snapshotJSON{
		Time: s.Time, Dir: s.Dir, ID: s.ID, Parent: s.Parent, Volume: s.Volume, Source: s.Source,
		Archive: s.Name, Handle: s.Handle, Host: s.Host, User: s.User, Message: s.Message,
		Files: s.Files, Size: s.Size,
	}
}

// entryJSON is an entry of a tree as every --json shows it. Bytes that are
// not UTF-8 show as U+FFFD; path_bytes then has them whole.
type entryJSON struct {
	Path    string    `json:"path"`
	Bytes   []byte    `json:"path_bytes,omitempty"`
	Type    string    `json:"type"`
	Mode    string    `json:"mode"` // octal permission bits
	UID     uint32    `json:"uid"`
	GID     uint32    `json:"gid"`
	User    string    `json:"user,omitempty"`
	Group   string    `json:"group,omitempty"`
	Size    int64     `json:"size"`
	Mtime   time.Time `json:"mtime"`
	Target  string    `json:"target,omitempty"`
	Links   uint32    `json:"links"`
	Damaged bool      `json:"damaged,omitempty"`
}

func entryToJSON(path string, e snapshot.Entry) entryJSON {
	j := entryJSON{
		Path: path, Type: typeName(e.Mode), Mode: strconv.FormatUint(uint64(e.Mode&0o7777), 8),
		UID: e.UID, GID: e.GID, User: e.User, Group: e.Group, Size: e.Size,
		Mtime: time.Unix(0, e.Mtime).UTC(), Target: e.Target, Links: e.Nlink, Damaged: e.Damaged,
		Bytes: bytesJSON(path),
	}
	return j
}

func typeName(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFLNK:
		return "symlink"
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFCHR:
		return "character device"
	case unix.S_IFBLK:
		return "block device"
	}
	return "file"
}

// modeString is such as "-rw-r--r--".
func modeString(mode uint32) string {
	m := fs.FileMode(mode & 0o777)
	letters := []byte(m.String())
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		letters[0] = 'd'
	case unix.S_IFLNK:
		letters[0] = 'l'
	case unix.S_IFIFO:
		letters[0] = 'p'
	case unix.S_IFCHR:
		letters[0] = 'c'
	case unix.S_IFBLK:
		letters[0] = 'b'
	}
	special := func(bit uint32, at int, set, unset byte) {
		if mode&bit == 0 {
			return
		}
		if letters[at] == 'x' {
			letters[at] = set
		} else {
			letters[at] = unset
		}
	}
	special(unix.S_ISUID, 3, 's', 'S')
	special(unix.S_ISGID, 6, 's', 'S')
	special(unix.S_ISVTX, 9, 't', 'T')
	return string(letters)
}
