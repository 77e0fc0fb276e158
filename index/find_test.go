package index

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/s4-storage/s4/snapshot"
)

// checkSearch holds searches to what Versions says of every path there is.
func checkSearch(t *testing.T, x *Index, chains map[string][]modelSnapshot) {
	t.Helper()
	type key struct{ series, path string }
	ever := map[key]bool{} // whether it is there at the end
	for series, chain := range chains {
		for i, s := range chain {
			for path := range s.tree {
				if path != "" {
					ever[key{series, path}] = i == len(chain)-1
				}
			}
		}
	}
	for _, s := range []Search{
		{}, {Gone: true}, {Below: "a"}, {Below: "a", Gone: true},
		{Parts: []string{"b", "c"}}, {Match: func(dir, name string) bool { return dir == "b" || name == "a" }},
	} {
		var got, want []string
		for f, err := range x.Search(t.Context(), s) {
			if err != nil {
				t.Fatal(err)
			}
			versions, err := x.Versions(t.Context(), f.Versions[0].First.Num, f.Path)
			if err != nil || fmt.Sprint(versions) != fmt.Sprint(f.Versions) {
				t.Fatalf("%q: %v, want %v (%v)", f.Path, f.Versions, versions, err)
			}
			got = append(got, f.Versions[0].First.Series+" "+f.Path)
		}
		for k, there := range ever {
			dir, name := cutLast(k.path)
			if (!s.Gone || !there) && (s.Below == "" || strings.HasPrefix(k.path, s.Below+"/")) &&
				(s.Parts == nil || name == "b" || name == "c") && (s.Match == nil || s.Match(dir, name)) {
				want = append(want, k.series+" "+k.path)
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("%+v finds %q, want %q", s, got, want)
		}
	}
}

// A directory wider than a page, and a name with more versions than one holds,
// come whole and in order.
func TestSearchOfManyInOnePlace(t *testing.T) {
	x := open(t)
	nums := announce(t, x, info("0", "s", 1), info("1", "s", 2), info("2", "other", 3))
	for i, handle := range []string{"0", "1", "2"} {
		var items []snapshot.Item
		for n := range searchPage + 10 {
			items = append(items, file(fmt.Sprintf("d/%05d", n), byte(i)))
		}
		add(t, x, nums[handle], items...)
	}
	for _, limit := range []int{1, 2, 3, 7, searchPage} {
		err := x.consistently(t.Context(), func(c *conn) error {
			places, err := x.searchPlaces(t.Context(), Search{})
			if err != nil {
				return err
			}
			p := places[1]
			b, err := loadBounds(c, 0)
			if err != nil {
				return err
			}
			n := 0
			for ended := false; !ended; {
				var found []PathHistory
				if _, found, ended, err = x.readPlace(c, b, Search{}, p, limit); err != nil {
					return err
				}
				for _, f := range found {
					if want := fmt.Sprintf("d/%05d", n/2); f.Path != want || len(f.Versions) != 2-n%2 {
						return fmt.Errorf("%d: %q with %d versions, want %q", n, f.Path, len(f.Versions), want)
					}
					n++
				}
			}
			if n != 2*(searchPage+10) {
				return fmt.Errorf("%d found", n)
			}
			return nil
		})
		if err != nil {
			t.Fatalf("%d at once: %v", limit, err)
		}
	}
}

func BenchmarkSearch(b *testing.B) {
	x := open(b)
	const snapshots = 30
	var infos []snapshot.Info
	for i := range snapshots {
		infos = append(infos, info(fmt.Sprint(i), "s", int64(i)))
	}
	nums := announce(b, x, infos...)
	for i, s := range infos {
		if _, err := x.Add(b.Context(), nums[s.Handle], tree(100_000, i)); err != nil {
			b.Fatal(err)
		}
	}
	for name, s := range map[string]Search{
		"Name":  {Parts: []string{"some-file-35021.txt"}, Match: func(_, name string) bool { return name == "some-file-35021.txt" }},
		"Match": {Match: func(_, name string) bool { return strings.HasSuffix(name, "7.txt") }},
		"All":   {},
		"Gone":  {Gone: true},
	} {
		b.Run(name, func(b *testing.B) {
			n := 0
			for b.Loop() {
				n = 0
				for _, err := range x.Search(b.Context(), s) {
					if err != nil {
						b.Fatal(err)
					}
					n++
				}
			}
			b.ReportMetric(float64(n), "found")
		})
	}
}
