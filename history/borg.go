package history

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/internal/posixacl"
	"github.com/s4-storage/s4/snapshot"
)

// BorgSource is a borg repository as a source of snapshots. It is opened at
// first need, and again when that failed.
type BorgSource struct {
	id    string // of the repository, hex
	local bool   // on this machine
	open  func(ctx context.Context) (*borgio.Repository, error)
	log   *slog.Logger

	opening chan struct{} // held while opening

	mu       sync.Mutex
	repo     *borgio.Repository
	closed   bool
	failed   error // of the last opening
	failedAt time.Time
	infos    map[string]snapshot.Info // by handle: archives never change
	known    func(handle string) (snapshot.Info, bool)
}

var (
	_ snapshot.Source = (*BorgSource)(nil)
	_ recaller        = (*BorgSource)(nil)
	_ finder          = (*BorgSource)(nil)
)

const (
	// reopenAfter is how long a failure to open answers for the next ones,
	// so that a hundred readers don't wait for a hundred time limits.
	reopenAfter = 2 * time.Second
	// metadataAtOnce is how many archives' metadata are asked for at once.
	metadataAtOnce = 8
)

// BorgSourceID is the [snapshot.Source] id of a repository with that id in
// hex.
func BorgSourceID(repoID string) string { return "borg:" + repoID }

// NewBorgSource makes a source of the repository with that id in hex, which is
// on this machine or not, opened by open when it is needed. A nil log discards.
func NewBorgSource(repoID string, local bool, open func(ctx context.Context) (*borgio.Repository, error), log *slog.Logger) *BorgSource {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &BorgSource{
		id: repoID, local: local, open: open, log: log,
		opening: make(chan struct{}, 1),
		infos:   map[string]snapshot.Info{},
	}
}

// ID implements [snapshot.Source].
func (s *BorgSource) ID() string { return BorgSourceID(s.id) }

// Local implements [snapshot.Source].
func (s *BorgSource) Local() bool { return s.local }

// Recall gives the source a memory of archives from earlier runs, so that
// [BorgSource.Snapshots] reads only those that are new.
func (s *BorgSource) Recall(known func(handle string) (snapshot.Info, bool)) {
	s.mu.Lock()
	s.known = known
	s.mu.Unlock()
}

// Close closes the repository if it is open.
func (s *BorgSource) Close() error {
	s.mu.Lock()
	repo := s.repo
	s.repo, s.closed = nil, true
	s.mu.Unlock()
	if repo == nil {
		return nil
	}
	return repo.Close()
}

// Repository gives the open repository. It stays the source's.
func (s *BorgSource) Repository(ctx context.Context) (*borgio.Repository, error) {
	if repo, err := s.current(); repo != nil || err != nil {
		return repo, err
	}
	select {
	case s.opening <- struct{}{}:
		defer func() { <-s.opening }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if repo, err := s.current(); repo != nil || err != nil {
		return repo, err
	}
	repo, err := s.open(ctx)
	if err == nil && repo.ID().String() != s.id {
		err = fmt.Errorf("another repository is there now, %s instead of %s: %w", repo.ID(), s.id, snapshot.ErrRefused)
		repo.Close()
	}
	if err != nil {
		err = fmt.Errorf("open repository: %w", classify(err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil && ctx.Err() != nil: // says nothing about the repository
		return nil, err
	case err != nil:
		s.failed, s.failedAt = err, time.Now()
		return nil, err
	case s.closed:
		repo.Close()
		return nil, errSourceClosed
	}
	s.repo, s.failed = repo, nil
	return repo, nil
}

var errSourceClosed = fmt.Errorf("source: %w", fs.ErrClosed)

// current gives the repository if it is open, or the reason not to try.
func (s *BorgSource) current() (*borgio.Repository, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, errSourceClosed
	case s.repo != nil:
		return s.repo, nil
	case s.failed != nil && time.Since(s.failedAt) < reopenAfter:
		return nil, s.failed
	}
	return nil, nil
}

// archives lists either the checkpoints in the repository or all else.
func (s *BorgSource) archives(ctx context.Context, checkpoints bool) (*borgio.Repository, []borgio.ArchiveRef, error) {
	repo, err := s.Repository(ctx)
	if err != nil {
		return nil, nil, err
	}
	manifest, err := repo.Manifest(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("read manifest: %w", classify(err))
	}
	return repo, slices.DeleteFunc(manifest.Archives, func(a borgio.ArchiveRef) bool {
		return borgio.IsCheckpoint(a.Name) != checkpoints
	}), nil
}

// Snapshots implements [snapshot.Source]. Checkpoints are hidden. An archive
// whose metadata is damaged is left out with a line in the log.
func (s *BorgSource) Snapshots(ctx context.Context) ([]snapshot.Info, error) {
	repo, refs, err := s.archives(ctx, false)
	if err != nil {
		return nil, err
	}
	infos := make([]snapshot.Info, len(refs))
	errs := make([]error, len(refs))
	var wg sync.WaitGroup
	limit := make(chan struct{}, metadataAtOnce)
	for i, ref := range refs {
		if info, ok := s.remembered(ref); ok {
			infos[i] = info
			continue
		}
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			infos[i], errs[i] = s.describe(ctx, repo, ref)
		})
	}
	wg.Wait()
	now := make(map[string]snapshot.Info, len(refs))
	kept := infos[:0]
	for i, info := range infos {
		switch err := errs[i]; {
		case err == nil:
			now[info.Handle] = info
			kept = append(kept, info)
		case isDamage(err):
			s.log.Warn("archive left out", "archive", refs[i].Name, "error", err)
		default:
			return nil, err
		}
	}
	s.mu.Lock()
	s.infos = now
	s.mu.Unlock()
	return kept, nil
}

