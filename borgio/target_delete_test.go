package borgio

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// hintsOf gives what the newest hints say, in an order of its own.
func (p place) hintsOf(t *testing.T) (all []string) {
	t.Helper()
	paths, err := filepath.Glob(p.dir + "/hints.*")
	if err != nil || len(paths) != 1 {
		t.Fatal(paths, err)
	}
	b, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	all = append(all, filepath.Ext(paths[0]))
	r := msgpack.NewReader(b)
	err = r.Fields(func(name []byte) error {
		start := r.Pos()
		if r.Peek() != msgpack.Map {
			err := r.Skip()
			all = append(all, fmt.Sprintf("%s %x", name, b[start:r.Pos()]))
			return err
		}
		n, err := r.Map()
		for i := 0; i < n && err == nil; i++ {
			start := r.Pos()
			if err = r.Skip(); err == nil {
				err = r.Skip()
			}
			all = append(all, fmt.Sprintf("%s %x", name, b[start:r.Pos()]))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

// TestTargetDelete: what is deleted is gone, and a local target writes down of it what
// borg serve does, word for word. The manifest stays out of it: borg deletes the old one
// before it puts a new one, which we do without.
func TestTargetDelete(t *testing.T) {
	hints := map[string][][]string{}
	for name, p := range places(t, "") {
		borg(t, "init", "-e", "none", p.dir)
		step := func(do func(tg target) error) {
			t.Helper()
			tg := p.begin(t)
			if err := do(tg); err != nil {
				t.Fatal(name, err)
			}
			hints[name] = append(hints[name], p.hintsOf(t))
		}
		remove := func(tg target, from, to int) {
			for n := from; n < to; n++ {
				id, _ := targetObject(n, 0)
				if _, err := tg.delete(t.Context(), id); err != nil {
					t.Fatal(name, err)
				}
			}
		}
		const size = 3000
		step(func(tg target) error {
			putMany(t, tg, 0, 50, size)
			return tg.commit(t.Context())
		})
		step(func(tg target) error {
			remove(tg, 10, 150) // most of which are not there
			return tg.commit(t.Context())
		})
		if got := p.have(t, 0, 50, size); got != 10 {
			t.Errorf("%s: %d objects are left", name, got)
		}
		step(func(tg target) error { // one is there again, and goes again
			putMany(t, tg, 20, 21, size)
			return tg.commit(t.Context())
		})
		step(func(tg target) error {
			remove(tg, 20, 21)
			return tg.commit(t.Context())
		})
		tg := p.begin(t)
		remove(tg, 0, 10)
		if err := tg.rollback(); err != nil {
			t.Error(err)
		}
		tg = p.begin(t)
		freed, err := tg.compact(t.Context(), 0.1)
		if err != nil || name == "local" && freed < 39*size || name == "remote" && freed != -1 {
			t.Errorf("%s: compacted by %d bytes: %v", name, freed, err)
		}
		if st, err := os.Stat(p.dir + "/data/0/1"); err == nil {
			t.Errorf("%s: a segment of %d bytes is still there", name, st.Size())
		}
		if got := p.have(t, 0, 50, size); got != 10 {
			t.Errorf("%s: %d objects are left after all", name, got)
		}
		borg(t, "check", "--repository-only", p.dir)
	}
	for i := range hints["local"] {
		if l, r := hints["local"][i], hints["remote"][i]; !slices.Equal(l, r) {
			t.Errorf("step %d:\n%v, borg has\n%v", i, l, r)
		}
	}
}

// TestTargetCompactAppendOnly: a server that only appends removes nothing, and says so
// to nobody.
func TestTargetCompactAppendOnly(t *testing.T) {
	p := places(t, "--append-only")["remote"]
	borg(t, "init", "-e", "none", p.dir)
	tg := p.begin(t)
	putMany(t, tg, 0, 20, 1000)
	sameManifest(t, tg)
	if err := tg.commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	tg = p.begin(t)
	for n := range 20 {
		id, _ := targetObject(n, 0)
		if _, err := tg.delete(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	sameManifest(t, tg)
	if err := tg.commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := p.begin(t).compact(t.Context(), 0.1); err != nil {
		t.Fatal(err)
	}
	if all, err := ObjectsOnDisk(p.dir); err != nil || len(all) != 1 {
		t.Errorf("%d objects, %v", len(all), err)
	}
	sum := int64(0)
	paths, _ := filepath.Glob(p.dir + "/data/0/*")
	for _, path := range paths {
		if st, err := os.Stat(path); err == nil {
			sum += st.Size()
		}
	}
	if sum < 20_000 {
		t.Errorf("of what was deleted %d bytes are left", sum)
	}
}
