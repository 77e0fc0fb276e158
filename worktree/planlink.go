package worktree

// addMember takes m into account if links matter for it at all.
func (p *planner) addMember(m *member) {
	if (m.live == nil || m.live.Nlink <= 1) && (m.entry == nil || m.entry.LinkID == 0) {
		return
	}
	m.up = p.up()
	p.members = append(p.members, m)
	if m.live != nil && m.live.Nlink > 1 {
		id := inode{m.live.Dev, m.live.Ino}
		p.inodes[id] = append(p.inodes[id], m)
	}
	if m.entry != nil && m.entry.LinkID != 0 {
		p.groups[m.entry.LinkID] = append(p.groups[m.entry.LinkID], m)
	}
}

// resolveLinks makes names share an inode exactly where the target says so,
// as far as the plan's scope goes.
func (p *planner) resolveLinks() {
	if len(p.groups) == 0 && len(p.inodes) == 0 {
		return
	}
	owner := p.owners()
	done := map[uint64]bool{}
	for _, m := range p.members {
		if m.entry == nil {
			continue
		}
		group := []*member{m}
		if id := m.entry.LinkID; id != 0 {
			if done[id] {
				continue
			}
			done[id] = true
			group = p.groups[id]
		}
		p.resolveGroup(group, owner)
	}
	p.rewriteActions()
}

// owners gives each live inode with several names to the group of the first
// member that keeps its content; other groups have to leave it.
func (p *planner) owners() map[inode]*member {
	owner := map[inode]*member{}
	for id, members := range p.inodes {
		for _, m := range members {
			if m.entry != nil && keeps(m) {
				owner[id] = m
				break
			}
		}
	}
	return owner
}

func keeps(m *member) bool { return m.live != nil && (m.op == "" || m.op == SetMeta) }

func sameGroup(a, b *member) bool {
	return a == b || a.entry.LinkID != 0 && a.entry.LinkID == b.entry.LinkID
}

func (p *planner) resolveGroup(group []*member, owner map[inode]*member) {
	first := group[0]
	found := false
	for _, m := range group {
		if m.live == nil || m.live.Nlink <= 1 {
			if keeps(m) && !found {
				first, found = m, true
			}
			continue
		}
		id := inode{m.live.Dev, m.live.Ino}
		if o := owner[id]; keeps(m) && o != nil && !sameGroup(o, m) {
			m.op = Replace // leaves an inode that others keep
		}
		if m.op == SetMeta && p.namesOutside(id, m) {
			m.op = Replace // a name that is not ours to change shares the inode
		}
		if keeps(m) && !found {
			first, found = m, true
		}
	}
	for _, m := range group {
		switch {
		case m == first:
		case keeps(m) && keeps(first) && m.live.Ino == first.live.Ino && m.live.Dev == first.live.Dev:
			m.op = "" // what is done to the first is done to it
		default:
			m.op, m.linkTo = MakeLink, first.path
		}
	}
}

// namesOutside tells whether an inode has names that the plan neither gives
// to m's group nor takes away.
func (p *planner) namesOutside(id inode, m *member) bool {
	ours := uint32(0)
	for _, other := range p.inodes[id] {
		if other.op == Delete || other.op == Replace || other.entry != nil && sameGroup(other, m) {
			ours++
		}
	}
	return ours < m.live.Nlink
}

// rewriteActions brings the list in line with what the members now want.
func (p *planner) rewriteActions() {
	at := make(map[string]int, len(p.Actions))
	for i, a := range p.Actions {
		at[a.Path] = i
	}
	drop := map[int]bool{}
	for _, m := range p.members {
		i, listed := at[m.path]
		switch {
		case m.entry == nil:
		case m.op == "" && listed:
			drop[i] = true
		case m.op != "" && listed:
			if m.op == Replace && p.Actions[i].Op == SetMeta {
				p.old(m.path, m.entry)
			}
			p.Actions[i].Op, p.Actions[i].LinkTo = m.op, m.linkTo
		case m.op != "":
			p.Actions = append(p.Actions, Action{Op: m.op, Path: m.path, LinkTo: m.linkTo, Old: m.live, New: m.entry})
			if m.op == Replace {
				p.old(m.path, m.entry)
			}
		}
		if m.entry != nil && m.op != "" && m.op != SetMeta {
			p.changes(m.up)
		}
	}
	if len(drop) == 0 {
		return
	}
	kept := p.Actions[:0]
	for i, a := range p.Actions {
		if !drop[i] {
			kept = append(kept, a)
		}
	}
	p.Actions = kept
}
