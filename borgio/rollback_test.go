package borgio

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRollback: a manifest that is older than one that was met before, by this
// process, by an earlier one, or by borg, is served with a warning; one that is
// as new, or newer, without.
func TestRollback(t *testing.T) {
	security := t.TempDir()
	var log bytes.Buffer
	var told []time.Time
	remembered := time.Time{}
	r, err := Open(t.Context(), Location{Path: "testdata/mode-none"}, Options{
		Environ: func(name string) (string, bool) { return security, name == "BORG_SECURITY_DIR" },
		Logger:  slog.New(slog.NewTextHandler(&log, nil)),
		Remember: func(_ ID, manifest time.Time) time.Time {
			told = append(told, manifest)
			return remembered
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	m, err := r.Manifest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(told) != 1 || !told[0].Equal(m.Timestamp) || m.Timestamp.IsZero() {
		t.Errorf("told %v of %v", told, m.Timestamp)
	}
	noted := filepath.Join(security, r.ID().String(), "manifest-timestamp")
	if err := os.MkdirAll(filepath.Dir(noted), 0o700); err != nil {
		t.Fatal(err)
	}
	older, newer := m.Timestamp.Add(-time.Microsecond), m.Timestamp.Add(time.Microsecond)
	for _, c := range []struct {
		name         string
		before, kept time.Time
		borg         string
		warns        bool
	}{
		{name: "first meeting"},
		{name: "older ones", before: older, kept: older, borg: older.Format("2006-01-02T15:04:05.000000")},
		{name: "the same", before: m.Timestamp, kept: m.Timestamp, borg: m.Timestamp.Format("2006-01-02T15:04:05.000000")},
		{name: "newer in this process", before: newer, warns: true},
		{name: "newer in an earlier run", kept: newer, warns: true},
		{name: "newer seen by borg", borg: newer.Format("2006-01-02T15:04:05.000000"), warns: true},
		{name: "nonsense noted", borg: "tomorrow"},
	} {
		log.Reset()
		remembered = c.kept
		if err := os.WriteFile(noted, []byte(c.borg), 0o600); err != nil {
			t.Fatal(err)
		}
		r.manifest, r.state = &Manifest{Timestamp: c.before}, 0
		got, err := r.Manifest(t.Context())
		if err != nil || len(got.Archives) != len(m.Archives) {
			t.Errorf("%s: %v", c.name, err)
		}
		if warned := strings.Contains(log.String(), "rolled back"); warned != c.warns {
			t.Errorf("%s: warned %v: %s", c.name, warned, &log)
		}
	}
}
