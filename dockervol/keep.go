package dockervol

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/s4-storage/s4/dockerplugin"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/reach"
	"github.com/s4-storage/s4/replicate"
	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/volume"
)

const (
	lookForFirst = 500 * time.Millisecond // file, in an empty volume
	lookForRoom  = 5 * time.Second
	// A fill writes as fast as the disk does from its first moment on.
	lookForRoomToFill = 100 * time.Millisecond
	lookAgain         = time.Second // for changes to push, unless told otherwise
	// lastPushTime bounds the push at the end: the engine waits a minute for
	// the whole unmount, and so does who stops a container.
	lastPushTime = 20 * time.Second
	// A replication that ended is begun again: what is in its way may have
	// been put right.
	retryFirst = 10 * time.Second
	retryMost  = 5 * time.Minute
)

// keeper looks after one mounted volume.
type keeper struct {
	b      *Backend
	v      dockerplugin.Volume
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mounting sync.Mutex // held by who mounts with history

	mu   sync.Mutex
	said map[string]string // what the status has to tell besides, by field
}

// say has a field of the status tell something; "" no more.
func (k *keeper) say(field, text string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.said[field] = text
}

// addTo adds what there is to tell to a status.
func (k *keeper) addTo(status map[string]any) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for field, text := range k.said {
		if text != "" {
			status[field] = text
		}
	}
}

// keep starts a volume's keeper, unless it has one.
func (b *Backend) keep(v dockerplugin.Volume) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.keepers[v.Dir] != nil {
		return
	}
	ctx, cancel := context.WithCancel(b.ctx)
	k := &keeper{b: b, v: v, cancel: cancel, said: map[string]string{}}
	b.keepers[v.Dir] = k
	k.tasks.Go(func() { b.grow(ctx, v, lookForRoom, func(text string) { k.say("room", text) }) })
	k.tasks.Go(func() { k.replicate(ctx) })
	if v.Options.History {
		k.tasks.Go(func() { k.watch(ctx) })
	}
}

// keeper is the volume's, nil without one.
func (b *Backend) keeper(v dockerplugin.Volume) *keeper {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.keepers[v.Dir]
}

// letGo takes a volume's keeper away, for the caller to stop; nil without one.
func (b *Backend) letGo(v dockerplugin.Volume) *keeper {
	b.mu.Lock()
	defer b.mu.Unlock()
	k := b.keepers[v.Dir]
	delete(b.keepers, v.Dir)
	return k
}

func (k *keeper) stop() {
	k.cancel()
	k.tasks.Wait()
}

// wait tells whether the time went by before ctx ended.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// grow keeps room in a mounted volume until ctx ends, looking that often, and
// tells what prevents it, "" being nothing.
func (b *Backend) grow(ctx context.Context, v dockerplugin.Volume, every time.Duration, tell func(string)) {
	r := record(v, liveDir(v))
	said := ""
	for {
		g, err := r.KeepRoom(ctx, b.log)
		text := ""
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			text = err.Error()
		case g.To > g.From:
			b.log.Info("the volume grew", "volume", v.Name, "from", humanize.IBytes(uint64(g.From)), "to", humanize.IBytes(uint64(g.To)))
		}
		if text != said {
			tell(text)
			if text != "" {
				b.log.Warn("the volume cannot grow", "volume", v.Name, "err", err)
			}
		}
		said = text
		if !wait(ctx, every) {
			return
		}
	}
}

// replicate makes the tree an s4 volume when there is something in it, and then
// keeps its remote in step.
func (k *keeper) replicate(ctx context.Context) {
	for pause := retryFirst; ; pause = min(2*pause, retryMost) {
		err := k.attempt(ctx)
		if ctx.Err() != nil || err == nil {
			return
		}
		k.b.log.Error("the volume is not replicated", "volume", k.v.Name, "err", err, "hint", hint.Of(err), "again_in", pause)
		if !wait(ctx, pause) {
			return
		}
	}
}

