package borgio

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/compress"
	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// DeleteOptions are what deleting archives may need; the zero value is good.
type DeleteOptions struct {
	// LockWait is as in [WriteOptions].
	LockWait time.Duration
	// Progress hears how far it has come; it may be nil.
	Progress func(DeleteProgress)
}

// DeleteProgress is how far deleting has come: first archives are read, then objects
// are removed. What is not known yet is 0.
type DeleteProgress struct {
	Archives, TotalArchives int
	Objects, TotalObjects   int
}

// DeleteResult is what deleting archives did.
type DeleteResult struct {
	Archives []ArchiveRef // that are gone
	Objects  int          // that nothing refers to any more, and were removed
	// Bytes is what these take as they are stored, as far as it is known: a remote
	// tells it of content only. They are free after [Repository.Compact].
	Bytes int64
}

const (
	// deleteAttempts is how often deleting begins anew because others deleted, too.
	deleteAttempts = 4
	// deleteReports is after how many objects progress is told.
	deleteReports = 1000
)

// Delete removes archives, and the objects that no remaining archive refers to, all
// in one commit. choose gives the ids of the archives to be removed out of those of
// a manifest; it is called more than once, the last time under the lock. What it
// chooses only then is left for the next time.
//
// To know what is referred to, the items of all remaining archives are read, each
// section once, before the lock is taken; under it only those that are new. For each
// of their objects it takes 11 bytes of memory or up to twice that, and for each that
// is removed 36. An archive that is to be removed may be damaged; what it does not
// tell of any more then stays, and the log says so.
//
// Errors: [ErrIntegrity] when a remaining archive is damaged: nothing is removed
// then; those of [Repository.Begin] and [Transaction.Commit].
func (r *Repository) Delete(ctx context.Context, choose func(*Manifest) []ID, o DeleteOptions) (*DeleteResult, error) {
	for attempt := 1; ; attempt++ {
		result, err := r.tryDelete(ctx, choose, o)
		if !errors.Is(err, errOthersDelete) || attempt == deleteAttempts {
			if err != nil {
				return nil, fmt.Errorf("delete archives: %w", err)
			}
			return result, nil
		}
	}
}

// errOthersDelete says that archives vanished meanwhile.
var errOthersDelete = fmt.Errorf("%w: somebody else deletes archives", ErrLocked)

func (r *Repository) tryDelete(ctx context.Context, choose func(*Manifest) []ID, o DeleteOptions) (*DeleteResult, error) {
	m, err := r.freshManifest(ctx)
	if err != nil {
		return nil, err
	}
	d := newDeletion(r, m, choose(m), o.Progress)
	if len(d.doomed) == 0 {
		return &DeleteResult{}, nil
	}
	if err := d.read(ctx); err != nil {
		if now, merr := r.freshManifest(ctx); merr == nil && d.vanished(now) {
			err = errOthersDelete
		}
		return nil, err
	}
	t, err := r.Begin(ctx, WriteOptions{LockWait: o.LockWait})
	if err != nil {
		return nil, err
	}
	result, err := d.commit(ctx, t, choose)
	if err != nil {
		_ = t.Rollback() // the first error tells more
		return nil, err
	}
	return result, nil
}

// deletion is one under way.
type deletion struct {
	repo     *Repository
	remain   []ArchiveRef
	doomed   []ArchiveRef
	progress func(DeleteProgress)
	at       DeleteProgress

	kept     idSet          // referred to by what remains; then also by what is doomed
	sections map[ID]Section // of what remains, by their first objects
	garbage  []garbage
}

// garbage is an object that only doomed archives refer to.
type garbage struct {
	id     ID
	stored uint32 // bytes; 0: not recorded
}

func newDeletion(r *Repository, m *Manifest, ids []ID, progress func(DeleteProgress)) *deletion {
	d := &deletion{repo: r, sections: map[ID]Section{}, progress: progress}
	if progress == nil {
		d.progress = func(DeleteProgress) {}
	}
	for _, a := range m.Archives {
		if slices.Contains(ids, a.ID) {
			d.doomed = append(d.doomed, a)
		} else {
			d.remain = append(d.remain, a)
		}
	}
	d.at.TotalArchives = len(m.Archives)
	return d
}

