package borgio

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/s4-storage/s4/borgio/internal/chunker"
	"github.com/s4-storage/s4/borgio/internal/compress"
	"github.com/s4-storage/s4/borgio/internal/keys"
)

// WriteOptions are what a transaction may need; the zero value is good.
type WriteOptions struct {
	// Compression is spelled as for borg: none, lz4, zstd[,1…22], zlib[,0…9],
	// lzma[,0…9], or auto, and one of these; "" is lz4. What is stored already
	// stays as it is.
	Compression string
	// LockWait is how long a repository that somebody else holds is waited for;
	// 0 is ten seconds.
	LockWait time.Duration
}

const (
	// writeBytes bounds the chunks of large files that are under way, and their
	// objects.
	writeBytes = 40 << 20
	// blindPuts is how many objects are put into a remote repository without
	// asking for the list of all it has.
	blindPuts = 256
)

// Transaction adds to a repository. It holds the repository's exclusive lock
// from [Repository.Begin] to [Transaction.Commit] or [Transaction.Rollback], one
// of which must be called. Nothing of it is there for others before the commit,
// and all is then. It is safe for concurrent use, but for its end.
//
// Once storing anything has failed, all else fails, and so does Commit.
type Transaction struct {
	repo   *Repository
	comp   *compress.Compressor
	nonces *keys.Nonces
	hash   *chunker.Hash // that cuts files
	items  *chunker.Hash // that cuts an item which is too large for one object
	memory *semaphore.Weighted
	added  atomic.Int64 // bytes of objects that were new

	bases    map[ID]struct{} // archives that were there before,
	sections *sectionCache   // and of their items

	targeting sync.Mutex // held while target is in use, which is for one goroutine at a time
	target    target
	listed    bool // loadIDs was called
	unknown   int  // objects of which it was not known whether they are there

	mu       sync.Mutex // guards what follows
	err      error      // the first that befell a stored object
	ended    bool
	pending  map[ID]*pending    // objects that are being put
	chunkers []*chunker.Chunker // idle
	scratch  [][]byte           // idle, for small objects
	draft    *manifestDraft     // of the manifest
	recent   recent
}

// pending is an object that somebody is about to store.
type pending struct {
	ready  chan struct{} // closed once the rest is known
	stored uint32
	err    error
}

// Begin takes the repository's exclusive lock and reads the manifest under it.
//
// Errors: [ErrLocked], [ErrUnsupported] for a compression that is not known and
// for a repository that needs more for writing than this package has,
// [ErrKeyMismatch] when this machine knows the repository by another key mode,
// and those of [Open].
func (r *Repository) Begin(ctx context.Context, o WriteOptions) (*Transaction, error) {
	if o.LockWait == 0 {
		o.LockWait = defaultLockWait
	}
	comp, err := newCompressor(o.Compression)
	if err != nil {
		return nil, fmt.Errorf("begin to write: %w", err)
	}
	target, err := r.openTarget(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("begin to write: %w", err)
	}
	t, err := r.begin(ctx, target, comp)
	if err != nil {
		_ = target.rollback() // the first error tells more
		return nil, fmt.Errorf("begin to write: %w", err)
	}
	return t, nil
}

func newCompressor(spec string) (*compress.Compressor, error) {
	if spec == "" {
		spec = "lz4"
	}
	return compress.NewCompressor(spec)
}

// begin reads the manifest from the target.
func (r *Repository) begin(ctx context.Context, target target, comp *compress.Compressor) (*Transaction, error) {
	if typ, known := keys.TypeRemembered(r.env, r.id); known && typ != r.key.Type {
		return nil, fmt.Errorf("%w: this machine knows the repository by key type %d, and it is %d now", ErrKeyMismatch, typ, r.key.Type)
	}
	stored, err := target.get(ctx, manifestID, 0)
	if err != nil {
		return nil, err
	}
	used, err := r.key.FreeBehind(stored.Data)
	if err != nil {
		stored.Release()
		return nil, &IntegrityError{What: "mac", Err: err}
	}
	plain, err := r.open(ctx, manifestID, stored, compress.UnknownSize, maxMetadataSize)
	if err != nil {
		return nil, err
	}
	defer plain.Release()
	packed := slices.Clone(plain.Data)
	m, err := r.parseManifest(packed)
	if err != nil {
		return nil, err
	}
	r.checkRollback(m, nil)
	draft, err := draftOf(m, packed)
	if err != nil {
		return nil, err
	}
	return r.newTransaction(target, comp, draft, used), nil
}

