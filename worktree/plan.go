package worktree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/snapshot"
)

// Source gives the content of regular files.
type Source interface {
	// Open gives the content of e.
	Open(ctx context.Context, e snapshot.Entry) (snapshot.File, error)
	// Content lists the extents of e, in order and without gaps; none of a
	// file that is not empty where the source has no names for them.
	Content(ctx context.Context, e snapshot.Entry) ([]snapshot.Extent, error)
	// Verify tells whether data is the content of the extent with this id.
	Verify(id [32]byte, data []byte) bool
}

// PlanOptions are the options of [Root.Plan].
type PlanOptions struct {
	Options
	// Source gives the content of the target and of Base.
	Source Source
	// Base is the snapshot that the live tree was last known to equal; nil
	// when there is none. Files that are still as they were in Base need
	// not be read to know what they hold.
	Base Tree
	// Delete removes what the target does not have.
	Delete bool
	// Protect keeps such a path, and all below it, from being removed; may be nil.
	// A directory stays that holds what Protect keeps or Exclude hides, also where
	// the target has none or something else in its place.
	Protect func(path string, dir bool) bool
}

// Plan works out how to bring the live tree, or o.Paths of it, to target.
// Nothing is changed. Files whose content is not known but could be the
// target's already are read and compared. Directories above o.Paths that are
// missing become part of the plan.
func (r *Root) Plan(ctx context.Context, target Tree, o PlanOptions) (*Plan, error) {
	p := &planner{
		Plan:   &Plan{dirs: map[string]*dirState{}, links: map[inode][]*stamped{}},
		ctx:    ctx,
		root:   r,
		o:      o,
		pool:   map[[32]byte]place{},
		groups: map[uint64][]*member{},
		inodes: map[inode][]*member{},
		spared: map[string]bool{},
		solid:  map[string]bool{},
		guard:  func(string, bool) bool { return false },

		inTarget: standing{root: r, tree: target},
		inBase:   standing{root: r, tree: o.Base},
	}
	if o.Protect != nil {
		p.guard = excluder(o.Protect)
	}
	p.report, p.o.Hidden = o.Hidden, p.hidden
	if err := p.ancestors(target); err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	for w, err := range r.zip(ctx, p.o.Options, target, o.Base) {
		if err != nil {
			return nil, fmt.Errorf("plan: %w", err)
		}
		if err := p.row(w); err != nil {
			return nil, fmt.Errorf("plan %s: %w", w.path, err)
		}
	}
	p.keepSpared()
	p.resolveLinks()
	if err := p.findReuse(); err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	p.finish()
	return p.Plan, nil
}

// planner is a plan in the making.
type planner struct {
	*Plan
	ctx     context.Context
	root    *Root
	o       PlanOptions
	blind   blindness
	above   []*above                    // the directories above the current path
	cleared []string                    // directories that make room for another type
	blocked blindness                   // what is below a path that is in the way
	report  func(path string, dir bool) // PlanOptions.Hidden, as it came
	guard   func(path string, dir bool) bool
	spared  map[string]bool // directories above what is protected or hidden
	solid   map[string]bool // directories that are hidden only because they are some

	inTarget, inBase standing

	pool     map[[32]byte]place
	oldFiles []oldFile
	members  []*member
	groups   map[uint64][]*member // by the target's LinkID
	inodes   map[inode][]*member  // live regular files with several names
}

type above struct {
	path string
	old  *Live
	new  *snapshot.Entry
}

// oldFile is a live file that goes away or changes, and what it should hold.
type oldFile struct {
	path  string
	entry *snapshot.Entry
}

// member is a name in a group of hard links, the target's or the live tree's.
type member struct {
	path   string
	live   *Live
	entry  *snapshot.Entry // nil when the path is not in the target
	op     Op              // "" for nothing to do
	linkTo string
	up     *above // the directory it is in; nil at the top of the scope
}

