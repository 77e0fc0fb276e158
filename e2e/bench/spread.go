package main

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// When ext4 makes a file, it passes over every inode of the block group that
// was freed within the last minutes, one by one. Whoever makes files where
// others have just been removed pays for that many times over, so each turn of
// the group live has to have a block group of its own.

// spreadCandidates are tried to choose a directory from, with so few files that
// trying them slows nothing down.
const (
	spreadCandidates = 16
	spreadFiles      = 6
)

// spreadDirectories makes ext4 put each new directory in dir into some other
// block group, by its name. Other file systems, which have no such flag, go
// without.
func spreadDirectories(dir string) {
	const topOfHierarchy = 0x00020000 // FS_TOPDIR_FL in linux/fs.h
	d, err := os.Open(dir)
	if err != nil {
		return
	}
	defer d.Close()
	if flags, err := unix.IoctlGetUint32(int(d.Fd()), unix.FS_IOC_GETFLAGS); err == nil {
		_ = unix.IoctlSetPointerInt(int(d.Fd()), unix.FS_IOC_SETFLAGS, int(flags|topOfHierarchy))
	}
}

// spreadDirectory makes an empty directory in dir, which [spreadDirectories]
// knows, where files are made quickly. Names alone lead every tenth into a block
// group that was used a moment ago, by this run or by somebody else.
func spreadDirectory(dir string) (made string, err error) {
	var all []string
	quickest := time.Duration(math.MaxInt64)
	for range spreadCandidates {
		path, err := os.MkdirTemp(dir, liveMade)
		if err != nil {
			return "", err
		}
		all = append(all, path)
		took, err := tryDirectory(path)
		if err != nil {
			return "", err
		}
		if took < quickest {
			made, quickest = path, took
		}
	}
	for _, path := range all { // only now: until then the next one goes elsewhere
		if path != made {
			err = errors.Join(err, os.Remove(path))
		}
	}
	return made, err
}

// tryDirectory gives the time that it takes to make a few files in dir. The
// first is not counted: the kernel may have to read about the block group.
func tryDirectory(dir string) (took time.Duration, err error) {
	var start time.Time
	for i := range spreadFiles {
		if i == 1 {
			start = time.Now()
		}
		if err := writeLive(dir, i); err != nil {
			return 0, err
		}
	}
	took = time.Since(start)
	for i := range spreadFiles {
		err = errors.Join(err, os.Remove(filepath.Join(dir, strconv.Itoa(i))))
	}
	return took, err
}