// Checkpoints gives the incomplete archives that [BorgSource.Snapshots] hides. One
// whose metadata is damaged is left out.
func (s *BorgSource) Checkpoints(ctx context.Context) ([]snapshot.Info, error) {
	repo, refs, err := s.archives(ctx, true)
	if err != nil {
		return nil, err
	}
	var infos []snapshot.Info
	for _, ref := range refs {
		info, err := s.describe(ctx, repo, ref)
		if isDamage(err) {
			continue
		} else if err != nil {
			return nil, err
		}
		whole := info
		whole.Name = ref.Name[:strings.LastIndex(ref.Name, ".checkpoint")]
		info.Series = seriesOf(whole)
		infos = append(infos, info)
	}
	return infos, nil
}

// remembered describes an archive without reading it. What is in the manifest
// is taken from there.
func (s *BorgSource) remembered(ref borgio.ArchiveRef) (snapshot.Info, bool) {
	handle := ref.ID.String()
	s.mu.Lock()
	info, ok := s.infos[handle]
	known := s.known
	s.mu.Unlock()
	if !ok && known != nil {
		info, ok = known(handle)
	}
	info.Name = ref.Name
	return info, ok
}

func (s *BorgSource) describe(ctx context.Context, repo *borgio.Repository, ref borgio.ArchiveRef) (snapshot.Info, error) {
	a, err := repo.Archive(ctx, ref.ID)
	if err != nil {
		return snapshot.Info{}, fmt.Errorf("read archive %s: %w", ref.Name, classify(err))
	}
	t := ParseComment(a.Comment)
	info := snapshot.Info{
		ID: t.Snapshot, Parent: t.Parent, Volume: t.Volume, Message: t.Message,
		Source: s.ID(), Handle: ref.ID.String(), Name: ref.Name,
		Time: a.Time.UTC(), Host: a.Hostname, User: a.Username,
		Files: a.NFiles, Size: a.Size,
	}
	if info.ID == "" {
		info.ID = info.Handle
	}
	info.Series = seriesOf(info)
	return info, nil
}

// Scan implements [snapshot.Source].
func (s *BorgSource) Scan(ctx context.Context, info snapshot.Info, known []snapshot.Section) snapshot.Scanner {
	scan := &borgScanner{archive: info.Name}
	repo, a, err := s.archive(ctx, info)
	if err != nil {
		scan.failed = err
		return scan
	}
	scan.convert = converter{repo: repo, log: s.log.With("archive", info.Name)}
	scan.Scanner, scan.objects = repo.Scan(ctx, a, borgSections(known)), a.Items
	return scan
}

// FindItem gives what the archive has at a path other than the root's; the
// last, as on extraction, where it has several. Only items that hold the
// path's bytes are decoded. A path that is not there is fs.ErrNotExist.
func (s *BorgSource) FindItem(ctx context.Context, info snapshot.Info, path string) (*snapshot.Item, error) {
	repo, a, err := s.archive(ctx, info)
	if err != nil {
		return nil, fmt.Errorf("read archive %s: %w", info.Name, classify(err))
	}
	scan := repo.Scan(ctx, a, nil)
	defer scan.Close()
	c := converter{repo: repo, log: s.log.With("archive", info.Name)}
	found, want := false, []byte(path)
	for scan.Next() {
		for scan.NextItem() {
			if !bytes.Contains(scan.Raw(), want) {
				continue
			}
			if it := scan.Item(); it != nil && it.Path == path {
				c.item(it)
				found = true
			}
		}
	}
	switch err := scan.Err(); {
	case err != nil:
		return nil, fmt.Errorf("read archive %s: %w", info.Name, classify(err))
	case !found:
		return nil, fs.ErrNotExist
	}
	return &c.out, nil
}

