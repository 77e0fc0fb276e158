package dockerplugin

import (
	"context"
	"fmt"
	"sync"
)

// locks has a lock for each name, as long as somebody wants it.
type locks struct {
	mu   sync.Mutex
	held map[string]*nameLock
}

type nameLock struct {
	taken chan struct{} // holds one element while locked
	users int           // who have it or wait for it
}

// lock waits for a name's lock. The error is the context's.
func (l *locks) lock(ctx context.Context, name string) (unlock func(), err error) {
	l.mu.Lock()
	if l.held == nil {
		l.held = map[string]*nameLock{}
	}
	n := l.held[name]
	if n == nil {
		n = &nameLock{taken: make(chan struct{}, 1)}
		l.held[name] = n
	}
	n.users++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if n.users--; n.users == 0 {
			delete(l.held, name)
		}
	}
	select {
	case n.taken <- struct{}{}:
		return func() { <-n.taken; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, fmt.Errorf("wait for what else is done with volume %s: %w", name, ctx.Err())
	}
}
