package fusefs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// The time line is the same from each directory, live or in a snapshot, and
// leads to that directory as it was.
func TestTimeLineFromEveryDirectory(t *testing.T) {
	h, tree := newFakeHistory(), newVolume(t)
	write(t, filepath.Join(tree, "other"), "other")
	zeroth := h.add(t, tree, time.Date(2026, 11, 19, 8, 0, 0, 0, time.UTC))
	write(t, filepath.Join(tree, "a/b/file"), "one")
	write(t, filepath.Join(tree, "a/lost"), "lost")
	first := h.add(t, tree, time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC))
	if err := os.Remove(filepath.Join(tree, "a/lost")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(tree, "a/b/file"), "two")
	write(t, filepath.Join(tree, "own/.s4/config"), "a volume's in the volume")
	second := h.add(t, tree, time.Date(2026, 11, 22, 15, 41, 42, 0, time.UTC))
	write(t, filepath.Join(tree, "a/b/file"), "three")
	write(t, filepath.Join(tree, "never/pushed"), "")

	check := func(t *testing.T, dir string) {
		t.Helper()
		if got := names(t, dir); slices.Contains(got, ".s4") {
			t.Errorf("%s lists %q", dir, got)
		}
		here := filepath.Join(dir, ".s4")
		if got, want := names(t, here), []string{"deleted", "history", "versions"}; !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", here, got, want)
		}
		if got, want := names(t, here+"/history"), []string{first.Dir, second.Dir}; !slices.Equal(got, want) {
			t.Errorf("%s/history: %q, want %q", here, got, want)
		}
		for when, want := range map[string]string{first.Dir: "one", second.Dir: "two", "latest": "two", "2026-11-20": "one"} {
			if got := read(t, filepath.Join(here, "history", when, "file")); got != want {
				t.Errorf("%s/history/%s/file has %q, want %q", here, when, got, want)
			}
		}
		for _, when := range []string{zeroth.Dir, "2031"} {
			if _, err := os.Lstat(filepath.Join(here, "history", when)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s/history/%s: %v", here, when, err)
			}
		}
		if got := read(t, filepath.Join(here, "versions/file", first.Dir)); got != "one" {
			t.Errorf("%s/versions: %q", here, got)
		}
		if err := os.Mkdir(here, 0o755); !errors.Is(err, syscall.EEXIST) && !errors.Is(err, syscall.EROFS) {
			t.Errorf("mkdir %s: %v", here, err)
		}
	}
	ofVolume := mountLive(t, tree, h, nil)
	alone := publicDir(t)
	mount(t, alone, Options{History: h})
	for _, mnt := range []string{ofVolume, alone} {
		for _, dir := range []string{"a/b", ".s4/history/" + first.Dir + "/a/b", ".s4/history/latest/a/b"} {
			check(t, filepath.Join(mnt, dir))
		}
		if got := read(t, filepath.Join(mnt, "a/.s4/deleted/lost")); got != "lost" {
			t.Errorf("a/.s4/deleted/lost has %q", got)
		}
		// Snapshots that have a .s4 of their own: it is shown, and history is found in it.
		if got := read(t, filepath.Join(mnt, ".s4/history/latest/.s4/history", first.Dir, "a/lost")); got != "lost" {
			t.Errorf("from a snapshot's root: %q", got)
		}
		own := filepath.Join(mnt, ".s4/history/latest/own/.s4")
		if got := names(t, own); !slices.Equal(got, []string{"config"}) {
			t.Errorf("a .s4 of its own: %q", got)
		}
		if got := read(t, filepath.Join(own, "history/latest/.s4/config")); got != "a volume's in the volume" {
			t.Errorf("through a .s4 of its own: %q", got)
		}
		if _, err := os.Lstat(filepath.Join(mnt, "never/.s4")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a directory without a past: %v", err)
		}
	}
	// The live link follows its directory, which then has another past: none.
	if err := os.Rename(filepath.Join(ofVolume, "a"), filepath.Join(ofVolume, "renamed")); err != nil {
		t.Fatal(err)
	}
	eventually(t, 3*time.Second, "no past", func() bool {
		_, err := os.Stat(filepath.Join(ofVolume, "renamed/b/.s4"))
		return errors.Is(err, fs.ErrNotExist)
	})
	if err := os.RemoveAll(filepath.Join(ofVolume, "renamed")); err != nil {
		t.Error(err)
	}
}

// What copies or counts the whole live tree does not meet the past.
func TestCopiesStayOutOfThePast(t *testing.T) {
	h, tree := newFakeHistory(), newVolume(t)
	write(t, filepath.Join(tree, "a/file"), "text")
	h.add(t, tree, time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC))
	mnt, out := mountLive(t, tree, h, nil), t.TempDir()
	opened := h.opens()
	run(t, "cp", "-a", mnt, out+"/cp")
	run(t, tool(t, "rsync"), "-aHAX", mnt+"/", out+"/rsync")
	run(t, "sh", "-c", "mkdir "+out+"/tar && tar -C "+mnt+" -cf - . | tar -C "+out+"/tar -xf -")
	want := run(t, "sh", "-c", "cd "+mnt+" && find . | sort")
	for _, by := range []string{"cp", "rsync", "tar"} {
		if got := run(t, "sh", "-c", "cd "+out+"/"+by+" && find . | sort"); got != want {
			t.Errorf("%s made\n%swant\n%s", by, got, want)
		}
	}
	if want != ".\n./.s4\n./.s4/config\n./.s4/deleted\n./.s4/history\n./.s4/versions\n./a\n./a/file\n" {
		t.Errorf("find saw\n%s", want)
	}
	if got := h.opens(); got != opened {
		t.Errorf("%d files of the past were read", got-opened)
	}
}
