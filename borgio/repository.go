package borgio

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/compress"
	"github.com/s4-storage/s4/borgio/internal/disk"
	"github.com/s4-storage/s4/borgio/internal/keys"
)

// Options are what opening a repository may need; the zero value is good.
type Options struct {
	// Passphrase asks for the key's passphrase. It is called at most once,
	// and only when the key needs one, the environment gives none, and the
	// empty one is not right. nil means that nobody can be asked.
	Passphrase func(ctx context.Context) (string, error)
	// Environ looks up Borg's own variables; nil is os.LookupEnv.
	Environ func(string) (string, bool)
	// Logger gets what is worth knowing but no error; nil discards it.
	Logger *slog.Logger
	// Remember is told the timestamp of each manifest and gives that of the
	// newest it was ever told for that repository, across runs; a manifest
	// that is older than it was rolled back, and the log says so. With nil, a
	// Repository remembers what it has met itself, and what borg has noted on
	// this machine.
	Remember func(id ID, manifest time.Time) (newest time.Time)
	// CacheBytes is how much decoded file content is kept; 0 is 32 MiB.
	CacheBytes int64
	// Timeout is how long a remote that gives no answer is put up with; 0 is
	// a minute. Until then a connection that breaks is made anew, and so is
	// one that is silent for half of it. Logging in may take half of it,
	// unless a person at a terminal may be asked for a password.
	Timeout time.Duration
	// LockWait is how long a remote repository that a writer holds is waited
	// for; 0 is ten seconds.
	LockWait time.Duration
	// Keep tells that the repository is kept open from one transaction to the
	// next: when remote, a session stands by for it that has logged in already.
	Keep bool
	// ControlDir is a directory, of this user alone, for the sockets by which
	// sessions with one host share a connection of OpenSSH; with "" each has its
	// own, unless ssh's configuration says otherwise. Other processes that name
	// the directory share it; it ends with its last session.
	ControlDir string
}

const (
	defaultCacheBytes = 32 << 20
	defaultTimeout    = time.Minute
	defaultLockWait   = 10 * time.Second

	// fetchBytes bounds the objects that are being fetched and opened;
	// aheadBytes the plaintexts that are there before anyone asked for them,
	// over all streams.
	fetchBytes = 32 << 20
	aheadBytes = 24 << 20
)

// Repository is an open repository. It is safe for concurrent use.
type Repository struct {
	loc Location
	id  ID
	env keys.Environ
	log *slog.Logger

	remember func(id ID, manifest time.Time) (newest time.Time) // may be nil

	store store
	key   *keys.Key
	comp  *compress.Decompressor
	pool  *buffer.Pool
	cache *chunkCache
	zeros zeroIDs

	fetching *semaphore.Weighted // fetchBytes
	ahead    *semaphore.Weighted // aheadBytes
	large    *semaphore.Weighted // one: what is longer than usualSize

	ctx    context.Context // ends at Close: for work that outlives its caller
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu       sync.Mutex // guards what follows
	owners   int        // besides the one that opened it
	closed   bool
	manifest *Manifest // as of state
	state    uint64    // of the store; 0: no manifest is kept
	recent   recent
}

// Open opens the repository at loc: its key, and a connection when it is
// remote. loc.Archive is not looked at.
//
// Errors: [ErrNotRepository] and its kind, [ErrUnsupported], [ErrNoPassphrase],
// [ErrPassphrase], [ErrKeyMissing], [ErrKeyMismatch], [ErrKeyDamaged],
// [ErrIntegrity]; when remote also [ErrUnreachable] and its kinds, and
// [ErrLocked].
func Open(ctx context.Context, loc Location, opts Options) (*Repository, error) {
	r, err := open(ctx, loc, opts)
	if err != nil {
		return nil, fmt.Errorf("open repository %s: %w", loc, err)
	}
	return r, nil
}

func open(ctx context.Context, loc Location, opts Options) (*Repository, error) {
	r, opts, err := newRepository(loc, opts)
	if err != nil {
		return nil, err
	}
	if loc.IsRemote() {
		var s remoteStore
		if s, err = openRemote(ctx, loc, opts, r.pool); err == nil {
			r.store, r.id = s, s.client.ID()
		}
	} else {
		var s localStore
		if s, err = openLocal(ctx, loc.Path, r.pool, r.log); err == nil {
			r.store, r.id = s, s.repo.ID()
		}
	}
	if err == nil {
		err = r.openKey(ctx, opts.Passphrase)
		if s, ok := r.store.(localStore); ok && errors.Is(err, fs.ErrNotExist) && errors.Is(err, ErrIntegrity) {
			err = s.unfinished(err)
		}
	}
	if err != nil {
		_ = r.Close() // the first error tells more
		return nil, err
	}
	return r, nil
}

