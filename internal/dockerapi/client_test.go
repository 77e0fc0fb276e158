package dockerapi

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/s4-storage/s4/internal/dockertest"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/snapshot"
)

func TestNew(t *testing.T) {
	for host, good := range map[string]bool{"unix:///x.sock": true, "unix://x": false, "tcp://h:1": false, "ssh://h": false} {
		if _, err := New(host); (err == nil) != good || !good && !errors.Is(err, snapshot.ErrUsage) {
			t.Errorf("%s: %v", host, err)
		}
	}
}

// What an engine answers when something is not as asked for is told apart.
func TestCalls(t *testing.T) {
	e := dockertest.New(t, dockertest.Options{})
	host, _ := strings.CutPrefix(e.Env()[0], "DOCKER_HOST=")
	c, err := New(host)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := t.Context()
	if v, err := c.Version(ctx); err != nil || v.Version == "" {
		t.Errorf("version %+v, %v", v, err)
	}

	starts := make(chan string, 10)
	listening, stop := context.WithCancel(ctx)
	done := make(chan error)
	go func() {
		done <- c.Events(listening, func(e Event) error {
			if e.Action == "start" {
				starts <- e.Actor.Attributes["name"]
			}
			return nil
		})
	}()
	// Events are from when the call arrives on, so wait until one does.
	box := e.Box()
	for heard := false; !heard; {
		e.Docker("run", "--rm", "--network", "none", "--name", "noise", box, "list", "/")
		select {
		case <-starts:
			heard = true
		case <-time.After(100 * time.Millisecond):
		}
	}
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("events end with %v", err)
	}

	if v, err := c.CreateVolume(ctx, "data", "local", nil, map[string]string{"a": "b"}); err != nil || v.Name != "data" || v.Labels["a"] != "b" {
		t.Errorf("create %+v, %v", v, err)
	}
	e.Docker("run", "-d", "--network", "none", "--name", "one", "-v", "data:/data", "--label", "x=1", box, "wait")
	list, err := c.Containers(ctx, "x=1")
	if err != nil || len(list) != 1 || list[0].Name() != "one" || list[0].State != "running" || list[0].Mounts[0].Name != "data" || !list[0].Mounts[0].RW {
		t.Fatalf("containers %+v, %v", list, err)
	}
	if list, err := c.Containers(ctx, "x=2"); err != nil || len(list) != 0 {
		t.Errorf("containers %+v, %v", list, err)
	}
	if r, err := c.Exec(ctx, "one", ExecOptions{Args: []string{"/box", "write", "/data/file", "text"}}); err != nil || r.ExitCode != 0 {
		t.Errorf("exec %+v, %v", r, err)
	}
	if r, err := c.Exec(ctx, "one", ExecOptions{Args: []string{"/box", "read", "/data/file"}}); err != nil || r.Stdout != "text" {
		t.Errorf("exec %+v, %v", r, err)
	}
	if r, err := c.Exec(ctx, "one", ExecOptions{Args: []string{"/box", "read", "/none"}}); err != nil || r.ExitCode != 1 || !strings.Contains(r.Stderr, "no such file") {
		t.Errorf("exec %+v, %v", r, err)
	}
	if data, err := c.ReadFile(ctx, "one", "/data/file", 4); err != nil || string(data) != "text" {
		t.Errorf("read %q, %v", data, err)
	}
	if _, err := c.ReadFile(ctx, "one", "/data/file", 3); err == nil || !strings.Contains(err.Error(), "more than 3") {
		t.Errorf("a file too large: %v", err)
	}
	if ok, err := c.WaitHealthy(ctx, "one", time.Second); !ok || err != nil {
		t.Errorf("without a health check: %t, %v", ok, err)
	}
	if err := errors.Join(c.Pause(ctx, "one"), c.Unpause(ctx, "one"), c.Start(ctx, "one"), c.Stop(ctx, "one"), c.Stop(ctx, "one")); err != nil {
		t.Error(err)
	}
	if data, err := c.ReadFile(ctx, "one", "/data/file", 4); err != nil || string(data) != "text" {
		t.Errorf("of a stopped container: read %q, %v", data, err)
	}
	for what, err := range map[string]error{
		"pause":  c.Pause(ctx, "one"),
		"remove": c.RemoveVolume(ctx, "data"),
	} {
		if !Conflict(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, errInspect := c.Inspect(ctx, "no/../such")
	_, errVolume := c.Volume(ctx, "none")
	_, errExec := c.Exec(ctx, "none", ExecOptions{Args: []string{"x"}})
	_, errRead := c.ReadFile(ctx, "one", "/data/none", 1)
	for what, err := range map[string]error{"inspect": errInspect, "volume": errVolume, "exec": errExec, "read": errRead, "start": c.Start(ctx, "none"), "remove": c.RemoveVolume(ctx, "none")} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", what, err)
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := c.Pause(ended, "one"); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}

	e.Docker("rm", "-f", "one")
	if err := c.RemoveVolume(ctx, "data"); err != nil {
		t.Error(err)
	}
	e.Stop()
	if _, err := c.Volumes(ctx); !errors.Is(err, snapshot.ErrUnreachable) || hint.Of(err) == "" {
		t.Errorf("without an engine: %v", err)
	}
}

func FuzzDemultiplex(f *testing.F) {
	frame := func(stream byte, text string) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{stream, 0, 0, 0}, uint32(len(text))), text...)
	}
	f.Add(append(frame(1, "out"), frame(2, strings.Repeat("err", 5000))...))
	f.Add(frame(1, "cut off")[:10])
	f.Add([]byte{3, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 'x'})
	f.Fuzz(func(t *testing.T, in []byte) {
		stdout, stderr := &tail{}, &tail{}
		err := demultiplex(bytes.NewReader(in), stdout, stderr)
		if len(stdout.b) > tailSize || len(stderr.b) > tailSize || cap(stdout.b) > 4*tailSize {
			t.Errorf("%d and %d bytes are kept", len(stdout.b), len(stderr.b))
		}
		if err == nil && len(stdout.b) > 0 && !bytes.Contains(in, stdout.b[len(stdout.b)-1:]) {
			t.Error("bytes that nobody sent")
		}
	})
}
