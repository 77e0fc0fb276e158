package index

import (
	"errors"
	"sync"
)

// pool lends connections. The one used last goes first, since its page cache
// holds what is asked for now.
type pool struct {
	free chan struct{} // one for each connection that nobody uses, opened or not

	mu   sync.Mutex
	idle []*conn // opened; used last at the end
}

func newPool(size int, opened ...*conn) *pool {
	p := &pool{free: make(chan struct{}, size), idle: opened}
	for range size {
		p.free <- struct{}{}
	}
	return p
}

// get gives a connection, or nil where one is to be opened, to those who took one
// out of free; put must follow.
func (p *pool) get() (c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if last := len(p.idle) - 1; last >= 0 {
		c, p.idle = p.idle[last], p.idle[:last]
	}
	return c
}

// put takes a connection back, or nil where none could be opened.
func (p *pool) put(c *conn) {
	p.mu.Lock()
	if c != nil {
		p.idle = append(p.idle, c)
	}
	p.mu.Unlock()
	p.free <- struct{}{}
}

// close waits until nobody uses a connection, and ends all.
func (p *pool) close() error {
	var errs []error
	for range cap(p.free) {
		<-p.free
		if c := p.get(); c != nil {
			errs = append(errs, c.close())
		}
	}
	return errors.Join(errs...)
}
