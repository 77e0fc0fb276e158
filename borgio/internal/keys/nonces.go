package keys

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"sync"
)

// nonceWindow is how many counter blocks are reserved beyond what is needed at
// the moment: enough for 4 GiB of payload.
const nonceWindow = 1 << 28

var errNoncesUsedUp = errors.New("all counter blocks of the key are used up, or someone claims so")

// NonceStore is where a repository notes which counter blocks are used. Both are
// called by one goroutine at a time.
type NonceStore struct {
	// Free gives the next free one; not ok: none is noted.
	Free func(ctx context.Context) (next uint64, ok bool, err error)
	// Reserve notes, durably, that those below next are used. start is what
	// Free gave, 0 where it was not ok.
	Reserve func(ctx context.Context, next, start uint64) error
}

// Nonces hands out counter blocks, each once for all time. It is safe for
// concurrent use.
type Nonces struct {
	store NonceStore
	env   Environ
	id    [32]byte

	mu   sync.Mutex // guards what follows
	next uint64     // not handed out
	end  uint64     // reserved up to here; 0: nothing is reserved
}

// NewNonces makes Nonces for the repository id, which its writer holds
// exclusively. Blocks below used are taken: those of the manifest, in case the
// notes about all others are lost.
func NewNonces(store NonceStore, env Environ, id [32]byte, used uint64) *Nonces {
	return &Nonces{store: store, env: env, id: id, next: used}
}

// Take hands out n counter blocks in a row and gives the first. When it fails,
// none was handed out.
func (c *Nonces) Take(ctx context.Context, n uint64) (first uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n > math.MaxUint64-nonceWindow {
		return 0, errNoncesUsedUp
	}
	if c.end == 0 || n > c.end-c.next {
		if err := c.reserve(ctx, n); err != nil {
			return 0, fmt.Errorf("reserve counter blocks: %w", err)
		}
	}
	first = c.next
	c.next += n
	return first, nil
}

// reserve makes room for n blocks. Only when both notes are durable, any block
// is handed out.
func (c *Nonces) reserve(ctx context.Context, n uint64) error {
	remote, ok, err := c.store.Free(ctx)
	if err != nil {
		return err
	}
	if !ok {
		remote = 0
	}
	local, err := nonceRemembered(c.env, c.id)
	if err != nil {
		return err
	}
	start := max(remote, local, c.next, c.end)
	if start > math.MaxUint64-nonceWindow-n {
		return errNoncesUsedUp
	}
	end := start + n + nonceWindow
	if err := c.store.Reserve(ctx, end, remote); err != nil {
		return err
	}
	if err := rememberNonce(c.env, c.id, end); err != nil {
		return err
	}
	c.next, c.end = start, end
	return nil
}

// nonceRemembered gives the next free counter block as this machine knows it.
// A note that cannot be read is no reason to begin anew.
func nonceRemembered(env Environ, id [32]byte) (uint64, error) {
	text, err := readNote(env, id, "nonce")
	if err != nil || text == "" {
		return 0, err
	}
	return ParseNonce(text)
}

func rememberNonce(env Environ, id [32]byte, next uint64) error {
	dir, err := securityDir(env, id)
	if err != nil {
		return err
	}
	return writeAtomic(filepath.Join(dir, "nonce"), FormatNonce(next), 0o600)
}

// FormatNonce gives a counter block as Borg's nonce files have it.
func FormatNonce(n uint64) string { return fmt.Sprintf("%016x", n) }

// ParseNonce reads what FormatNonce writes.
func ParseNonce(text string) (n uint64, err error) {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != 8 {
		return 0, fmt.Errorf("not a counter block: %.20q", text)
	}
	for _, b := range raw {
		n = n<<8 | uint64(b)
	}
	return n, nil
}
