package btrfsvol

import (
	"errors"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Nested lists the subvolumes directly inside of the one whose root is dir, by
// their paths relative to it. A snapshot has an empty directory in the place of
// each. The kernel tells them without a walk through the files.
func Nested(dir string) ([]string, error) {
	f, err := open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := check(f); err != nil {
		return nil, fail("list subvolumes in", dir, err)
	}
	var paths []string
	refs := rootrefArgs{}
	for {
		err := ioctl(f, iocSubvolRootref, &refs)
		more := errors.Is(err, unix.EOVERFLOW)
		if err != nil && !more {
			return nil, fail("list subvolumes in", dir, err)
		}
		for _, ref := range refs.Refs[:refs.Count] {
			args := lookupUserArgs{DirID: ref.DirID, ID: ref.ID}
			if err := ioctl(f, iocLookupUser, &args); err != nil {
				return nil, fail("list subvolumes in", dir, err)
			}
			paths = append(paths, filepath.Join(cString(args.Path[:]), cString(args.Name[:])))
		}
		if !more {
			return paths, nil
		}
		refs.MinID = refs.Refs[refs.Count-1].ID + 1
	}
}
