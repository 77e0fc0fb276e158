package borgio_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/s4-storage/s4/borgio"
)

// change rewrites, adds and removes files of a tree, a bit.
func change(t testing.TB, tree string, seed uint64) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 7))
	for range 6 {
		path := filepath.Join(tree, fmt.Sprintf("d%d", random.IntN(3)), fmt.Sprintf("f%d", random.IntN(12)))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		switch b := make([]byte, random.IntN(60_000)); random.IntN(5) {
		case 0:
			if err = os.Remove(path); errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
		default:
			rand.NewChaCha8([32]byte{byte(random.IntN(40))}).Read(b) // some contents come again
			err = os.WriteFile(path, b, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// treeOf gives the files of a tree with their content's hashes.
func treeOf(t testing.TB, tree string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, path := range walk(t, tree) {
		if st, err := os.Stat(filepath.Join(tree, path)); err != nil || !st.Mode().IsRegular() {
			continue
		}
		b, err := os.ReadFile(filepath.Join(tree, path))
		if err != nil {
			t.Fatal(err)
		}
		all[path] = fmt.Sprintf("%x", sha256.Sum256(b))
	}
	return all
}

// extracted is treeOf what borg extracts of an archive.
func extracted(t testing.TB, repo, name string) map[string]string {
	t.Helper()
	all := map[string]string{}
	r := tar.NewReader(bytes.NewReader(runBorg(t, "/", "export-tar", repo+"::"+name, "-")))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		b, rerr := io.ReadAll(r)
		if err = errors.Join(err, rerr); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			all[path.Clean(h.Name)] = fmt.Sprintf("%x", sha256.Sum256(b))
		}
	}
}

// called chooses archives by name.
func called(names ...string) func(*borgio.Manifest) []borgio.ID {
	return func(m *borgio.Manifest) (ids []borgio.ID) {
		for _, a := range m.Archives {
			if slices.Contains(names, a.Name) {
				ids = append(ids, a.ID)
			}
		}
		return ids
	}
}

// objectsOf lists the objects of a local repository, each time anew.
func objectsOf(t testing.TB, repo string) map[borgio.ID]bool {
	t.Helper()
	all, err := borgio.ObjectsOnDisk(repo)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func segmentBytes(t testing.TB, repo string) (sum int64) {
	t.Helper()
	paths, _ := filepath.Glob(repo + "/data/*/*")
	for _, p := range paths {
		st, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		sum += st.Size()
	}
	return sum
}

// TestDeleteAsBorg: of archives that borg and this package wrote in turn, some are
// deleted, in every key mode. What is left is object for object what borg itself would
// leave, borg finds nothing wrong with it, and what was to stay is as it was.
func TestDeleteAsBorg(t *testing.T) {
	needBorg(t)
	t.Setenv("BORG_RELOCATED_REPO_ACCESS_IS_OK", "yes")
	program, _ := rsh(t)
	for i, mode := range keyModes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			deleteAsBorg(t, mode, uint64(i), i%2 == 1, program)
		})
	}
}