func (p *planner) row(w row) error {
	if w.live != nil && w.path != "" && isTemp(w.live.Name) {
		p.leftovers = append(p.leftovers, w.live)
		return nil
	}
	switch {
	case w.err != nil:
		p.blind.at(w.path)
		p.Problems = append(p.Problems, w.err)
		return nil //nolint:nilerr // one bad path must not end the walk; the plan tells it
	case w.live == nil && (w.target == nil || p.blind.covers(w.path)), p.blocked.covers(w.path):
		return nil
	}
	guarded := w.live != nil && p.guard(w.path, isDir(w.live.Mode))
	for len(p.above) > 0 && !within(w.path, p.above[len(p.above)-1].path) {
		p.above = p.above[:len(p.above)-1]
	}
	if guarded && w.target == nil {
		p.spare(w)
	} else if err := p.decide(w); err != nil {
		return err
	}
	if w.live != nil && isDir(w.live.Mode) || w.target != nil && isDir(w.target.Mode) {
		p.above = append(p.above, &above{w.path, w.live, w.target})
	}
	return nil
}

// sureness tells of both snapshots what standing.sure does.
type sureness struct{ target, base bool }

func (p *planner) decide(w row) error {
	var sure sureness
	var err error
	if w.live != nil && w.target != nil {
		if sure.target, err = p.inTarget.sure(p.ctx, w.live, w.target, w.path); err != nil {
			return err
		}
	}
	if w.live != nil && w.base != nil {
		if sure.base, err = p.inBase.sure(p.ctx, w.live, w.base, w.path); err != nil {
			return err
		}
	}
	switch {
	case w.target == nil:
		p.extra(w)
	case w.path == "" && (!isDir(w.target.Mode) || w.live == nil):
		return fmt.Errorf("the root is not a directory: %w", snapshot.ErrRefused)
	case isSocket(w.target.Mode):
		// Sockets live only as long as who made them.
	case w.live == nil:
		p.file(w, Create)
	case w.live.Mode&unix.S_IFMT != w.target.Mode&unix.S_IFMT:
		p.changeType(w)
	default:
		return p.sameType(w, sure)
	}
	return nil
}

// extra is a live path that the target does not have.
func (p *planner) extra(w row) {
	room := ""
	if i := slices.IndexFunc(p.cleared, func(dir string) bool { return within(w.path, dir) }); i >= 0 {
		room = p.cleared[i]
	}
	// Snapshots never hold sockets: their absence says nothing.
	remove := w.path != "" && (p.o.Delete && !isSocket(w.live.Mode) || room != "")
	if isRegular(w.live.Mode) && (w.live.Nlink > 1 || remove) {
		m := &member{path: w.path, live: w.live}
		if remove {
			m.op = Delete
			p.old(w.path, w.base)
		}
		p.addMember(m)
	}
	if remove {
		p.act(Action{Op: Delete, Path: w.path, Old: w.live, room: room})
	}
}

func (p *planner) changeType(w row) {
	if isDir(w.live.Mode) {
		if !p.o.Delete {
			p.Problems = append(p.Problems, &fs.PathError{Op: "replace", Path: w.path,
				Err: fmt.Errorf("a directory is in the way: %w", snapshot.ErrRefused)})
			p.blocked.at(w.path)
			return
		}
		p.cleared = append(p.cleared, w.path)
	}
	if isRegular(w.live.Mode) {
		p.addMember(&member{path: w.path, live: w.live, op: Delete})
	}
	p.file(w, Replace)
}

// file plans that w.path gets what the target has; op "" means that it has it.
func (p *planner) file(w row, op Op) {
	if !isRegular(w.target.Mode) && (w.target.LinkID == 0 || isDir(w.target.Mode) || isLink(w.target.Mode)) {
		if op != "" {
			p.act(Action{Op: op, Path: w.path, Old: w.live, New: w.target})
		}
		return
	}
	if op == Replace && isRegular(w.live.Mode) {
		if w.base != nil {
			p.old(w.path, w.base)
		} else {
			p.old(w.path, w.target)
		}
	}
	m := &member{path: w.path, live: w.live, entry: w.target, op: op}
	if w.live != nil && w.live.Mode&unix.S_IFMT != w.target.Mode&unix.S_IFMT {
		m.live = nil // the other type's inode counts as gone
	}
	p.addMember(m)
	if op != "" {
		p.act(Action{Op: op, Path: w.path, Old: w.live, New: w.target})
	}
}

