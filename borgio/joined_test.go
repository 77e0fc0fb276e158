package borgio_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/s4-storage/s4/borgio"
)

// TestWholeWay makes a repository, locally and on another host, writes an archive
// and a further one, and has borg judge.
func TestWholeWay(t *testing.T) {
	needBorg(t)
	t.Setenv("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "no")
	tree := t.TempDir()
	fillTree(t, tree, 3<<20)
	program, _ := rsh(t)
	for name, prefix := range map[string]string{"local": "", "remote": "host:"} {
		for _, mode := range []string{"none", "repokey-blake2"} {
			if (name == "local") != (mode == "none") && os.Getenv("S4_LONG") == "" {
				continue // what differs is told by two
			}
			t.Run(name+"/"+mode, func(t *testing.T) {
				repo := filepath.Join(t.TempDir(), "repo")
				opts := borgio.Options{Environ: func(v string) (string, bool) {
					if v == "BORG_RSH" {
						return "/bin/sh " + program, true
					}
					return os.LookupEnv(v)
				}}
				loc, err := borgio.ParseLocation(prefix + repo)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := borgio.Create(t.Context(), loc, mode, borgio.CreateOptions{Options: opts}); err != nil {
					t.Fatal(err)
				}
				r := mustOpen(t, prefix+repo, opts)
				begin := func() *borgio.Transaction {
					tx, err := r.Begin(t.Context(), borgio.WriteOptions{Compression: "zstd"})
					if err != nil {
						t.Fatal(err)
					}
					return tx
				}
				tx := begin()
				base := archiveTree(t, tx, tree, "ours")
				mustCommit(t, tx)
				tx = begin()
				old, err := tx.BaseItem(t.Context(), base, "big")
				if err != nil {
					t.Fatal(err)
				}
				f, err := os.OpenFile(filepath.Join(tree, "big"), os.O_RDWR, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				if _, err := f.WriteAt([]byte("changed"), 2<<20); err != nil {
					t.Fatal(err)
				}
				it := itemOf(t, tree, "big", map[uint64]string{})
				if it.Chunks, err = tx.UpdateFile(t.Context(), old.Chunks, f, old.Size, []borgio.Extent{{Start: 2 << 20, Length: 7}}); err != nil {
					t.Fatal(err)
				}
				it.Size = old.Size
				changes := func(yield func(borgio.Change, error) bool) { yield(borgio.Change{Path: "big", Item: it}, nil) }
				if _, _, err := tx.UpdateArchive(t.Context(), base, changes, borgio.ArchiveInfo{Name: "next"}); err != nil {
					t.Fatal(err)
				}
				mustCommit(t, tx)
				m, err := r.Manifest(t.Context())
				if err != nil || len(m.Archives) != 2 {
					t.Fatal(m, err)
				}
				where := repo
				if prefix != "" {
					t.Setenv("BORG_RSH", "/bin/sh "+program)
					where = prefix + repo
				}
				runBorg(t, tree, "check", "--verify-data", where)
				extracted := t.TempDir()
				runBorg(t, extracted, "extract", "--numeric-ids", where+"::next")
				compareExtracted(t, tree, extracted)
			})
		}
	}
}
