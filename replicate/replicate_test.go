package replicate

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/s4-storage/s4/snapshot"
)

func TestBackoff(t *testing.T) {
	last := time.Duration(0)
	for n, want := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second, 9: 256 * time.Second, 10: 5 * time.Minute, 1000: 5 * time.Minute} {
		if got := backoff(n); got != want {
			t.Errorf("after %d: %v, want %v", n, got, want)
		}
	}
	for n := 1; n < 20; n++ {
		if got := backoff(n); got < last {
			t.Errorf("after %d it is %v, before %v", n, got, last)
		} else {
			last = got
		}
	}
}

func TestHopeless(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{snapshot.ErrUnreachable, false},
		{snapshot.ErrLocked, false},
		{errors.New("no space left on device"), false},
		{fmt.Errorf("push: %w", snapshot.ErrRefused), true},
		{fmt.Errorf("push: %w", snapshot.ErrKey), true},
		// The repository is gone: its disk may come back.
		{errors.Join(snapshot.ErrRefused, snapshot.ErrUnreachable), false},
	} {
		if got := hopeless(c.err); got != c.want {
			t.Errorf("%v: %t", c.err, got)
		}
	}
}
