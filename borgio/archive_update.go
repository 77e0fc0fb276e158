package borgio

import (
	"context"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"sort"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/borgio/internal/compress"
	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// Change is what becomes of a path.
type Change struct {
	Path string
	// Item is what is there now, with the same path; nil: nothing is. Unless it
	// is a directory, what was below the path is gone.
	Item *Item
}

// UpdateArchive makes an archive that is as the one that base describes, but for
// the changes. They come in the order of [ComparePaths], each path once; an error
// among them ends it. base must be of an archive that the manifest has listed
// since before the transaction, else the error is [fs.ErrNotExist].
//
// Only sections into which changes fall are read, and only their successors
// written; still the item stream and its cuts are those that writing all anew
// would give. That hard links agree is the caller's affair: the Source of each
// must be an item before it.
func (t *Transaction) UpdateArchive(ctx context.Context, base *Outline, changes iter.Seq2[Change, error], info ArchiveInfo) (ArchiveRef, *Outline, error) {
	if _, ok := t.bases[base.Archive]; !ok {
		return ArchiveRef{}, nil, fmt.Errorf("update archive %s: %w in the manifest", base.Archive, fs.ErrNotExist)
	}
	m := &merger{w: t.NewArchive(info)}
	next, stop := iter.Pull2(changes)
	defer stop()
	m.pull = next
	if err := m.merge(ctx, base); err != nil {
		return ArchiveRef{}, nil, fmt.Errorf("update archive: %w", err)
	}
	return m.w.Finish(ctx)
}

// merger joins the items of an archive with changes.
type merger struct {
	w    *ArchiveWriter
	pull func() (Change, error, bool)

	change Change // to be made
	more   bool   // there is one
	gone   bool   // all below is:
	below  string
}

// advance goes to the next change.
func (m *merger) advance() error {
	last, first := m.change.Path, !m.more
	var err error
	m.change, err, m.more = m.pull()
	switch {
	case err != nil:
		return err
	case m.more && m.change.Item != nil && m.change.Item.Path != m.change.Path:
		return fmt.Errorf("the item for %q is one for %q", m.change.Path, m.change.Item.Path)
	case m.more && !first && ComparePaths(last, m.change.Path) >= 0:
		return fmt.Errorf("the change of %q comes behind that of %q", m.change.Path, last)
	}
	return nil
}

func (m *merger) merge(ctx context.Context, base *Outline) error {
	if err := m.advance(); err != nil {
		return err
	}
	for i := range base.Sections {
		s, end := &base.Sections[i], ""
		final := i == len(base.Sections)-1
		if !final {
			end = base.Sections[i+1].First
		}
		var err error
		switch touched := m.more && (final || ComparePaths(m.change.Path, end) < 0); {
		case m.isGone(s.First) && !final && m.isGone(end):
			err = m.before(ctx, end) // all of it is gone
		case touched || m.isGone(s.First):
			err = m.mergeSection(ctx, s)
			if err == nil && !final {
				err = m.before(ctx, end)
			}
		default:
			err = m.w.Reuse(ctx, s)
		}
		if err != nil {
			return err
		}
	}
	for m.more {
		if err := m.make(ctx); err != nil {
			return err
		}
	}
	return nil
}

// mergeSection writes the items of a section but for what changed, and all
// changes up to the last item.
func (m *merger) mergeSection(ctx context.Context, s *OutlineSection) error {
	items, err := m.w.t.sections.get(ctx, s)
	if err != nil {
		return err
	}
	for i := range items.items {
		it := &items.items[i]
		if err := m.before(ctx, it.path); err != nil {
			return err
		}
		var err error
		switch {
		case m.more && m.change.Path == it.path:
			err = m.make(ctx)
		case !m.isGone(it.path):
			err = m.w.write(ctx, it.path, it.packed, it.sum)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// before makes the changes of paths before that one.
func (m *merger) before(ctx context.Context, path string) error {
	for m.more && ComparePaths(m.change.Path, path) < 0 {
		if err := m.make(ctx); err != nil {
			return err
		}
	}
	return nil
}

// make makes the present change and goes to the next.
func (m *merger) make(ctx context.Context) error {
	it := m.change.Item
	if it != nil {
		if err := m.w.Add(ctx, it); err != nil {
			return err
		}
	}
	if (it == nil || it.Mode&unix.S_IFMT != unix.S_IFDIR) && !m.isGone(m.change.Path) {
		m.gone, m.below = true, m.change.Path
	}
	return m.advance()
}

func (m *merger) isGone(path string) bool { return m.gone && isUnder(path, m.below) }

// BaseItem gives an item of the archive that base describes, as UpdateArchive
// would find it; [fs.ErrNotExist] where it has none. It reads just the section.
func (t *Transaction) BaseItem(ctx context.Context, base *Outline, path string) (*Item, error) {
	if _, ok := t.bases[base.Archive]; !ok {
		return nil, fmt.Errorf("archive %s: %w in the manifest", base.Archive, fs.ErrNotExist)
	}
	missing := fmt.Errorf("item %q: %w", path, fs.ErrNotExist)
	if len(base.Sections) == 0 {
		return nil, missing
	}
	items, err := t.sections.get(ctx, &base.Sections[base.find(path)])
	if err != nil {
		return nil, err
	}
	i, found := sort.Find(len(items.items), func(i int) int { return ComparePaths(path, items.items[i].path) })
	if !found {
		return nil, missing
	}
	var p itemParser
	if err := p.parse(msgpack.NewReader(items.items[i].packed)); err != nil {
		return nil, fmt.Errorf("item %q: %w", path, err)
	}
	return &p.item, nil
}

// sectionItems is a section's content.
type sectionItems struct {
	plain []byte
	items []sectionItem
}

type sectionItem struct {
	path   string
	packed []byte // a part of plain
	sum    totals
}

// cachedSections is how many sections are kept: most have about 100 KB, and twice
// that with what is known of the items.
const cachedSections = 8

// sectionCache reads sections of archives that were there before.
type sectionCache struct {
	t    *Transaction
	mu   sync.Mutex // guards what follows; held while reading, which only one does at a time anyway
	last []*sectionItems
	ids  [][]ID // of last, which is in the order of use, the latest at the end
}

func newSectionCache(t *Transaction) *sectionCache { return &sectionCache{t: t} }

func (c *sectionCache) get(ctx context.Context, s *OutlineSection) (*sectionItems, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	items, err := (*sectionItems)(nil), error(nil)
	if i := slices.IndexFunc(c.ids, func(ids []ID) bool { return slices.Equal(ids, s.Objects) }); i >= 0 {
		items = c.last[i]
		c.last, c.ids = slices.Delete(c.last, i, i+1), slices.Delete(c.ids, i, i+1)
	} else if items, err = c.read(ctx, s); err != nil {
		return nil, err
	}
	if len(items.plain) > maxSection { // rare, and perhaps huge
		return items, nil
	}
	if len(c.last) == cachedSections {
		c.last, c.ids = slices.Delete(c.last, 0, 1), slices.Delete(c.ids, 0, 1)
	}
	c.last, c.ids = append(c.last, items), append(c.ids, s.Objects)
	return items, nil
}

// read fetches a section through the target, which holds the lock.
func (c *sectionCache) read(ctx context.Context, s *OutlineSection) (*sectionItems, error) {
	out := &sectionItems{}
	for _, id := range s.Objects {
		c.t.targeting.Lock()
		stored, err := c.t.target.get(ctx, id, guessedSize)
		c.t.targeting.Unlock()
		if err != nil {
			return nil, err
		}
		plain, err := c.t.repo.open(ctx, id, stored, compress.UnknownSize, maxObjectSize)
		if err != nil {
			return nil, err
		}
		out.plain = append(out.plain, plain.Data...)
		plain.Release()
	}
	if int64(len(out.plain)) != s.Bytes {
		return nil, fmt.Errorf("section at %q: %w: it has %d bytes, not %d", s.First, errOutline, len(out.plain), s.Bytes)
	}
	out.items = make([]sectionItem, 0, min(s.Items, len(out.plain)))
	var p itemParser
	r := msgpack.NewReader(out.plain)
	for r.Len() > 0 {
		start := r.Pos()
		if err := p.parse(r); err != nil {
			return nil, &IntegrityError{Object: s.Objects[0], What: "items", Err: err}
		}
		out.items = append(out.items, sectionItem{p.item.Path, out.plain[start:r.Pos()], totalsOf(&p.item)})
	}
	if len(out.items) != s.Items || out.items[0].path != s.First {
		return nil, fmt.Errorf("section at %q: %w: it has %d items, not %d", s.First, errOutline, len(out.items), s.Items)
	}
	return out, nil
}
