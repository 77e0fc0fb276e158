package disk

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// listBatch is how many names of a directory are looked at at a time.
const listBatch = 4096

// numbered lists the names in dir that are prefix and a decimal number, as
// numbers in descending order. Besides those it takes little memory, whatever
// else there is.
func numbered(ctx context.Context, dir, prefix string) ([]int64, error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0) // nor waits for a pipe
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var nums []int64
	for {
		names, err := f.Readdirnames(listBatch)
		for _, name := range names {
			digits, ok := strings.CutPrefix(name, prefix)
			n, err := strconv.ParseUint(digits, 10, 32)
			if ok && err == nil && n < bucketTombstone && digits == strconv.FormatUint(n, 10) {
				nums = append(nums, int64(n))
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			slices.SortFunc(nums, func(a, b int64) int { return cmp.Compare(b, a) })
			return nums, nil
		case err != nil:
			return nil, err
		case ctx.Err() != nil:
			return nil, ctx.Err()
		}
	}
}

// segmentsIn lists the segments in the data directory d, in descending order.
// What else lies there, or in the place of the directory, is none.
func segmentsIn(ctx context.Context, dir string, perDir int, d int64) ([]int64, error) {
	nums, err := numbered(ctx, filepath.Join(dir, "data", strconv.FormatInt(d, 10)), "")
	if errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	return slices.DeleteFunc(nums, func(n int64) bool { return n/int64(perDir) != d }), err
}

// segmentsAbove lists the segments with numbers over low and up to high, in
// ascending order.
func segmentsAbove(ctx context.Context, dir string, perDir int, low, high int64) ([]int64, error) {
	var found []int64
	dirs, err := numbered(ctx, filepath.Join(dir, "data"), "")
	if err != nil {
		return nil, err
	}
	for _, d := range dirs {
		if (d+1)*int64(perDir) <= low {
			break
		}
		nums, err := segmentsIn(ctx, dir, perDir, d)
		if err != nil {
			return nil, err
		}
		for _, n := range nums {
			if n > low && n <= high {
				found = append(found, n)
			}
		}
	}
	slices.Sort(found)
	return found, nil
}

func segmentPath(dir string, perDir int, n int64) string {
	return filepath.Join(dir, "data", strconv.FormatInt(n/int64(perDir), 10), strconv.FormatInt(n, 10))
}
