package borgio

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/s4-storage/s4/borgio/internal/compress"
	"github.com/s4-storage/s4/borgio/internal/keys"
)

// Manifest looks up what archives the repository holds now. Asking a local
// repository again is cheap as long as it has not changed.
func (r *Repository) Manifest(ctx context.Context) (*Manifest, error) {
	m, err := r.freshManifest(ctx)
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	return m, nil
}

func (r *Repository) freshManifest(ctx context.Context) (*Manifest, error) {
	state, err := r.store.refresh(ctx)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	m, known := r.manifest, state != 0 && r.state == state
	r.mu.Unlock()
	if !known {
		if m, err = r.readManifest(ctx); err != nil {
			return nil, err
		}
		r.mu.Lock()
		before := r.manifest
		r.manifest, r.state = m, state
		r.mu.Unlock()
		r.checkRollback(m, before)
	}
	own := *m
	own.Archives = slices.Clone(m.Archives)
	return &own, nil
}

func (r *Repository) readManifest(ctx context.Context) (*Manifest, error) {
	plain, err := r.object(ctx, manifestID, compress.UnknownSize, maxMetadataSize)
	if err != nil {
		return nil, err
	}
	defer plain.Release()
	return r.parseManifest(plain.Data)
}

// parseManifest decodes a manifest and checks its authentication.
func (r *Repository) parseManifest(packed []byte) (*Manifest, error) {
	m, auth, err := parseManifest(packed)
	if errors.Is(err, ErrUnsupported) {
		return nil, err
	} else if err != nil {
		return nil, &IntegrityError{What: "format", Err: err}
	}
	required := r.key.Keyed && (r.key.TAMRequired || keys.TAMRemembered(r.env, r.id))
	switch {
	case auth.known:
		if err := r.key.CheckTAM(packed, auth.at, auth.salt, "manifest"); err != nil {
			return nil, &IntegrityError{What: "tam", Err: err}
		}
	case required:
		return nil, damaged(manifestID, "tam", "the manifest is not authenticated, though it must be")
	}
	return m, nil
}

// checkRollback warns of a manifest that is older than one that was there:
// whoever holds the repository put an old state back, and archives may be
// missing from it. What it still names is as good as ever, so it is served.
// before may be nil.
func (r *Repository) checkRollback(m, before *Manifest) {
	if m.Timestamp.IsZero() { // not even borg 1.0 wrote such
		return
	}
	newest, err := parseTime(keys.ManifestRemembered(r.env, r.id))
	if err != nil {
		newest = m.Timestamp
	}
	if before != nil && before.Timestamp.After(newest) {
		newest = before.Timestamp
	}
	if r.remember != nil {
		if t := r.remember(r.id, m.Timestamp); t.After(newest) {
			newest = t
		}
	}
	if newest.After(m.Timestamp) {
		r.log.Warn("the repository was rolled back to an older state: archives may be missing",
			"repository", r.id, "manifest", m.Timestamp, "newest seen", newest)
	}
}