func (r *Repository) newTransaction(target target, comp *compress.Compressor, draft *manifestDraft, used uint64) *Transaction {
	t := &Transaction{
		repo: r, target: target, comp: comp, draft: draft,
		hash:    chunker.NewHash(chunker.Files, r.key.ChunkSeed),
		items:   chunker.NewHash(chunker.Items, r.key.ChunkSeed),
		memory:  semaphore.NewWeighted(writeBytes),
		pending: map[ID]*pending{}, bases: map[ID]struct{}{},
	}
	t.sections = newSectionCache(t)
	for _, a := range draft.Archives {
		t.bases[a.ID] = struct{}{}
	}
	t.nonces = keys.NewNonces(keys.NonceStore{
		Free: func(ctx context.Context) (uint64, bool, error) {
			t.targeting.Lock()
			defer t.targeting.Unlock()
			return target.freeNonce(ctx)
		},
		Reserve: func(ctx context.Context, next, start uint64) error {
			t.targeting.Lock()
			defer t.targeting.Unlock()
			return target.reserveNonces(ctx, next, start)
		},
	}, r.env, r.id, used)
	return t
}

// Manifest is the list of archives as the transaction found it, with those that
// it has added.
func (t *Transaction) Manifest() *Manifest {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.draft.Manifest
	m.Archives = slices.Clone(m.Archives)
	return &m
}

// Added is how many bytes were stored so far that the repository had not: objects
// as they are stored, without what segments need around them.
func (t *Transaction) Added() int64 { return t.added.Load() }

// addArchive names an archive in the manifest to be.
func (t *Transaction) addArchive(ref ArchiveRef) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.checkName(ref.Name); err != nil {
		return err
	}
	t.draft.add(ref)
	return nil
}

// checkName tells whether an archive can have a name; t.mu is held.
func (t *Transaction) checkName(name string) error {
	switch {
	case name == "" || len(name) > 255 || strings.ContainsAny(name, "/\x00\n"):
		return fmt.Errorf("an archive cannot be named %.300q", name)
	case slices.ContainsFunc(t.draft.Archives, func(a ArchiveRef) bool { return a.Name == name }):
		return fmt.Errorf("archive %q: %w", name, fs.ErrExist)
	}
	return nil
}

// Commit makes all that was added part of the repository, and drops the lock.
// When it fails, the repository is as it was before, unless what failed was
// hearing that it went well.
func (t *Transaction) Commit(ctx context.Context) error {
	err := t.commit(ctx)
	if err != nil {
		_ = t.Rollback() // the first error tells more
		return fmt.Errorf("commit to repository %s: %w", t.repo.loc, err)
	}
	return nil
}

func (t *Transaction) commit(ctx context.Context) error {
	t.mu.Lock()
	err, draft, ended := t.err, t.draft, t.ended
	t.mu.Unlock()
	switch {
	case err != nil:
		return err
	case ended:
		return ErrClosed
	}
	// The manifest must not name what is not there.
	if err := t.withTarget(func() error { return t.target.flush(ctx) }); err != nil {
		return err
	}
	r := t.repo
	packed, err := draft.pack(r.key, time.Now())
	if err != nil {
		return err
	}
	if _, err := t.put(ctx, manifestID, packed); err != nil {
		return err
	}
	err = t.withTarget(func() error {
		if err := t.target.flush(ctx); err != nil {
			return err
		}
		return t.target.commit(ctx)
	})
	if err != nil {
		return err
	}
	t.end()
	r.mu.Lock()
	r.recent = t.recent
	r.mu.Unlock()
	err = keys.Remember(r.env, r.id, keys.Note{
		Location: r.loc.canonical(), Type: r.key.Type,
		Manifest: draft.Timestamp.Format(borgTime), TAM: r.key.TAMRequired,
	})
	if err != nil { // it is for borg's questions only; the commit stands
		r.log.Warn("borg may ask about the repository on this machine", "error", err)
	}
	if r.remember != nil {
		r.remember(r.id, draft.Timestamp)
	}
	return nil
}

// Rollback undoes all that was not committed, and drops the lock. After Commit
// it does nothing.
func (t *Transaction) Rollback() error {
	if !t.end() {
		return nil
	}
	if err := t.withTarget(t.target.rollback); err != nil {
		return fmt.Errorf("roll back: %w", err)
	}
	return nil
}

// end makes all further calls fail; it reports whether it was the first.
func (t *Transaction) end() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	first := !t.ended
	t.ended = true
	if t.err == nil {
		t.err = ErrClosed
	}
	return first
}

func (t *Transaction) withTarget(fn func() error) error {
	t.targeting.Lock()
	defer t.targeting.Unlock()
	return fn()
}
