package index

import (
	"context"
	"database/sql/driver"
	"fmt"
	"iter"
	"slices"
	"strings"
)

// Search says which paths are looked for. The zero value means all but roots.
type Search struct {
	// Below keeps to what lies below this path; "" is everything.
	Below string
	// Parts are bytes of which each name that Match accepts has some; none
	// say nothing. They let sqlite leave out most names.
	Parts []string
	// Gone keeps to paths that the last indexed snapshot of their chain lacks.
	Gone bool
	// Match decides; nil accepts all. The path is in directory dir.
	Match func(dir, name string) bool
}

// PathHistory is what one path was in one chain: as [Index.Versions] has it.
type PathHistory struct {
	Path     string
	Versions []PathVersion // never empty
}

// searchPage is about how many rows a search reads at once. It holds no
// connection between two pages.
const searchPage = 1000

// Search finds paths in all snapshots of all chains at once: directories in the
// order of paths, and in each the names bytewise. Of a path that several chains
// have, one history after the other comes. The work is one scan of the index
// for directories that hold any such name, and then what these hold; memory
// follows the number of those directories.
func (x *Index) Search(ctx context.Context, s Search) iter.Seq2[PathHistory, error] {
	return func(yield func(PathHistory, error) bool) {
		places, err := x.searchPlaces(ctx, s)
		for err == nil && len(places) > 0 {
			var found []PathHistory
			if found, places, err = x.searchSome(ctx, s, places); err != nil {
				break
			}
			for _, f := range found {
				if !yield(f, nil) {
					return
				}
			}
			err = ctx.Err()
		}
		if err != nil {
			yield(PathHistory{}, fmt.Errorf("search: %w", err))
		}
	}
}

// searchPlace is one path that was a directory, in some or all chains.
type searchPlace struct {
	path  string
	dirs  []driver.Value  // numbers
	chain map[int64]int64 // by directory
	after string          // name up to which it is read
}

// condition is the part of the search that sqlite decides.
func (s *Search) condition() (sql string, args []driver.Value) {
	var terms []string
	if len(s.Parts) > 0 {
		var or []string
		for _, part := range s.Parts {
			or = append(or, "instr(v.name, ?)")
			args = append(args, []byte(part))
		}
		terms = append(terms, "("+strings.Join(or, " OR ")+")")
	}
	if s.Gone {
		terms = append(terms, "NOT EXISTS (SELECT 1 FROM version w WHERE w.dir = v.dir AND w.name = v.name AND w.until = 0)")
	}
	return strings.Join(append(terms, "1"), " AND "), args
}

// searchPlaces finds the directories that hold what is looked for.
func (x *Index) searchPlaces(ctx context.Context, s Search) (places []*searchPlace, err error) {
	where, args := s.condition()
	if s.Gone {
		where += " AND v.until > 0"
	}
	err = x.consistently(ctx, func(c *conn) error {
		var dirs []int64
		err := c.query("SELECT DISTINCT v.dir FROM version v WHERE v.dir > 0 AND "+where, args, func(row []driver.Value) error {
			dirs = append(dirs, row[0].(int64))
			return nil
		})
		if err != nil {
			return err
		}
		known, byPath := dirPlaces{}, map[string]*searchPlace{}
		for _, dir := range dirs {
			at, err := known.of(c, dir)
			if err != nil {
				return err
			}
			if s.Below != "" && at.path != s.Below && !strings.HasPrefix(at.path, s.Below+"/") {
				continue
			}
			p := byPath[at.path]
			if p == nil {
				p = &searchPlace{path: at.path, chain: map[int64]int64{}}
				byPath[at.path] = p
				places = append(places, p)
			}
			p.dirs = append(p.dirs, dir)
			p.chain[dir] = at.chain
		}
		return nil
	})
	slices.SortFunc(places, func(a, b *searchPlace) int { return comparePaths(a.path, b.path) })
	return places, err
}

// dirPlaces remembers where directories are.
type dirPlaces map[int64]dirPlace

type dirPlace struct {
	path  string
	chain int64
}

func (known dirPlaces) of(c *conn, id int64) (dirPlace, error) {
	if p, ok := known[id]; ok {
		return p, nil
	}
	parent, name, ok := int64(0), "", false
	err := c.query("SELECT parent, name FROM dir WHERE id = ?", []driver.Value{id}, func(row []driver.Value) error {
		parent, name, ok = row[0].(int64), text(row[1]), true
		return nil
	})
	switch {
	case err != nil:
		return dirPlace{}, err
	case !ok:
		return dirPlace{}, fmt.Errorf("directory %d: %w", id, errNoTree)
	}
	p := dirPlace{"", -parent}
	if parent > 0 {
		up, err := known.of(c, parent)
		if err != nil {
			return p, err
		}
		p = dirPlace{joinPath(up.path, name), up.chain}
	}
	known[id] = p
	return p, nil
}

// searchSome reads a page of what the first places hold and gives the places
// that are left.
func (x *Index) searchSome(ctx context.Context, s Search, places []*searchPlace) (found []PathHistory, rest []*searchPlace, err error) {
	err = x.consistently(ctx, func(c *conn) error {
		b, err := loadBounds(c, 0)
		if err != nil {
			return err
		}
		for rows := 0; rows < searchPage && len(places) > 0; {
			n, some, ended, err := x.readPlace(c, b, s, places[0], searchPage)
			if err != nil {
				return err
			}
			rows += n
			found = append(found, some...)
			if ended {
				places = places[1:]
			}
		}
		return nil
	})
	return found, places, err
}

// readPlace reads at most limit rows of one place, but those of one name
// together.
func (x *Index) readPlace(c *conn, b *bounds, s Search, p *searchPlace, limit int) (rows int, found []PathHistory, ended bool, err error) {
	where, args := s.condition()
	query := "SELECT " + entryColumns + ", v.since, v.until, v.dir FROM version v WHERE v.dir IN (?" + strings.Repeat(", ?", len(p.dirs)-1) +
		") AND v.name > ? AND " + where + " ORDER BY v.name, v.dir, v.since LIMIT ?"
	args = append(append(append(slices.Clone(p.dirs), []byte(p.after)), args...), int64(limit))
	var whole, name string // the last name that was read to its end; the one being read
	var dir int64
	wanted := false
	err = c.query(query, args, func(row []driver.Value) error {
		rows++
		if n, d := text(row[1]), row[6].(int64); n != name || d != dir {
			if n != name {
				whole = name
			}
			name, dir = n, d
			if wanted = s.Match == nil || s.Match(p.path, name); wanted {
				found = append(found, PathHistory{Path: joinPath(p.path, name)})
			}
		}
		if !wanted {
			return nil
		}
		v, err := x.scanVersion(c, b, p.chain[dir], row)
		if err != nil {
			return err
		}
		f := &found[len(found)-1]
		f.Versions = append(f.Versions, v)
		return nil
	})
	switch {
	case err != nil:
		return 0, nil, false, err
	case rows < limit:
		return rows, found, true, nil
	case whole == "":
		return x.readPlace(c, b, s, p, 4*limit)
	}
	// There may be more of the last name.
	p.after = whole
	cut := joinPath(p.path, name)
	return rows, slices.DeleteFunc(found, func(f PathHistory) bool { return f.Path == cut }), false, nil
}
