package probe

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// frozen is a repository with two archives: the second holds a file of the
// first, and a new one.
const frozen = "../../../borgio/testdata/mode-none"

// answer runs a probe as the bench does.
func answer[A any](t *testing.T, kind string, request any) (a A, err error) {
	t.Helper()
	text, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "request.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Run(context.WithoutCancel(t.Context()), Args(kind, file)[1:], &out); err != nil {
		return a, err
	}
	return a, json.Unmarshal(out.Bytes(), &a)
}

func TestItems(t *testing.T) {
	a, err := answer[ItemsAnswer](t, "items", Items{Repository: frozen, Archive: "first"})
	if err != nil {
		t.Fatal(err)
	}
	// ".", two directories and an empty one; four files and a hard link; a
	// symbolic link and a fifo.
	if a.Items != 11 || a.Bytes < 15_000 {
		t.Errorf("%+v", a)
	}
	if _, err := answer[ItemsAnswer](t, "items", Items{Repository: frozen, Archive: "third"}); err == nil {
		t.Error("an archive that is not there has items")
	}
}

func TestIngestAndLook(t *testing.T) {
	db := filepath.Join(t.TempDir(), "index.db")
	for range 2 { // an index that is there is made anew
		a, err := answer[IngestAnswer](t, "ingest", Ingest{Repository: frozen, Index: db})
		if err != nil {
			t.Fatal(err)
		}
		if len(a.Next) != 1 || a.First.Wall <= 0 || a.FirstBytes == 0 || a.Bytes < a.FirstBytes {
			t.Errorf("%+v", a)
		}
	}
	q := Look{
		Repository: frozen, Index: db,
		Moments: []string{"first", "2020-03-02"}, Paths: []string{"dir/text"},
		Directory: "dir", Entries: 1,
		Path: "dir/text", Versions: 1,
		Changed: []int{7},
	}
	a, err := answer[LookAnswer](t, "look", q)
	if err != nil {
		t.Fatal(err)
	}
	if a.Resolve <= 0 || a.Directory <= 0 || a.Versions <= 0 || a.Changes <= 0 {
		t.Errorf("not measured: %+v", a)
	}
	// A wrong answer is an error, not a figure.
	for name, change := range map[string]func(*Look){
		"path":      func(q *Look) { q.Paths = []string{"dir/other"} },
		"entries":   func(q *Look) { q.Entries++ },
		"versions":  func(q *Look) { q.Versions++ },
		"changes":   func(q *Look) { q.Changed = []int{q.Changed[0] + 1} },
		"snapshots": func(q *Look) { q.Changed = []int{1, 1} },
	} {
		wrong := q
		change(&wrong)
		if _, err := answer[LookAnswer](t, "look", wrong); err == nil {
			t.Errorf("wrong %s: no error", name)
		}
	}
	if a, err := answer[LookAnswer](t, "look", Look{Repository: frozen, Index: db}); err != nil || a != (LookAnswer{}) {
		t.Errorf("nothing asked: %+v %v", a, err)
	}
}

func TestFill(t *testing.T) {
	took, err := answer[Took](t, "fill", Ingest{Repository: frozen, Index: filepath.Join(t.TempDir(), "index.db")})
	if err != nil || took.Wall <= 0 {
		t.Errorf("%+v %v", took, err)
	}
}