// archive gives the archive of a snapshot, and the repository it is in.
func (s *BorgSource) archive(ctx context.Context, info snapshot.Info) (*borgio.Repository, *borgio.Archive, error) {
	id, err := borgio.ParseID(info.Handle)
	if err != nil {
		return nil, nil, err
	}
	repo, err := s.Repository(ctx)
	if err != nil {
		return nil, nil, err
	}
	a, err := repo.Archive(ctx, id)
	return repo, a, err
}

// Open implements [snapshot.Source].
func (s *BorgSource) Open(ctx context.Context, content []snapshot.Extent) (snapshot.File, error) {
	repo, err := s.Repository(ctx)
	if err != nil {
		return nil, err
	}
	chunks := make([]borgio.Chunk, len(content))
	for i, e := range content {
		chunks[i] = borgio.Chunk{ID: e.ID, Size: e.Size}
	}
	return borgFile{repo.OpenFile(chunks)}, nil
}

// converter makes the index's items of an archive's. One item is used again
// and again.
type converter struct {
	repo *borgio.Repository
	log  *slog.Logger
	out  snapshot.Item
	acls int // lists that could not be understood
}

const (
	modeType    = 0o170000
	modeSymlink = 0o120000
	modeDir     = 0o040000
	modeRegular = 0o100000
	modeSocket  = 0o140000

	// knownFlags leave out that a file is to be compressed, which borg
	// records, too: that belongs to its file system.
	knownFlags = snapshot.FlagNoDump | snapshot.FlagImmutable | snapshot.FlagAppend
)

func (c *converter) item(it *borgio.Item) *snapshot.Item {
	o := &c.out
	*o = snapshot.Item{Path: it.Path, Content: o.Content[:0], Entry: snapshot.Entry{
		Mode: it.Mode, UID: it.UID, GID: it.GID, User: it.User, Group: it.Group,
		Size: it.Size, Rdev: it.Rdev, Mtime: it.Mtime,
		Xattrs: o.Xattrs[:0], Flags: it.BSDFlags & knownFlags, Damaged: it.Damaged,
	}}
	if o.Path == "." {
		o.Path = ""
	}
	if it.HasCtime {
		o.Ctime = it.Ctime
	}
	if it.HasAtime {
		o.Atime = it.Atime
	}
	if it.HasBirthtime {
		o.Birth = it.Birthtime
	}
	switch it.Mode & modeType {
	case modeSymlink:
		o.Target = it.Source
	case modeDir:
	default:
		switch {
		case it.Source != "":
			o.LinkTo = it.Source
		case it.HardlinkMaster:
			o.LinkTo = it.Path
		}
	}
	for _, chunk := range it.Chunks {
		e := snapshot.Extent{ID: chunk.ID, Size: chunk.Size, Hole: c.repo.IsZero(chunk)}
		if e.Hole {
			o.Holes += int64(e.Size)
		}
		o.Content = append(o.Content, e)
	}
	for _, x := range it.Xattrs {
		o.Xattrs = append(o.Xattrs, snapshot.Xattr(x))
	}
	c.acl(posixacl.AccessXattr, it.ACLAccess)
	c.acl(posixacl.DefaultXattr, it.ACLDefault)
	slices.SortFunc(o.Xattrs, func(a, b snapshot.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return o
}

// acl adds a list in the kernel's form. One that makes no sense costs only
// itself.
func (c *converter) acl(name string, text []byte) {
	if len(bytes.TrimSpace(text)) == 0 {
		return
	}
	value, err := posixacl.ToXattr(string(text))
	if err != nil {
		if c.acls++; c.acls == 1 {
			c.log.Warn("access control list left out, and perhaps more of them", "path", c.out.Path, "error", err)
		}
		return
	}
	// Borg notes a plain list of a directory that has a default one.
	if value != nil && (name != posixacl.AccessXattr || !posixacl.Plain(value)) {
		c.out.Xattrs = append(c.out.Xattrs, snapshot.Xattr{Name: name, Value: value})
	}
}