func (k *keeper) attempt(ctx context.Context) error {
	for {
		none, err := empty(liveDir(k.v))
		if err != nil {
			return err
		}
		if !none {
			break
		}
		if !wait(ctx, lookForFirst) {
			return nil
		}
	}
	if err := k.b.hide(k.v); err != nil {
		return err
	}
	if err := k.b.settle(k.v); err != nil {
		return err
	}
	if k.v.Options.Remote == "" {
		return k.snapshots(ctx)
	}
	if !replicated(k.v) {
		return nil
	}
	own, err := volume.Open(liveDir(k.v), k.b.access)
	if err != nil {
		return err
	}
	defer own.Close()
	every := k.v.Options.Interval
	if every == 0 {
		every = lookAgain
	}
	return replicate.Push(ctx, own, replicate.PushOptions{Remotes: []string{origin}, Every: every, Log: k.b.log.With("volume", k.v.Name), Report: k.b.reporter(k.v)})
}

// reporter logs what a verb has to say.
func (b *Backend) reporter(v dockerplugin.Volume) volume.Reporter {
	return volume.Reporter{
		Note: func(text string) { b.log.Info(text, "volume", v.Name) },
		Warn: func(text string) { b.log.Warn(text, "volume", v.Name) },
	}
}

// settle makes the live tree the s4 volume that it should be.
func (b *Backend) settle(v dockerplugin.Volume) error {
	if err := plain(liveDir(v)); err != nil {
		return err
	}
	own, _, err := volume.Init(liveDir(v), volume.InitOptions{Name: nameOf(v)}, b.access)
	if err != nil {
		return err
	}
	defer own.Close()
	if own.Name() != nameOf(v) { // what is in it came from another docker volume
		if err := volume.SetSetting(own, b.access, "volume.name", nameOf(v)); err != nil {
			return err
		}
	}
	if !replicated(v) {
		return nil
	}
	switch r, err := own.Remote(origin); {
	case errors.Is(err, fs.ErrNotExist):
		_, err = own.AddRemote(origin, v.Options.Remote, "")
		return err
	case err != nil:
		return err
	case !samePlace(r.URL, v.Options.Remote):
		return own.SetRemoteURL(origin, v.Options.Remote)
	}
	return nil
}

// origin is the name of the remote that docker was told of.
const origin = "origin"

// samePlace tells whether two URLs name one place.
func samePlace(a, b string) bool {
	x, err := reach.ParseLocation(a)
	if err != nil {
		return false
	}
	y, err := reach.ParseLocation(b)
	return err == nil && x.String() == y.String()
}

func replicated(v dockerplugin.Volume) bool { return v.Options.Remote != "" && !v.Options.FillOnly }

// plain refuses a tree whose .s4 leads elsewhere. Containers write into the tree,
// and must not have us write where they could not.
func plain(live string) error {
	for _, name := range []string{volume.Dir, volume.LocalDir, volume.SnapshotsDir} {
		info, err := os.Lstat(filepath.Join(live, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && !info.IsDir() {
			err = fmt.Errorf("%w: %s in the volume is not a directory", snapshot.ErrRefused, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// lastPush pushes what has changed since the keeper looked. What it does not get
// done in time goes with the first push after the next mount.
func (b *Backend) lastPush(ctx context.Context, v dockerplugin.Volume) {
	if none, err := empty(liveDir(v)); none || err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lastPushTime)
	defer cancel()
	if v.Options.Remote == "" {
		if err := b.snapshot(ctx, v); err != nil {
			b.log.Warn("no snapshot is taken", "volume", v.Name, "err", err)
		}
		return
	}
	if err := b.pushOnce(ctx, v); err != nil {
		b.log.Warn("not all is pushed; the rest will be at the next mount", "volume", v.Name, "err", err)
	}
}

func (b *Backend) pushOnce(ctx context.Context, v dockerplugin.Volume) error {
	if err := b.settle(v); err != nil || !replicated(v) {
		return err
	}
	own, err := volume.Open(liveDir(v), b.access)
	if err != nil {
		return err
	}
	defer own.Close()
	state, err := own.Replication("replicate")
	if err == nil {
		for _, r := range state.Remotes {
			if r.Error != "" { // whoever stops a container need not wait for it again
				return fmt.Errorf("%w: %s", snapshot.ErrUnreachable, r.Error)
			}
		}
	}
	err = replicate.Push(ctx, own, replicate.PushOptions{Remotes: []string{origin}, Once: true, Log: b.log, Report: b.reporter(v)})
	if err == nil && ctx.Err() != nil { // which it takes for being told to end
		err = errors.New("the push took longer than an unmount may")
	}
	return err
}
