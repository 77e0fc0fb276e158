package borgio_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestKilledAgainAndAgain kills what stands in for ssh while a file is streamed
// and read here and there, over and over: every byte is right, and no reader
// sees an error. S4_LONG=1 makes it 1 GB and a kill every second.
func TestKilledAgainAndAgain(t *testing.T) {
	needBorg(t)
	size, kills, every := 64<<20, 5, 300*time.Millisecond
	if os.Getenv("S4_LONG") != "" {
		size, kills, every = 1_000_000_000, 20, time.Second
	}
	tree, repo := t.TempDir(), filepath.Join(t.TempDir(), "repo")
	body := make([]byte, size)
	rand.NewChaCha8([32]byte{3}).Read(body)
	if err := os.WriteFile(tree+"/big", body, 0o600); err != nil {
		t.Fatal(err)
	}
	runBorg(t, tree, "init", "-e", "none", repo)
	runBorg(t, tree, "create", "-C", "lz4", repo+"::all", ".")
	program, calls := rsh(t)
	r := mustOpen(t, "host:"+repo, remoteOptions(t, program))
	chunks := readArchive(t, r, "all")["big"].Chunks

	var read atomic.Int64 // bytes, by all
	enough := make(chan struct{})
	over := func() bool {
		select {
		case <-enough:
			return true
		default:
			return t.Failed()
		}
	}
	var readers sync.WaitGroup
	readers.Go(func() {
		want := sha256.Sum256(body)
		for rounds := 0; rounds == 0 || !over(); rounds++ {
			h := counted{sha256.New(), &read}
			if _, err := r.OpenFile(chunks).WriteTo(h); err != nil {
				t.Errorf("stream: %v", err)
			} else if !bytes.Equal(h.Sum(nil), want[:]) {
				t.Error("stream: content differs")
			}
		}
	})
	for seed := range uint64(2) {
		readers.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, 0))
			f := r.OpenFile(chunks)
			p := make([]byte, 300_000)
			for !over() {
				off := rnd.IntN(size)
				n, err := f.ReadAt(p, int64(off))
				if err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(p[:n], body[off:min(off+len(p), size)]) {
					t.Errorf("read %d at %d: got %d, %v", len(p), off, n, err)
				}
				read.Add(int64(n))
			}
		})
	}
	defer readers.Wait()
	for n := 0; n < kills && !t.Failed(); time.Sleep(every) {
		// On a busy machine no session may live long enough to be of use.
		if now := read.Load(); now == 0 {
			continue
		}
		if killed := len(running(t, calls)); killed > 0 {
			read.Store(0)
			killAll(t, calls)
			n++
		}
	}
	close(enough)
}

// counted counts what goes into a hash.
type counted struct {
	hash.Hash
	n *atomic.Int64
}

// Write is [io.Writer].
func (c counted) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return c.Hash.Write(p)
}
