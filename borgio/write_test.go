package borgio_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio"
)

var keyModes = []string{"none", "authenticated", "authenticated-blake2", "repokey", "repokey-blake2", "keyfile", "keyfile-blake2"}

// borgEnv is the environment of this process, as borg has it.
func borgEnv() borgio.Options { return borgio.Options{Environ: os.LookupEnv} }

// archiveTree writes an archive of a tree as borg create makes it.
func archiveTree(t testing.TB, tx *borgio.Transaction, tree, name string) *borgio.Outline {
	t.Helper()
	w := tx.NewArchive(borgio.ArchiveInfo{Name: name, Comment: "a comment", Hostname: "host", Username: "user", Cmdline: []string{"s4", "push"}})
	masters := map[uint64]string{}
	for _, path := range walk(t, tree) {
		it := itemOf(t, tree, path, masters)
		if it.Mode&unix.S_IFMT == unix.S_IFREG && it.Source == "" {
			f, err := os.Open(filepath.Join(tree, path))
			if err != nil {
				t.Fatal(err)
			}
			if it.Chunks, err = tx.AddFile(t.Context(), f); err != nil {
				t.Fatal(err)
			}
			f.Close()
			for _, c := range it.Chunks {
				it.Size += int64(c.Size)
			}
		}
		if err := w.Add(t.Context(), it); err != nil {
			t.Fatal(err)
		}
	}
	_, outline, err := w.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return outline
}