// vanished tells whether an archive that was to remain is not in the manifest.
func (d *deletion) vanished(now *Manifest) bool {
	there := map[ID]bool{}
	for _, a := range now.Archives {
		there[a.ID] = true
	}
	return slices.ContainsFunc(d.remain, func(a ArchiveRef) bool { return !there[a.ID] })
}

// read finds the garbage.
func (d *deletion) read(ctx context.Context) error {
	through := source{
		object: func(id ID, limit int) (*buffer.Buffer, error) {
			return d.repo.object(ctx, id, compress.UnknownSize, limit)
		},
		scan: func(a *Archive, known map[ID]Section) *Scanner { return d.repo.Scan(ctx, a, known) },
	}
	for _, ref := range d.remain {
		d.kept.add(ref.ID)
		err := d.references(ref, through, d.sections, func(id ID, _ uint32) { d.kept.add(id) })
		if err != nil {
			return fmt.Errorf("archive %s, which is to stay: %w", ref.Name, err)
		}
	}
	known := maps.Clone(d.sections)
	waste := func(id ID, stored uint32) {
		if id != manifestID && d.kept.add(id) {
			d.garbage = append(d.garbage, garbage{id, stored})
		}
	}
	for _, ref := range d.doomed {
		err := d.references(ref, through, known, waste)
		if errors.Is(err, ErrIntegrity) && ctx.Err() == nil {
			d.repo.log.Warn("an archive to be deleted is damaged: what it referred to may stay behind, until borg check --repair", "archive", ref.Name, "error", err)
		} else if err != nil {
			return fmt.Errorf("archive %s: %w", ref.Name, err)
		}
		waste(ref.ID, 0)
	}
	return nil
}

// source is how archives are read: without the lock, or through who has it.
type source struct {
	object func(id ID, limit int) (*buffer.Buffer, error)
	scan   func(a *Archive, known map[ID]Section) *Scanner
}

// references calls fn with what an archive refers to, but for sections that are known
// from others; it adds to those.
func (d *deletion) references(ref ArchiveRef, through source, known map[ID]Section, fn func(id ID, stored uint32)) error {
	plain, err := through.object(ref.ID, maxMetadataSize)
	if err != nil {
		return err
	}
	a, _, err := parseArchive(ref.ID, plain.Data)
	plain.Release()
	if errors.Is(err, ErrUnsupported) {
		return err
	} else if err != nil {
		return &IntegrityError{Object: ref.ID, What: "format", Err: err}
	}
	for _, id := range a.Items {
		fn(id, 0)
	}
	s := through.scan(a, known)
	defer s.Close()
	for s.Next() {
		if s.Known() {
			continue
		}
		for s.NextItem() {
			// The raw item, since Item leaves out what is not to be shown.
			if raw := s.Raw(); raw != nil {
				if err := chunksOf(raw, fn); err != nil {
					return &IntegrityError{Object: s.Section().Objects[0], What: "items", Err: err}
				}
			}
		}
		if s.Err() == nil {
			section := s.Section()
			section.Objects = slices.Clone(section.Objects)
			known[section.Objects[0]] = section
		}
	}
	d.at.Archives++
	d.at.TotalArchives = max(d.at.TotalArchives, d.at.Archives)
	d.progress(d.at)
	return s.Err()
}

// chunksOf calls fn with the chunks of a packed item, and with those that it had
// before borg put zeros in their place: should they come back, it heals.
func chunksOf(raw []byte, fn func(id ID, stored uint32)) error {
	r := msgpack.NewReader(raw)
	var p itemParser
	return r.Fields(func(field []byte) error {
		if name := string(field); name != "chunks" && name != "chunks_healthy" {
			return r.Skip()
		}
		p.item.Chunks = p.item.Chunks[:0]
		if err := p.chunks(r); err != nil {
			return err
		}
		for _, c := range p.item.Chunks {
			fn(c.ID, c.Stored)
		}
		return nil
	})
}