func deleteAsBorg(t *testing.T, mode string, seed uint64, remote bool, program string) {
	tmp := t.TempDir()
	repo, copied, tree := filepath.Join(tmp, "repo"), filepath.Join(tmp, "copy"), filepath.Join(tmp, "tree")
	opts, url := borgEnv(), repo
	if remote {
		opts, url = remoteOptions(t, program), "ssh://host"+repo
	}
	if _, err := borgio.CreateOnDisk(t.Context(), repo, mode, borgio.CreateOptions{Options: borgEnv()}); err != nil {
		t.Fatal(err)
	}
	r := mustOpen(t, url, opts)
	rounds, long := 2, os.Getenv("S4_LONG") != ""
	if long {
		rounds = 6
	}
	trees := map[string]map[string]string{}
	var names []string
	for n := range rounds * 2 {
		change(t, tree, seed*100+uint64(n))
		name := fmt.Sprint("a", n)
		names, trees[name] = append(names, name), treeOf(t, tree)
		if n%2 == 0 {
			runBorg(t, tree, "create", repo+"::"+name, ".")
			continue
		}
		tx, err := r.Begin(t.Context(), borgio.WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		archiveTree(t, tx, tree, name)
		mustCommit(t, tx)
	}
	rand.New(rand.NewPCG(seed, 3)).Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	doomed, kept := names[:rounds], names[rounds:]
	held, theirs := objectsOf(t, repo), map[borgio.ID]bool(nil)
	if seed%3 == 0 || long { // borg first: it minds a manifest that is older than the last one
		if err := os.CopyFS(copied, os.DirFS(repo)); err != nil {
			t.Fatal(err)
		}
		runBorg(t, tmp, slices.Concat([]string{"delete", copied}, doomed)...)
		runBorg(t, tmp, "compact", copied)
		theirs = objectsOf(t, copied)
	}

	result, err := r.Delete(t.Context(), called(doomed...), borgio.DeleteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Archives) != len(doomed) || !remote && result.Bytes == 0 {
		t.Errorf("%d archives, %d bytes were deleted", len(result.Archives), result.Bytes)
	}
	freed, err := r.Compact(t.Context(), borgio.CompactOptions{})
	if err != nil || remote != (freed == -1) {
		t.Errorf("compacted by %d, %v", freed, err)
	}
	ours := objectsOf(t, repo)
	if len(held)-len(ours) != result.Objects {
		t.Errorf("%d objects became %d, and %d were deleted", len(held), len(ours), result.Objects)
	}
	if theirs != nil {
		if !maps.Equal(ours, theirs) {
			t.Errorf("%d objects are left, borg leaves %d", len(ours), len(theirs))
		}
		if a, b := segmentBytes(t, repo), segmentBytes(t, copied); a > b+b/20+4096 {
			t.Errorf("%d bytes are left, borg leaves %d", a, b)
		}
	}
	runBorg(t, tmp, "check", "--verify-data", repo)
	if !long {
		kept = kept[:1]
	}
	for _, name := range kept {
		if got := extracted(t, repo, name); !maps.Equal(got, trees[name]) {
			t.Errorf("of %s borg extracts %d files, not the %d that were there", name, len(got), len(trees[name]))
		}
	}
	if m, err := r.Manifest(t.Context()); err != nil || len(m.Archives) != rounds {
		t.Errorf("%d archives are left: %v", len(m.Archives), err)
	}
}

// TestDeleteDamaged: where what remains cannot be read, nothing is deleted; what is to
// be deleted may be damaged.
func TestDeleteDamaged(t *testing.T) {
	needBorg(t)
	repo := filepath.Join(t.TempDir(), "repo")
	opts := borgEnv()
	if _, err := borgio.Create(t.Context(), borgio.Location{Path: repo}, "none", borgio.CreateOptions{Options: opts}); err != nil {
		t.Fatal(err)
	}
	r := mustOpen(t, repo, opts)
	tree := t.TempDir()
	var outlines []*borgio.Outline
	for n := range 2 {
		change(t, tree, uint64(n))
		tx, err := r.Begin(t.Context(), borgio.WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		outlines = append(outlines, archiveTree(t, tx, tree, fmt.Sprint("a", n)))
		mustCommit(t, tx)
	}
	// The items of the second.
	damage(t, repo, outlines[1].Sections[0].Objects[0])
	before := objectsOf(t, repo)
	r = mustOpen(t, repo, opts)
	_, err := r.Delete(t.Context(), called("a0"), borgio.DeleteOptions{})
	if !errors.Is(err, borgio.ErrIntegrity) || !strings.Contains(err.Error(), "a1, which is to stay") {
		t.Errorf("deleted beside a damaged archive: %v", err)
	}
	if after := objectsOf(t, repo); !maps.Equal(before, after) {
		t.Error("objects have gone")
	}
	want := extracted(t, repo, "a0")
	var log bytes.Buffer
	opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
	r = mustOpen(t, repo, opts)
	result, err := r.Delete(t.Context(), called("a1"), borgio.DeleteOptions{})
	if err != nil || len(result.Archives) != 1 || !strings.Contains(log.String(), "damaged") {
		t.Errorf("deleted %+v, %v: %s", result, err, log.String())
	}
	if got := extracted(t, repo, "a0"); !maps.Equal(want, got) {
		t.Error("the other one has suffered")
	}
}

// damage changes a byte of an object in its segment.
func damage(t testing.TB, repo string, id borgio.ID) {
	t.Helper()
	paths, _ := filepath.Glob(repo + "/data/*/*")
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		if i := bytes.Index(b, id[:]); i >= 0 {
			b[i+32+10] ^= 1
			if err := os.WriteFile(p, b, 0o600); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("no such object")
}

// TestDeleteBesideRenamed: an archive that borg 1.2.4 renamed is not authenticated any
// more; what it refers to stays all the same.
func TestDeleteBesideRenamed(t *testing.T) {
	needBorg(t)
	repo := filepath.Join(t.TempDir(), "repo")
	if _, err := borgio.Create(t.Context(), borgio.Location{Path: repo}, "repokey-blake2", borgio.CreateOptions{Options: borgEnv()}); err != nil {
		t.Fatal(err)
	}
	opts := borgEnv()
	opts.Logger = slog.New(slog.DiscardHandler)
	r := mustOpen(t, repo, opts)
	tree := t.TempDir()
	change(t, tree, 1)
	want := treeOf(t, tree)
	for _, name := range []string{"a", "b"} {
		tx, err := r.Begin(t.Context(), borgio.WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		archiveTree(t, tx, tree, name)
		mustCommit(t, tx)
		change(t, tree, 2)
	}
	runBorg(t, "/", "rename", repo+"::a", "renamed")
	if result, err := r.Delete(t.Context(), called("b"), borgio.DeleteOptions{}); err != nil || result.Objects == 0 {
		t.Fatalf("deleted %+v, %v", result, err)
	}
	if got := extracted(t, repo, "renamed"); !maps.Equal(got, want) {
		t.Error("the other one has suffered")
	}
}

// TestDeleteMeanwhile: an archive that comes while others are read, and shares with
// one that is to go what nobody else has, keeps it; one that is deleted by somebody
// else meanwhile does not keep what it had.
func TestDeleteMeanwhile(t *testing.T) {
	needBorg(t)
	for _, c := range []struct {
		name         string
		after, other bool
	}{{"added after reading", true, false}, {"deleted after reading", true, true}, {"deleted before reading", false, true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			deleteMeanwhile(t, c.after, c.other)
		})
	}
}

// deleteMeanwhile has an archive added, and perhaps another deleted, before or after
// the archives are read.
func deleteMeanwhile(t *testing.T, after, others bool) {
	repo := filepath.Join(t.TempDir(), "repo")
	if _, err := borgio.Create(t.Context(), borgio.Location{Path: repo}, "repokey", borgio.CreateOptions{Options: borgEnv()}); err != nil {
		t.Fatal(err)
	}
	r := mustOpen(t, repo, borgEnv())
	tree := t.TempDir()
	add := func(name string) {
		tx, err := r.Begin(t.Context(), borgio.WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		archiveTree(t, tx, tree, name)
		mustCommit(t, tx)
	}
	change(t, tree, 1)
	add("old")
	change(t, tree, 2)
	add("mid")
	change(t, tree, 3)
	add("doomed")
	want := treeOf(t, tree)
	done := false
	meanwhile := func(now bool) {
		if done || !now {
			return
		}
		done = true
		if !others {
			add("same")
		} else if _, err := r.Delete(t.Context(), called("mid"), borgio.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	}
	choose := func(m *borgio.Manifest) []borgio.ID {
		defer meanwhile(!after)
		return called("doomed")(m)
	}
	result, err := r.Delete(t.Context(), choose, borgio.DeleteOptions{Progress: func(p borgio.DeleteProgress) {
		meanwhile(after && p.Archives == p.TotalArchives)
	}})
	if err != nil || len(result.Archives) != 1 || (result.Objects == 1) == others {
		t.Fatalf("deleted %+v, %v", result, err)
	}
	if !others {
		if got := extracted(t, repo, "same"); !maps.Equal(got, want) {
			t.Error("what came meanwhile is not whole")
		}
	}
	runBorg(t, "/", "check", "--verify-data", repo)
	// What is there now is what the two archives need, and no more.
	needed := map[borgio.ID]bool{{}: true}
	m, err := r.Manifest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range m.Archives {
		a, err := r.Archive(t.Context(), ref.ID)
		if err != nil {
			t.Fatal(err)
		}
		needed[ref.ID] = true
		for _, id := range a.Items {
			needed[id] = true
		}
		for it, err := range r.Items(t.Context(), a) {
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range it.Chunks {
				needed[c.ID] = true
			}
		}
	}
	if got := objectsOf(t, repo); !maps.Equal(got, needed) {
		t.Errorf("%d objects are there, %d are needed", len(got), len(needed))
	}
}
