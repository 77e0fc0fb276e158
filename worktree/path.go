package worktree

import (
	"crypto/rand"
	"slices"
	"strings"
)

// ComparePaths orders paths as every walk yields them: a directory's content
// comes right after it, before any sibling.
func ComparePaths(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] == b[i] {
			continue
		}
		switch {
		case a[i] == '/':
			return -1
		case b[i] == '/':
			return 1
		case a[i] < b[i]:
			return -1
		}
		return 1
	}
	return len(a) - len(b)
}

// within tells whether path is dir or below it.
func within(path, dir string) bool {
	return dir == "" || strings.HasPrefix(path, dir) && (len(path) == len(dir) || path[len(dir)] == '/')
}

// split cuts path into its directory ("" for the root) and its last element.
func split(path string) (dir, name string) {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return "", path
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// scope puts paths in walk order and drops those below another. No paths
// mean the whole tree.
func scope(paths []string) []string {
	if len(paths) == 0 {
		return []string{""}
	}
	sorted := slices.SortedFunc(slices.Values(paths), ComparePaths)
	return slices.CompactFunc(sorted, func(kept, next string) bool { return within(next, kept) })
}

const (
	tempPrefix = ".s4-tmp-"
	tempRandom = 8
	tempDigits = "0123456789abcdefghijklmnopqrstuvwxyz"
)

func tempName() string {
	var b [tempRandom]byte
	rand.Read(b[:]) // never fails
	for i := range b {
		b[i] = tempDigits[int(b[i])%len(tempDigits)]
	}
	return tempPrefix + string(b[:])
}

func isTemp(name string) bool {
	rest, ok := strings.CutPrefix(name, tempPrefix)
	return ok && len(rest) == tempRandom && strings.Trim(rest, tempDigits) == ""
}
