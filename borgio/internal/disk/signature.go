package disk

import (
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// signature tells whether a repository may have changed, at the price of five
// stats. A commit adds a segment, or ends the newest one, and then replaces the
// index; compaction removes segments. Each of these changes one of the files
// or directories here.
type signature [5]fileState

// fileState is what of a file's stat changes with it.
type fileState struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

// restTime is how long ago the last change must be for a signature to count: a
// second change within the same tick of a file system's clock would not show.
const restTime = 3 * time.Second

// sign takes the signature of the repository in dir, whose last segment is
// newest. settled is false when it must not be relied on. It has to be taken
// before the files themselves are looked at, lest a change in between be missed.
func sign(dir string, perDir int, newest int64) (sig signature, settled bool) {
	if newest == noSegment {
		return sig, false
	}
	segment := segmentPath(dir, perDir, newest)
	limit := time.Now().Add(-restTime).UnixNano()
	for i, path := range [len(sig)]string{
		dir, filepath.Join(dir, "config"), filepath.Join(dir, "data"), filepath.Dir(segment), segment,
	} {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil || max(st.Mtim.Nano(), st.Ctim.Nano()) > limit {
			return sig, false
		}
		sig[i] = fileState{st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim}
	}
	return sig, true
}
