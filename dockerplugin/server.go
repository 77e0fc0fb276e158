package dockerplugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/quote"
	"github.com/s4-storage/s4/snapshot"
)

// The engine waits two minutes for Create and Mount, one for the others.
const (
	longTime  = 110 * time.Second
	shortTime = 50 * time.Second
	stopTime  = 10 * time.Second // for calls that go on when the server is to end
)

const (
	maxRequest = 1 << 20 // bytes; the largest real one has names and options
	maxError   = 2 << 10
)

// request has what any call has.
type request struct {
	Name string
	ID   string
	Opts map[string]string
	With string `json:",omitempty"` // of exchangeCall: the other volume's name
	When string `json:",omitempty"` // of restoreCall: a TIME
	Size string `json:",omitempty"` // of resizeCall
}

// Calls that the engine does not know, but s4 does.
const (
	exchangeCall = "S4.Exchange"
	restoreCall  = "S4.Restore"
	resizeCall   = "S4.Resize"
)

// response has what any call may answer.
type response struct {
	Err          string        `json:"Err"`
	Implements   []string      `json:",omitempty"`
	Mountpoint   string        `json:",omitempty"`
	Volume       *Info         `json:",omitempty"`
	Volumes      []Info        `json:",omitempty"`
	Capabilities *capabilities `json:",omitempty"`
	Restored     *Restored     `json:",omitempty"`
}

type capabilities struct{ Scope string }

// call serves one kind of request.
type call struct {
	within time.Duration
	do     func(context.Context, request) (response, error)
}

// Server answers the engine.
type Server struct {
	calls map[string]call
	log   *slog.Logger
	tasks sync.WaitGroup // calls, also those nobody waits for any more
}

// NewServer makes a server for a driver. A nil log discards.
func NewServer(d *Driver, log *slog.Logger) *Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	path := func(_ context.Context, r request) (response, error) {
		record, err := d.record(r.Name)
		if err != nil {
			return response{}, err
		}
		return response{Mountpoint: record.Mountpoint}, nil
	}
	return &Server{log: log, calls: map[string]call{
		"Plugin.Activate": {shortTime, func(context.Context, request) (response, error) {
			return response{Implements: []string{"VolumeDriver"}}, nil
		}},
		"VolumeDriver.Capabilities": {shortTime, func(context.Context, request) (response, error) {
			return response{Capabilities: &capabilities{Scope: "local"}}, nil
		}},
		"VolumeDriver.Create": {longTime, func(ctx context.Context, r request) (response, error) {
			return response{}, d.Create(ctx, r.Name, r.Opts)
		}},
		"VolumeDriver.Remove": {shortTime, func(ctx context.Context, r request) (response, error) {
			return response{}, d.Remove(ctx, r.Name)
		}},
		"VolumeDriver.Mount": {longTime, func(ctx context.Context, r request) (response, error) {
			at, err := d.Mount(ctx, r.Name, r.ID)
			return response{Mountpoint: at}, err
		}},
		"VolumeDriver.Unmount": {shortTime, func(ctx context.Context, r request) (response, error) {
			return response{}, d.Unmount(ctx, r.Name, r.ID)
		}},
		"VolumeDriver.Path": {shortTime, path},
		"VolumeDriver.Get": {shortTime, func(ctx context.Context, r request) (response, error) {
			info, err := d.Get(ctx, r.Name)
			if err != nil {
				return response{}, err
			}
			return response{Volume: &info}, nil
		}},
		exchangeCall: {shortTime, func(ctx context.Context, r request) (response, error) {
			return response{}, d.Exchange(ctx, r.Name, r.With)
		}},
		restoreCall: {longTime, func(ctx context.Context, r request) (response, error) {
			restored, err := d.Restore(ctx, r.Name, r.When)
			return response{Restored: &restored}, err
		}},
		resizeCall: {longTime, func(ctx context.Context, r request) (response, error) {
			return response{}, d.Resize(ctx, r.Name, r.Size)
		}},
		"VolumeDriver.List": {shortTime, func(context.Context, request) (response, error) {
			return response{Volumes: d.List()}, nil
		}},
	}}
}

