package archive_test

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/s4-storage/s4/archive"
	"github.com/s4-storage/s4/borgio"
)

// TestCheckpoints: an archive that was committed piece by piece is the one that is
// made in one go, and what a run that was broken off has sent is not sent again.
func TestCheckpoints(t *testing.T) {
	dir := t.TempDir()
	for i := range 40 {
		name := filepath.Join(dir, string(rune('a'+i%7)), strings.Repeat("x", i+1))
		do(t, os.MkdirAll(filepath.Dir(name), 0o755))
		content := make([]byte, 20_000)
		_, _ = rand.Read(content)
		do(t, os.WriteFile(name, content, 0o644))
	}
	do(t, os.Link(filepath.Join(dir, "a/x"), filepath.Join(dir, "g/linked")))
	whole := newRepository(t, "none")
	want := whole.all(t, dir, "whole")

	r := newRepository(t, "none")
	archived := func(name string, rounds int) (archive.Result, int64, error) {
		var tx *borgio.Transaction
		var added int64
		begin := func(context.Context) (*borgio.Transaction, error) {
			if tx != nil {
				added += tx.Added()
			}
			if rounds--; rounds < 0 {
				return nil, errors.New("broken off")
			}
			tx = r.begin(t)
			return tx, nil
		}
		_, err := begin(t.Context())
		do(t, err)
		m := &archive.Maker{Tx: tx, Root: openRoot(t, dir), Every: time.Nanosecond, Again: begin}
		made, err := m.All(t.Context(), nil, info(name))
		if err == nil {
			err = tx.Commit(t.Context())
		}
		return made, added + tx.Added(), errors.Join(err, tx.Rollback())
	}
	if _, _, err := archived("first", 30); err == nil || !strings.Contains(err.Error(), "broken off") {
		t.Fatalf("it was to be broken off: %v", err)
	}
	made, added, err := archived("second", 1000)
	do(t, err)
	sameItems(t, r.items(t, made.Ref.ID), whole.items(t, want.Ref.ID))
	if added > 40*20_000/2 { // a quarter was not sent yet, and there is the metadata
		t.Errorf("%d bytes were sent again", added)
	}
	shown := strings.Fields(r.borg(t, dir, "list", "--short", r.dir))
	if len(shown) != 1 || shown[0] != "second" {
		t.Errorf("borg lists %q", shown)
	}
	r.borg(t, dir, "check", "--verify-data", r.dir)
	r.borg(t, dir, "prune", "--keep-last", "1", r.dir)
	// Borg keeps the last checkpoint until a later archive is whole.
	if all := strings.Fields(r.borg(t, dir, "list", "--short", "--consider-checkpoints", r.dir)); len(all) > 2 {
		t.Errorf("after a prune there are %q", all)
	}
	r.borg(t, dir, "check", r.dir)
}
