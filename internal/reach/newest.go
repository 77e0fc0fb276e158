package reach

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/internal/atomicfile"
	"github.com/s4-storage/s4/internal/xdg"
)

// remember keeps, for each repository, the timestamp of its newest manifest
// in a file of the user's state directory, and gives what is there now. A
// manifest that shows up with an older one was put back (see
// [borgio.Options]).
func (a *Access) remember(id borgio.ID, manifest time.Time) time.Time {
	path := filepath.Join(xdg.State(), "newest", id.String())
	text, _ := os.ReadFile(path) // none: the first meeting
	newest, err := time.Parse(time.RFC3339Nano, strings.TrimSpace(string(text)))
	if err == nil && !manifest.After(newest) {
		return newest
	}
	if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
		err = atomicfile.Write(path, []byte(manifest.Format(time.RFC3339Nano)+"\n"), 0o600)
	}
	if err != nil {
		a.Log().Warn("cannot remember how new the repository was", "error", err)
	}
	return manifest
}
