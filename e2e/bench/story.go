package main

import (
	"path/filepath"
	"slices"
)

// story is what becomes of a tree over a history: what questions about it must
// be answered with.
type story struct {
	path     string     // the file written anew most often and never moved
	versions int        // of it
	gone     string     // a file of the first snapshot that the last one lacks
	goneLast int        // the last snapshot that has it
	changed  [][]string // the paths that differ between snapshots i and i+1
	stay     []string   // some files that are in every snapshot
}

// stayCount is how many files are looked up.
const stayCount = 1000

// tell plays the changes through, which alters t.
func tell(t *tree, snapshots int, advance func(n int) []change) story {
	var s story
	first := map[uint64]string{} // paths by id
	for _, f := range t.files {
		first[f.id] = f.path
	}
	for n := range snapshots - 1 {
		var paths []string
		for _, c := range advance(n) {
			for _, f := range []*file{c.from, c.to} {
				if f != nil && !slices.Contains(paths[max(0, len(paths)-1):], f.path) {
					paths = append(paths, f.path)
				}
			}
			if c.to == nil && s.gone == "" && first[c.from.id] == c.from.path {
				s.gone, s.goneLast = c.from.path, n
			}
		}
		s.changed = append(s.changed, paths)
	}
	for _, f := range t.files {
		if first[f.id] != f.path {
			continue
		}
		if v := int(f.version) + 1; v > s.versions {
			s.path, s.versions = f.path, v
		}
	}
	for _, i := range t.rand(streamPick, uint64(len(t.files)), 1).Perm(len(t.files)) {
		if f := t.files[i]; first[f.id] == f.path && len(s.stay) < stayCount {
			s.stay = append(s.stay, f.path)
		}
	}
	return s
}

func (s story) goneName() string { return filepath.Base(s.gone) }
