package disk

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/s4-storage/s4/borgio/internal/buffer"
)

// writeUntilKilled as its first argument makes the test binary add transactions to
// the repository in its second, numbered from its third on. It says when it begins
// one, and when that is committed.
const writeUntilKilled = "write-until-killed"

// crashObjects is how many objects each of its transactions has.
const crashObjects = 50

func runWriter(dir, from string) error {
	pool := &buffer.Pool{}
	r, err := Open(context.Background(), dir, pool, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(from)
	for ; err == nil; n++ {
		fmt.Println("begin", n)
		if err = writeOne(r, n); err == nil {
			fmt.Println("commit", n)
		}
	}
	return err
}

func writeOne(r *Repository, n int) error {
	w, err := r.Begin(context.Background(), time.Minute, os.LookupEnv)
	if err != nil {
		return err
	}
	for k := n * crashObjects; err == nil && k < (n+1)*crashObjects; k++ {
		id, data := object(k)
		err = w.Put(context.Background(), id, data)
	}
	if err == nil {
		b, gerr := w.Get(context.Background(), manifest, 0)
		if gerr != nil {
			return errors.Join(gerr, w.Rollback())
		}
		err = w.Put(context.Background(), manifest, b.Data)
		b.Release()
	}
	return errors.Join(err, w.Commit(context.Background()))
}

// TestKilledWriter kills a writer at any moment, over and over: what it said was
// committed is there, what it was at is there as a whole or not at all, and neither
// borg nor the next writer is stopped by what is left.
func TestKilledWriter(t *testing.T) {
	dir := newRepository(t)
	borg(t, "config", dir, "max_segment_size", "50K")
	next := 0
	const kills = 25
	for round := range kills {
		cmd := exec.Command(os.Args[0], writeUntilKilled, dir, strconv.Itoa(next))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		begun, committed := next-1, next-1
		words := bufio.NewScanner(out)
		var die *time.Timer
		for words.Scan() {
			what, number, _ := strings.Cut(words.Text(), " ")
			n, err := strconv.Atoi(number)
			if err != nil {
				t.Fatal(words.Text())
			}
			if what == "commit" {
				committed = n
			} else if begun = n; die == nil {
				die = time.AfterFunc(rand.N(80*time.Millisecond), func() { _ = cmd.Process.Kill() })
			}
		}
		_ = cmd.Wait()
		if die == nil {
			t.Fatal("the writer never began")
		}
		if round%6 == 0 {
			borg(t, "list", dir)
		}
		if got := holds(t, dir, 0, (committed+1)*crashObjects); got != (committed+1)*crashObjects {
			t.Fatalf("round %d: %d objects of %d transactions", round, got, committed+1)
		}
		next = committed + 1
		if begun > committed {
			switch got := holds(t, dir, begun*crashObjects, (begun+1)*crashObjects); got {
			case 0:
			case crashObjects:
				next = begun + 1
			default:
				t.Fatalf("round %d: %d objects of a transaction", round, got)
			}
		}
	}
	w := mustBegin(t, dir)
	putManifest(t, w)
	mustCommit(t, w)
	borg(t, "check", "--repository-only", dir)
	if len(places(t, dir)) != next*crashObjects+1 {
		t.Errorf("%d objects in the index after %d transactions", len(places(t, dir)), next)
	}
	t.Logf("%d transactions", next)
}

// TestKilledBorg: what a killed borg leaves behind does not stop us, nor stays.
func TestKilledBorg(t *testing.T) {
	dir := newRepository(t)
	tree := t.TempDir()
	big := make([]byte, 200<<20)
	rand.NewChaCha8([32]byte{1}).Read(big)
	if err := os.WriteFile(tree+"/big", big, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("borg", "create", "-C", "none", dir+"::a", tree)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		if st, err := os.Stat(dir + "/data/0/2"); err == nil && st.Size() > 1<<20 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("borg does not begin")
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	w := mustBegin(t, dir)
	mustPut(t, w, 0, 10)
	mustCommit(t, w)
	if list := borg(t, "list", "--short", dir); list != "" {
		t.Errorf("archives: %q", list)
	}
	borg(t, "check", "--repository-only", dir)
}