// Serve answers until the context ends, and then calls that go on for a while
// longer. It closes the listener.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer s.tasks.Wait()
	defer cancel()
	h := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	ended := make(chan error, 1)
	go func() { ended <- h.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve docker's volume plugin: %w", err)
	case <-ctx.Done():
	}
	wait, stop := context.WithTimeout(base, stopTime)
	defer stop()
	if err := h.Shutdown(wait); err != nil {
		return h.Close()
	}
	return nil
}

// ServeHTTP serves one call. The answer to one that fails is a 200, too: the
// engine then shows the reason alone.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/")
	c, ok := s.calls[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	if r.Method != http.MethodPost {
		http.Error(w, "calls are made by POST", http.StatusMethodNotAllowed)
		return
	}
	request, err := decode(r.Body)
	var answer response
	if err == nil {
		start := time.Now()
		answer, err = s.run(r.Context(), c, request)
		level := slog.LevelDebug
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // which the engine asks for before it creates
			level = slog.LevelWarn
		}
		s.log.Log(r.Context(), level, name, "volume", quote.Text(request.Name[:min(len(request.Name), 200)]), "took", time.Since(start), "err", err)
	}
	if err != nil {
		answer = response{Err: oneLine(err)}
	}
	w.Header().Set("Content-Type", "application/vnd.docker.plugins.v1.2+json")
	// Nobody is there to be told when this fails.
	_ = json.NewEncoder(w).Encode(answer)
}

// decode reads a request. An empty one is valid: so are the engine's own where
// there is nothing to say.
func decode(body io.Reader) (request, error) {
	var r request
	data, err := io.ReadAll(io.LimitReader(body, maxRequest+1))
	switch {
	case err != nil:
		return r, fmt.Errorf("read the request: %w", err)
	case len(data) > maxRequest:
		return r, fmt.Errorf("%w: the request is longer than %d bytes", snapshot.ErrUsage, maxRequest)
	case len(data) == 0:
		return r, nil
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return request{}, fmt.Errorf("%w: the request is not as it should be: %w", snapshot.ErrUsage, err)
	}
	return r, nil
}

// run does what a call asks for. It returns in time, whatever that does.
func (s *Server) run(ctx context.Context, c call, r request) (response, error) {
	type result struct {
		response
		err error
	}
	ctx, cancel := context.WithTimeout(ctx, c.within)
	done := make(chan result, 1)
	s.tasks.Go(func() {
		defer cancel()
		defer func() {
			if p := recover(); p != nil {
				s.log.Error("a call failed badly", "panic", p, "stack", string(debug.Stack()))
				done <- result{err: errors.New("an error inside of s4; its log has the details")}
			}
		}()
		answer, err := c.do(ctx, r)
		done <- result{answer, err}
	})
	var got result
	select {
	case got = <-done:
	case <-ctx.Done():
		// What heeds its context ends now, with a better reason than that.
		select {
		case got = <-done:
		case <-time.After(c.within / 50):
			return response{}, fmt.Errorf("not done within %s; try again later", c.within)
		}
	}
	if got.err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		got.err = fmt.Errorf("not done within %s: %w", c.within, got.err)
	}
	return got.response, got.err
}

// oneLine is an error as docker shows it, with its hint.
func oneLine(err error) string {
	text := strings.TrimSpace(err.Error())
	for _, kind := range []error{snapshot.ErrUsage, snapshot.ErrRefused, snapshot.ErrLocked} {
		text = strings.TrimPrefix(text, kind.Error()+": ")
	}
	text = strings.TrimSuffix(text, ": "+fs.ErrNotExist.Error()) // after what is missing
	if h := hint.Of(err); h != "" {
		text += "; hint: " + h
	}
	text = quote.Text(strings.ReplaceAll(text, "\n", "; "))
	if len(text) > maxError {
		text = strings.ToValidUTF8(text[:maxError], "") + "…"
	}
	return text
}