// newRepository makes a Repository that has no store and no key yet, and fills in
// the options that were left out.
func newRepository(loc Location, opts Options) (*Repository, Options, error) {
	if opts.Environ == nil {
		opts.Environ = os.LookupEnv
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.CacheBytes == 0 {
		opts.CacheBytes = defaultCacheBytes
	}
	if opts.Timeout == 0 {
		opts.Timeout = defaultTimeout
	}
	if opts.LockWait == 0 {
		opts.LockWait = defaultLockWait
	}
	r := &Repository{
		loc:      loc,
		env:      opts.Environ,
		log:      opts.Logger,
		remember: opts.Remember,
		pool:     &buffer.Pool{},
		fetching: semaphore.NewWeighted(fetchBytes),
		ahead:    semaphore.NewWeighted(aheadBytes),
		large:    semaphore.NewWeighted(1),
	}
	var err error
	if r.comp, err = compress.New(r.pool); err != nil {
		return nil, opts, err
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.cache = newChunkCache(r, opts.CacheBytes)
	return r, opts, nil
}

// openKey finds the key that the manifest's first byte asks for.
func (r *Repository) openKey(ctx context.Context, prompt func(context.Context) (string, error)) error {
	stored, err := r.store.get(ctx, manifestID, 0)
	if err != nil {
		return err
	}
	defer stored.Release()
	if len(stored.Data) == 0 {
		return &IntegrityError{What: "key type"}
	}
	typ := stored.Data[0]
	md, err := keys.ModeOf(typ)
	if err != nil {
		return err
	}
	if typ == keys.TypePassphrase {
		typ = keys.TypeRepokey
	}
	var material *keys.Material
	if md.Keyed {
		if material, err = r.findKey(ctx, md, prompt); err != nil {
			return err
		}
	}
	r.key, err = keys.New(typ, material)
	return err
}

func (r *Repository) findKey(ctx context.Context, md keys.Mode, prompt func(context.Context) (string, error)) (*keys.Material, error) {
	var text string
	var err error
	if md.Keyfile {
		text, err = keys.FindFile(r.env, r.id)
	} else if text, err = r.store.loadKey(ctx); err == nil && text == "" {
		err = fmt.Errorf("%w: the repository holds none", ErrKeyMissing)
	}
	if err != nil {
		return nil, err
	}
	sealed, err := keys.Parse(text)
	if err != nil {
		return nil, err
	}
	m, err := keys.Unseal(ctx, sealed, r.env, prompt)
	if err != nil {
		return nil, err
	}
	if m.Repository != r.id {
		return nil, fmt.Errorf("%w: it is of %s", ErrKeyMismatch, m.Repository)
	}
	return m, nil
}

// ID is the repository's own id; it never changes.
func (r *Repository) ID() ID { return r.id }

// Encryption is Borg's name of the key mode: none, repokey, keyfile-blake2, …
func (r *Repository) Encryption() string { return r.key.Name }

// VerifyID reports whether data is the plaintext of the object id, so that a
// caller may use bytes that it has already instead of fetching them.
func (r *Repository) VerifyID(id ID, data []byte) bool { return r.key.ID(data) == id }

// guessedSize is what an object of unknown size counts for before it is here;
// usualSize is what hardly one is longer than: borg cuts metadata into pieces of
// half of it at most. Longer ones are opened one at a time, lest many of them
// together take what each of them may.
const (
	guessedSize = 128 << 10
	usualSize   = 1 << 20
)

// object fetches, authenticates, decrypts, decompresses and verifies one
// object. size is its plaintext's length in bytes, or compress.UnknownSize when only
// the limit is known.
func (r *Repository) object(ctx context.Context, id ID, size, limit int) (*buffer.Buffer, error) {
	if plain := r.recently(id, limit); plain != nil {
		return plain, nil
	}
	expected := size
	if size == compress.UnknownSize {
		expected = guessedSize
	}
	weight := min(int64(expected)+4096, fetchBytes)
	if err := r.fetching.Acquire(ctx, weight); err != nil {
		return nil, err
	}
	defer r.fetching.Release(weight)
	plain, err := r.fetch(ctx, id, expected, size, limit)
	if errors.Is(err, disk.ErrFault) { // compaction cut the segment short meanwhile: the object is elsewhere
		plain, err = r.fetch(ctx, id, expected, size, limit)
	}
	return plain, err
}

// fetch does all of object but the waiting.
func (r *Repository) fetch(ctx context.Context, id ID, expected, size, limit int) (*buffer.Buffer, error) {
	stored, err := r.store.get(ctx, id, expected)
	if err != nil {
		return nil, err
	}
	return r.open(ctx, id, stored, size, limit)
}

// open does all of object with what is stored, which it releases.
func (r *Repository) open(ctx context.Context, id ID, stored *buffer.Buffer, size, limit int) (*buffer.Buffer, error) {
	defer stored.Release()
	open := func(limit int) (plain *buffer.Buffer, err error) {
		if fault := disk.OnFault(func() { plain, err = r.decode(id, stored.Data, size, limit) }); fault != nil {
			return nil, fmt.Errorf("object %s: %w", id, fault)
		}
		return plain, err
	}
	if size != compress.UnknownSize {
		return open(limit)
	}
	plain, err := open(min(limit, usualSize))
	if limit > usualSize && errors.Is(err, compress.ErrTooLarge) {
		if err := r.large.Acquire(ctx, 1); err != nil {
			return nil, err
		}
		defer r.large.Release(1)
		return open(limit)
	}
	return plain, err
}

// decode does all of fetch but the fetching.
func (r *Repository) decode(id ID, stored []byte, size, limit int) (*buffer.Buffer, error) {
	var scratch []byte
	if r.key.Encrypted {
		b := r.pool.Get(len(stored))
		defer b.Release()
		scratch = b.Data
	}
	payload, err := r.key.Decrypt(stored, scratch)
	if check, ok := errors.AsType[*keys.CheckError](err); ok {
		return nil, &IntegrityError{Object: id, What: check.What, Err: check.Err}
	} else if err != nil {
		return nil, err
	}
	plain, err := r.comp.Decompress(payload, size, limit)
	if errors.Is(err, ErrUnsupported) {
		return nil, fmt.Errorf("object %s: %w", id, err)
	} else if err != nil {
		return nil, &IntegrityError{Object: id, What: "compression", Err: err}
	}
	if id != manifestID && r.key.ID(plain.Data) != id {
		plain.Release()
		return nil, &IntegrityError{Object: id, What: "id"}
	}
	return plain, nil
}

// Archive reads an archive's description by its id in the manifest.
//
// An archive whose authentication does not match is given all the same, with
// a warning in the log: borg 1.2.4 itself leaves such archives behind when it
// renames or repairs. Its id and every object in it are verified in any case.
func (r *Repository) Archive(ctx context.Context, id ID) (*Archive, error) {
	a, err := r.archive(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("read archive %s: %w", id, err)
	}
	return a, nil
}

func (r *Repository) archive(ctx context.Context, id ID) (*Archive, error) {
	plain, err := r.object(ctx, id, compress.UnknownSize, maxMetadataSize)
	if err != nil {
		return nil, err
	}
	defer plain.Release()
	a, auth, err := parseArchive(id, plain.Data)
	if errors.Is(err, ErrUnsupported) {
		return nil, err
	} else if err != nil {
		return nil, &IntegrityError{Object: id, What: "format", Err: err}
	}
	if auth.known {
		if err := r.key.CheckTAM(plain.Data, auth.at, auth.salt, "archive"); err != nil {
			r.log.Warn("archive is not authenticated: renamed or repaired by an old borg, or forged", "archive", a.Name, "id", id, "error", err)
		}
	}
	return a, nil
}

// start runs fn in a goroutine that Close waits for; fn must end when the
// context it is given does. It reports false when the repository is closed.
func (r *Repository) start(fn func(ctx context.Context)) bool {
	if !r.enter() {
		return false
	}
	go func() {
		defer r.work.Done()
		fn(r.ctx)
	}()
	return true
}

// enter makes Close wait for work.Done. It reports false when the repository is
// closed.
func (r *Repository) enter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.work.Add(1)
	}
	return !r.closed
}

// Share gives the repository one more owner, who has to close it, too.
func (r *Repository) Share() *Repository {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.owners++
	return r
}

// Close ends all that is under way, and the connection, when its last owner calls
// it. Streams and files that are still open give errors from then on. The memory
// of a read that is about to return lasts until it does.
func (r *Repository) Close() error {
	r.mu.Lock()
	if r.owners > 0 {
		r.owners--
		r.mu.Unlock()
		return nil
	}
	again := r.closed
	r.closed = true
	r.mu.Unlock()
	if again {
		return nil
	}
	r.cancel()
	r.work.Wait()
	var err error
	if r.store != nil {
		err = r.store.close()
	}
	r.cache.drop()
	r.comp.Close()
	r.pool.Close()
	return err
}