func (p *planner) sameType(w row, sure sureness) error {
	if isDir(w.live.Mode) && madeUp(w.target) {
		return nil
	}
	same, err := p.root.differs(w.live, w.target, w.stamp, sure.target)
	if err != nil {
		return err
	}
	if same == "" {
		p.file(w, "")
		return nil
	}
	var meta, content bool // which of them is right already
	base := Modified
	if w.base != nil {
		if base, err = p.root.differs(w.live, w.base, w.stamp, sure.base); err != nil {
			return err
		}
	}
	if base == "" {
		meta = sameMeta(w.base, w.target)
		content = sameTarget(w.base, w.target)
		if content && isRegular(w.target.Mode) {
			content, err = p.sameContent(w.base, w.target)
		}
	} else {
		meta, err = p.liveMeta(w)
		content = sameTarget(&w.live.Entry, w.target)
		if err == nil && content && isRegular(w.target.Mode) {
			content, err = p.holds(w.live, w.target)
		}
	}
	switch {
	case err != nil:
		return err
	case !content:
		p.file(w, Replace)
	case !meta:
		p.file(w, SetMeta)
	default:
		p.file(w, "")
		p.verified = append(p.verified, stamped{w.path, w.target, w.live.Ino})
	}
	return nil
}

// sameTarget compares what makes up the content apart from a file's bytes.
func sameTarget(a, b *snapshot.Entry) bool {
	return a.Size == b.Size && a.Target == b.Target && (a.Rdev == b.Rdev || !isDevice(a.Mode))
}

func sameMeta(a, b *snapshot.Entry) bool {
	return a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID && a.Mtime == b.Mtime && a.Flags == b.Flags &&
		slices.EqualFunc(a.Xattrs, b.Xattrs, func(x, y snapshot.Xattr) bool {
			return x.Name == y.Name && string(x.Value) == string(y.Value)
		})
}

func (p *planner) liveMeta(w row) (bool, error) {
	l, e := w.live, w.target
	if l.Mode != e.Mode || l.UID != e.UID || l.GID != e.GID || !sameMtime(l, e) || l.Flags != e.Flags {
		return false, nil
	}
	xattrs, err := p.root.Xattrs(w.path)
	return err == nil && sameXattrs(xattrs, e.Xattrs), err
}

// act adds an action, and notes that it changes the directory it is in.
func (p *planner) act(a Action) {
	p.Actions = append(p.Actions, a)
	if a.Op != SetMeta && a.Path != "" {
		p.changes(p.up())
	}
}

// up is the directory that the current path is in.
func (p *planner) up() *above {
	if len(p.above) == 0 {
		return nil
	}
	return p.above[len(p.above)-1]
}

// changes notes that names in the directory change.
func (p *planner) changes(dir *above) {
	if dir != nil && dir.old != nil && isDir(dir.old.Mode) {
		p.dirs[dir.path] = &dirState{dir.old, dir.new}
	}
}

func (p *planner) finish() {
	slices.SortStableFunc(p.Actions, func(a, b Action) int { return ComparePaths(a.Path, b.Path) })
	for id, members := range p.inodes {
		for _, m := range members {
			if m.entry != nil && m.op == "" {
				p.links[id] = append(p.links[id], &stamped{m.path, m.entry, id.ino})
			}
		}
	}
}

// ancestors plans the missing directories above the paths asked for.
func (p *planner) ancestors(target Tree) error {
	seen := map[string]bool{"": true}
	for _, path := range scope(p.o.Paths) {
		var up []string
		for dir := path; dir != ""; {
			dir, _ = split(dir)
			if !seen[dir] {
				up = append(up, dir)
			}
			seen[dir] = true
		}
		slices.Reverse(up)
		for _, dir := range up {
			l, err := p.root.Stat(dir)
			switch {
			case err == nil && isDir(l.Mode):
				continue
			case err == nil:
				return &fs.PathError{Op: "restore below", Path: dir, Err: fmt.Errorf("not a directory: %w", snapshot.ErrRefused)}
			case !errors.Is(err, fs.ErrNotExist):
				return err
			}
			for n, err := range target.Walk(p.ctx, dir) {
				if err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
				if err == nil && n.Path == dir && isDir(n.Mode) {
					p.Actions = append(p.Actions, Action{Op: Create, Path: dir, New: &n.Entry})
				}
				break
			}
		}
	}
	return nil
}