// commit removes the garbage from the repository as it is now, under the lock.
func (d *deletion) commit(ctx context.Context, t *Transaction, choose func(*Manifest) []ID) (*DeleteResult, error) {
	now := t.Manifest()
	if d.vanished(now) {
		return nil, errOthersDelete
	}
	ids := choose(now)
	result := &DeleteResult{}
	spared := idSet{} // referred to by what has come to stay meanwhile
	for _, ref := range now.Archives {
		same := func(a ArchiveRef) bool { return a.ID == ref.ID }
		switch {
		case slices.ContainsFunc(d.remain, same):
		case slices.Contains(ids, ref.ID) && slices.ContainsFunc(d.doomed, same):
			result.Archives = append(result.Archives, ref)
		default:
			spared.add(ref.ID)
			err := d.references(ref, t.source(ctx), d.sections, func(id ID, _ uint32) { spared.add(id) })
			if err != nil {
				return nil, fmt.Errorf("archive %s, which is to stay: %w", ref.Name, err)
			}
		}
	}
	if len(result.Archives) == 0 {
		return result, t.Rollback()
	}
	for i, g := range d.garbage {
		if spared.has(g.id) {
			continue
		}
		size, err := t.delete(ctx, g.id)
		if err != nil {
			return nil, err
		}
		result.Objects++
		if size == 0 {
			size = int64(g.stored)
		}
		result.Bytes += size
		if i%deleteReports == 0 || i == len(d.garbage)-1 {
			d.at.Objects, d.at.TotalObjects = i+1, len(d.garbage)
			d.progress(d.at)
		}
	}
	t.mu.Lock()
	t.draft.remove(result.Archives)
	t.mu.Unlock()
	return result, t.Commit(ctx)
}

// source reads under the lock.
func (t *Transaction) source(ctx context.Context) source {
	object := func(id ID, limit int) (*buffer.Buffer, error) {
		t.targeting.Lock()
		stored, err := t.target.get(ctx, id, guessedSize)
		t.targeting.Unlock()
		if err != nil {
			return nil, err
		}
		return t.repo.open(ctx, id, stored, compress.UnknownSize, limit)
	}
	return source{object, func(a *Archive, known map[ID]Section) *Scanner {
		return &Scanner{name: a.Name, stream: a.Items, known: known, pieces: pieceFunc(func(i int) (*buffer.Buffer, error) {
			return object(a.Items[i], maxObjectSize)
		})}
	}}
}

// pieceFunc gives pieces one by one.
type pieceFunc func(i int) (*buffer.Buffer, error)

func (f pieceFunc) get(i int) (*buffer.Buffer, error) { return f(i) }

func (pieceFunc) close() {}

// delete removes an object from the repository.
func (t *Transaction) delete(ctx context.Context, id ID) (size int64, err error) {
	err = t.withTarget(func() error {
		size, err = t.target.delete(ctx, id)
		return err
	})
	return size, err
}

// remove takes archives out of the list.
func (d *manifestDraft) remove(refs []ArchiveRef) {
	gone := map[string]bool{}
	for _, a := range refs {
		gone[a.Name] = true
	}
	d.archives = slices.DeleteFunc(slices.Clone(d.archives), func(f rawField) bool { return gone[f.name] })
	d.Archives = slices.DeleteFunc(slices.Clone(d.Archives), func(a ArchiveRef) bool { return gone[a.Name] })
}

// CompactOptions are what compacting may need; the zero value is good.
type CompactOptions struct {
	// LockWait is as in [WriteOptions].
	LockWait time.Duration
	// Threshold is the part of a segment that must be free for it to be rewritten;
	// 0 is a tenth, as with borg.
	Threshold float64
}

const defaultThreshold = 0.1

// Compact gives free the room that deleted objects take, as borg compact does. It
// tells by how many bytes the repository has become smaller; -1 for a remote, which
// does not say. Where only appending is allowed it does nothing.
//
// Errors: [ErrLocked], [ErrNoSpace], since it copies before it removes,
// [ErrIntegrity] when the repository has to be repaired first, those of [Open].
func (r *Repository) Compact(ctx context.Context, o CompactOptions) (freed int64, err error) {
	if o.LockWait == 0 {
		o.LockWait = defaultLockWait
	}
	if o.Threshold == 0 {
		o.Threshold = defaultThreshold
	}
	target, err := r.openTarget(ctx, WriteOptions{LockWait: o.LockWait})
	if err == nil {
		freed, err = target.compact(ctx, o.Threshold)
	}
	if err != nil {
		return 0, fmt.Errorf("compact repository %s: %w", r.loc, err)
	}
	return freed, nil
}