// walk lists a tree in the order of items.
func walk(t testing.TB, tree string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(tree, func(path string, _ fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(tree, path)
		paths = append(paths, rel)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.IsSortedFunc(paths, borgio.ComparePaths) {
		t.Fatalf("a walk is not in order: %q", paths)
	}
	return paths
}

// itemOf describes an entry of a tree but for its content, as borg does.
func itemOf(t testing.TB, tree, path string, masters map[uint64]string) *borgio.Item {
	t.Helper()
	full := filepath.Join(tree, path)
	var st unix.Stat_t
	if err := unix.Lstat(full, &st); err != nil {
		t.Fatal(err)
	}
	it := &borgio.Item{
		Path: path, Mode: st.Mode, UID: st.Uid, GID: st.Gid, User: nameOf(st.Uid), Group: groupOf(st.Gid),
		Mtime: clampTime(st.Mtim.Nano()), Ctime: clampTime(st.Ctim.Nano()), HasCtime: true,
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		target, err := os.Readlink(full)
		if err != nil {
			t.Fatal(err)
		}
		it.Source = target
	case unix.S_IFDIR:
	case unix.S_IFBLK, unix.S_IFCHR:
		it.Rdev = st.Rdev
		fallthrough
	default:
		if st.Nlink > 1 {
			if master, ok := masters[st.Ino]; ok {
				it.Source = master
			} else {
				masters[st.Ino], it.HardlinkMaster = path, true
			}
		}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFREG && hasNoDump(t, full) {
		it.BSDFlags = 1
	}
	return it
}

// clampTime is what borg does to times.
func clampTime(ns int64) int64 { return min(max(ns, 0), (1<<31-1-48*3600)*1e9) }

// mustBegin starts a transaction.
func mustBegin(t testing.TB, r *borgio.Repository, compression string) *borgio.Transaction {
	t.Helper()
	tx, err := r.BeginOnDisk(context.Background(), borgio.WriteOptions{Compression: compression})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tx.Rollback(); err != nil {
			t.Error(err)
		}
	})
	return tx
}

func mustCommit(t testing.TB, tx *borgio.Transaction) {
	t.Helper()
	if err := tx.Commit(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// TestBorgJudges has borg read, check, extract and go on with what was written
// here, in repositories that either of them made.
func TestBorgJudges(t *testing.T) {
	needBorg(t)
	t.Setenv("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "no") // it must be known
	if _, err := exec.LookPath("rsync"); err != nil {
		t.Log("rsync is not installed; trees are compared by this test alone")
	}
	tree := t.TempDir()
	fillTree(t, tree, judgedSize)
	for i, compression := range []string{"none", "lz4", "zstd,3", "zlib", "auto,zstd,9", "lzma,0", "auto,lzma,0"} {
		mode := keyModes[i]
		for j, maker := range []string{"borg", "s4"} {
			if i%2 == j && os.Getenv("S4_LONG") == "" {
				continue // each mode by one of them will do
			}
			t.Run(mode+"/"+compression+"/"+maker, func(t *testing.T) {
				t.Parallel()
				judge(t, tree, maker, mode, compression)
			})
		}
	}
}

// judgedSize is that of the largest file that borg judges: of some chunks.
const judgedSize = 5 << 20

func judge(t *testing.T, tree, maker, mode, compression string) {
	repo := filepath.Join(t.TempDir(), "repo")
	if maker == "borg" {
		runBorg(t, tree, "init", "-e", mode, repo)
		runBorg(t, tree, "create", "-C", compression, repo+"::theirs", ".")
	} else if _, err := borgio.CreateOnDisk(t.Context(), repo, mode, borgio.CreateOptions{Options: borgEnv()}); err != nil {
		t.Fatal(err)
	}
	r := mustOpen(t, repo, borgEnv())
	if r.Encryption() != mode {
		t.Errorf("the repository is one of %s", r.Encryption())
	}
	tx := mustBegin(t, r, compression)
	archiveTree(t, tx, tree, "ours")
	mustCommit(t, tx)
	if maker == "s4" {
		runBorg(t, tree, "create", "-C", compression, repo+"::theirs", ".")
	}
	compareChunks(t, repo)
	if out := runBorg(t, tree, "diff", repo+"::ours", "theirs"); len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("borg tells of differences:\n%s", out)
	}
	extracted := t.TempDir()
	runBorg(t, extracted, "extract", "--numeric-ids", repo+"::ours")
	compareExtracted(t, tree, extracted)
	// Either goes on after the other.
	runBorg(t, tree, "delete", repo+"::theirs")
	runBorg(t, tree, "compact", "--threshold", "0", repo)
	tx = mustBegin(t, r, compression)
	archiveTree(t, tx, tree, "ours2")
	mustCommit(t, tx)
	// Of one second prune would keep one.
	later := time.Now().Add(2 * time.Second).UTC().Format("2006-01-02T15:04:05")
	runBorg(t, tree, "create", "-C", compression, "--timestamp", later, repo+"::last", ".")
	runBorg(t, tree, "prune", "--keep-last", "2", repo)
	runBorg(t, tree, "compact", "--threshold", "0", repo)
	runBorg(t, tree, "check", "--verify-data", repo)
	if got := readArchive(t, r, "ours2"); len(got) < 300 {
		t.Errorf("%d items are left", len(got))
	}
	var info struct {
		Archives []struct {
			Comment, Hostname, Username string
			Stats                       struct {
				NFiles, OriginalSize int64 `json:"-"`
				Nfiles               int64 `json:"nfiles"`
				Original             int64 `json:"original_size"`
			}
		}
	}
	if err := json.Unmarshal(runBorg(t, tree, "info", "--json", repo+"::ours2"), &info); err != nil {
		t.Fatal(err)
	}
	if a := info.Archives[0]; a.Comment != "a comment" || a.Hostname != "host" || a.Stats.Nfiles < 300 || a.Stats.Original < judgedSize {
		t.Errorf("borg info tells %+v", a)
	}
}

// compareChunks compares the archives "ours" and "theirs" as borg lists them, and
// the chunk ids of files. Which of a file's hard links has its chunks is not
// compared: for borg it is the first in the order of inodes.
func compareChunks(t *testing.T, repo string) {
	t.Helper()
	r := mustOpen(t, repo, borgEnv())
	a, b := readArchive(t, r, "ours"), readArchive(t, r, "theirs")
	hardLink := func(e entry) bool {
		return e.HardlinkMaster || e.Source != "" && e.Mode&unix.S_IFMT != unix.S_IFLNK
	}
	list := func(archive string) []string {
		const format = "{path}{TAB}{user} {group} {uid} {gid} {mtime}{TAB}{type} {mode} {size} {num_chunks} {source}{NL}"
		lines := strings.Split(string(runBorg(t, "/", "list", "--format", format, repo+"::"+archive)), "\n")
		for i, line := range lines {
			if path, _, _ := strings.Cut(line, "\t"); hardLink(b[path]) {
				lines[i] = line[:strings.LastIndexByte(line, '\t')]
			}
		}
		slices.Sort(lines)
		return lines
	}
	ours, theirs := list("ours"), list("theirs")
	for i := range max(len(ours), len(theirs)) {
		if i >= len(ours) || i >= len(theirs) || ours[i] != theirs[i] {
			t.Errorf("borg lists differently:\n%q\n%q", ours[min(i, len(ours)-1)], theirs[min(i, len(theirs)-1)])
			break
		}
	}
	for path, want := range b {
		got := a[path]
		if got.Mode != want.Mode || hardLink(got) != hardLink(want) {
			t.Errorf("%q: %+v, borg has %+v", path, got.Item, want.Item)
		}
		if hardLink(want) {
			got, want = a[cmp.Or(got.Source, path)], b[cmp.Or(want.Source, path)]
		}
		if !slices.EqualFunc(got.Chunks, want.Chunks, func(a, b borgio.Chunk) bool { return a.ID == b.ID && a.Size == b.Size }) {
			t.Errorf("%q is cut into %d chunks, by borg into %d, or others", path, len(got.Chunks), len(want.Chunks))
		}
		for i := range got.Chunks {
			if got.Chunks[i].Stored == 0 {
				t.Errorf("%q: no stored size", path)
			}
		}
	}
}

// compareExtracted compares a tree with what borg extracted.
func compareExtracted(t *testing.T, tree, extracted string) {
	t.Helper()
	if rsync, err := exec.LookPath("rsync"); err == nil {
		// Xattrs and ACLs are not archived by this test.
		out, err := exec.Command(rsync, "-naicH", "--devices", "--specials", "--delete", tree+"/", extracted+"/").CombinedOutput()
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		lines = slices.DeleteFunc(lines, func(l string) bool {
			return l == "" || strings.HasSuffix(l, " ./") || // restored too early
				strings.HasSuffix(l, " old") || strings.HasSuffix(l, " future") // clamped by borg
		})
		if err != nil || len(lines) > 0 {
			t.Errorf("rsync: %v: %s", err, strings.Join(lines, "\n"))
		}
		return
	}
	for _, path := range walk(t, tree) {
		st, err := os.Lstat(filepath.Join(tree, path))
		if err != nil || !st.Mode().IsRegular() {
			continue
		}
		a, _ := os.ReadFile(filepath.Join(tree, path))
		if b, err := os.ReadFile(filepath.Join(extracted, path)); err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s: extracted otherwise: %v", path, err)
		}
	}
}

// TestChunksOfBorg compares ids for files at every edge of the chunker, under
// the seeds of several keys.
func TestChunksOfBorg(t *testing.T) {
	needBorg(t)
	tree := t.TempDir()
	const least, window, most = 1 << 19, 4095, 1 << 23
	noise := make([]byte, 3*most)
	rand.NewChaCha8([32]byte{3}).Read(noise)
	text := bytes.Repeat([]byte("All work and no play makes Jack a dull boy.\n"), 3*most/40)
	for _, n := range []int{0, 1, least - 1, least, least + 1, least + window, least + window + 1, most - 1, most, most + 1, 3 * most} {
		for kind, data := range map[string][]byte{"noise": noise, "text": text, "zeros": make([]byte, 3*most)} {
			if n == 3*most && kind == "text" || n < most-1 && kind == "text" {
				continue
			}
			if err := os.WriteFile(filepath.Join(tree, fmt.Sprintf("%s-%d", kind, n)), data[:n], 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, mode := range []string{"none", "authenticated-blake2"} {
		t.Run(mode, func(t *testing.T) {
			repo := filepath.Join(t.TempDir(), "repo")
			runBorg(t, tree, "init", "-e", mode, repo)
			runBorg(t, tree, "create", "-C", "lz4", repo+"::theirs", ".")
			r := mustOpen(t, repo, borgEnv())
			tx := mustBegin(t, r, "lz4")
			archiveTree(t, tx, tree, "ours")
			mustCommit(t, tx)
			compareChunks(t, repo)
		})
	}
}
