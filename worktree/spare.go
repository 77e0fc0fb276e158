package worktree

import (
	"fmt"
	"io/fs"
	"slices"

	"github.com/s4-storage/s4/snapshot"
)

// hidden notes what Exclude hides in the live tree.
func (p *planner) hidden(path string, dir bool) {
	p.staysIn(path)
	if dir && !p.o.Exclude(path, false) {
		p.solid[path] = true
	}
	if report := p.report; report != nil {
		report(path, dir)
	}
}

// spare leaves a live path that the target does not have.
func (p *planner) spare(w row) {
	p.Spared++
	p.staysIn(w.path)
	if isRegular(w.live.Mode) {
		p.addMember(&member{path: w.path, live: w.live})
	}
}

// staysIn notes that the directories above path cannot go.
func (p *planner) staysIn(path string) {
	for dir, _ := split(path); dir != "" && !p.spared[dir]; dir, _ = split(dir) {
		p.spared[dir] = true
	}
}

// keepSpared takes out of the plan what cannot be, since something stays that it
// would need away.
func (p *planner) keepSpared() {
	if len(p.spared)+len(p.solid) == 0 {
		return
	}
	dropped := map[string]bool{}
	p.Actions = slices.DeleteFunc(p.Actions, func(a Action) bool {
		inTheWay := a.Op == Replace && p.spared[a.Path] || a.Op == Create && p.solid[a.Path]
		if inTheWay {
			p.Problems = append(p.Problems, &fs.PathError{Op: "replace", Path: a.Path,
				Err: fmt.Errorf("a directory with files that are left out is in the way: %w", snapshot.ErrRefused)})
		}
		dropped[a.Path] = inTheWay || a.Op == Delete && (p.spared[a.Path] || a.room != "" && p.spared[a.room])
		return dropped[a.Path]
	})
	gone := func(m *member) bool { return dropped[m.path] && m.entry != nil }
	p.members = slices.DeleteFunc(p.members, gone)
	for id := range p.groups {
		p.groups[id] = slices.DeleteFunc(p.groups[id], gone)
	}
	for _, m := range p.members {
		if dropped[m.path] {
			m.op = "" // a name that stays
		}
	}
}
