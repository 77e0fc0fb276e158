package fusefs

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// TestLimited: a read's context ends when its caller is interrupted, and says so
// when it ends because of the time.
func TestLimited(t *testing.T) {
	cancel := make(chan struct{})
	caller := request(&fuse.InHeader{}, cancel)
	late := &limited{Context: caller, deadline: time.Now()}
	defer late.stop()
	<-late.Done()
	if !errors.Is(late.Err(), context.DeadlineExceeded) || !errors.Is(context.Cause(late), errTooSlow) {
		t.Errorf("after the deadline: %v because of %v", late.Err(), context.Cause(late))
	}

	l := &limited{Context: caller, deadline: time.Now().Add(time.Hour)}
	defer l.stop()
	below, stop := context.WithCancel(l)
	defer stop()
	if l.Err() != nil || below.Err() != nil {
		t.Fatalf("at the beginning: %v, %v", l.Err(), below.Err())
	}
	close(cancel)
	<-below.Done()
	if !errors.Is(l.Err(), context.Canceled) || errors.Is(context.Cause(l), errTooSlow) {
		t.Errorf("after an interrupt: %v because of %v", l.Err(), context.Cause(l))
	}

	over := &limited{Context: caller, deadline: time.Now().Add(time.Hour)}
	over.stop()
	<-over.Done() // asked for late
}
