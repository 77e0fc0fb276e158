package keys

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// noted is a repository's note about counter blocks, and how it fails.
type noted struct {
	next   uint64
	ok     bool
	before error // of Reserve, which then notes nothing,
	after  error // or has noted it
}

func (s *noted) store() NonceStore {
	return NonceStore{
		Free: func(context.Context) (uint64, bool, error) { return s.next, s.ok, nil },
		Reserve: func(_ context.Context, next, start uint64) error {
			if start != s.next {
				return errors.New("it was noted otherwise")
			}
			if s.before != nil {
				return s.before
			}
			s.next, s.ok = next, true
			return s.after
		},
	}
}

type blocks struct{ first, n uint64 }

// TestNoncesDisjoint: whenever writers crash, whichever of the two notes is lost
// or put back to an older state, no counter block is handed out twice.
func TestNoncesDisjoint(t *testing.T) {
	dir := t.TempDir()
	env := lookup(map[string]string{"BORG_BASE_DIR": dir})
	rnd := rand.New(rand.NewPCG(1, 2))
	crash := errors.New("crash")
	var id [32]byte
	repo := &noted{}
	var all []blocks
	var old noted // of the repository, for putting it back
	for range 2000 {
		repo.before, repo.after = nil, nil
		switch rnd.IntN(8) {
		case 0:
			repo.before = crash
		case 1:
			repo.after = crash
		case 2: // whoever holds the repository puts it back
			*repo = old
		case 3:
			local, err := nonceRemembered(env, id)
			if err != nil {
				t.Fatal(err)
			}
			if repo.next >= local { // it is an honest one: another machine may go on
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
				old = *repo
			}
		case 4:
			old = *repo
		}
		c := NewNonces(repo.store(), env, id, 0)
		for range rnd.IntN(4) {
			n := uint64(rnd.IntN(1 << 28))
			first, err := c.Take(t.Context(), n)
			if err == nil {
				all = append(all, blocks{first, n})
			} else if !errors.Is(err, crash) {
				t.Fatal(err)
			}
		}
	}
	checkDisjoint(t, all)
}

func checkDisjoint(t *testing.T, all []blocks) {
	t.Helper()
	slices.SortFunc(all, func(a, b blocks) int {
		if a.first < b.first || a.first == b.first && a.n < b.n {
			return -1
		}
		return 1
	})
	for i := 1; i < len(all); i++ {
		if all[i-1].first+all[i-1].n > all[i].first {
			t.Fatalf("%v overlaps %v", all[i-1], all[i])
		}
	}
	if len(all) < 1000 {
		t.Errorf("only %d were handed out", len(all))
	}
}

// TestNoncesConcurrent: many encrypters at once get blocks of their own.
func TestNoncesConcurrent(t *testing.T) {
	env := lookup(map[string]string{"BORG_BASE_DIR": t.TempDir()})
	c := NewNonces((&noted{}).store(), env, [32]byte{1}, 12345)
	var mu sync.Mutex
	var all []blocks
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range uint64(2000) {
				n := i % 7 * (1 << 16)
				first, err := c.Take(t.Context(), n)
				if err != nil || first < 12345 {
					t.Errorf("%d, %v", first, err)
					return
				}
				mu.Lock()
				all = append(all, blocks{first, n})
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	checkDisjoint(t, all)
}

// TestNoncesRefused: a note that makes no sense, or leaves no room, stops the
// writer; beginning anew would be worse.
func TestNoncesRefused(t *testing.T) {
	for name, c := range map[string]struct {
		local string
		repo  noted
		used  uint64
	}{
		"garbage on this machine":  {local: "0123"},
		"used up on this machine":  {local: "ffffffffffffff00"},
		"used up in the manifest":  {used: math.MaxUint64 - 5},
		"a hostile repository":     {repo: noted{next: math.MaxUint64, ok: true}},
		"nothing durable was made": {repo: noted{before: errors.New("disk full")}},
	} {
		dir := t.TempDir()
		env := lookup(map[string]string{"BORG_SECURITY_DIR": dir})
		var id [32]byte
		if c.local != "" {
			path, err := securityFile(env, id, "nonce")
			if err == nil {
				err = os.MkdirAll(filepath.Dir(path), 0o700)
			}
			if err == nil {
				err = os.WriteFile(path, []byte(c.local), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if first, err := NewNonces(c.repo.store(), env, id, c.used).Take(t.Context(), 16); err == nil {
			t.Errorf("%s: got %#x", name, first)
		}
	}
}

func FuzzNonce(f *testing.F) {
	f.Add("0000000010000000")
	f.Add("ffffffffffffffff")
	f.Add("zz")
	f.Fuzz(func(t *testing.T, text string) {
		n, err := ParseNonce(text)
		if err != nil {
			return
		}
		if again, err := ParseNonce(FormatNonce(n)); err != nil || again != n {
			t.Fatalf("%q is %d, and then %d, %v", text, n, again, err)
		}
	})
}
