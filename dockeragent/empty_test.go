package dockeragent

import (
	"os"
	"path/filepath"
	"testing"
)

// A volume whose files all stay out of backups is as empty as one without any.
func TestEmptyButForWhatStaysOut(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{"tmp/a", "x.log"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		exclude []string
		empty   bool
	}{{nil, false}, {[]string{"/tmp"}, false}, {[]string{"/tmp", "/*.log"}, true}, {[]string{"/tmp/*", "/x.log"}, true}, {[]string{"/*"}, true}} {
		if got, err := isEmpty(t.Context(), dir, c.exclude); err != nil || got != c.empty {
			t.Errorf("%q: %v, %v", c.exclude, got, err)
		}
	}
}
