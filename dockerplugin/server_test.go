package dockerplugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/s4-storage/s4/snapshot"
)

// served is a rig that answers on a socket.
type served struct {
	*rig
	client *http.Client
	// socketPath is where it answers.
	socketPath string
	stop       context.CancelFunc
	ended      chan error
}

// serve makes one whose calls have that long, all of them.
func serve(t *testing.T, c Config, within time.Duration) *served {
	t.Helper()
	r := newRig(t, c)
	path := filepath.Join(shortDir(t), "s4.sock")
	l, err := Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(r.Driver, nil)
	for name, c := range s.calls {
		c.within = within
		s.calls[name] = c
	}
	ctx, cancel := context.WithCancel(t.Context())
	v := &served{rig: r, stop: cancel, ended: make(chan error, 1), client: clientOf(path), socketPath: path}
	go func() { v.ended <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-v.ended; err != nil {
			t.Error(err)
		}
		if exists(path) {
			t.Error("the socket is still there")
		}
	})
	return v
}

// shortDir is a directory whose sockets' paths are not too long.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "s4-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func clientOf(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}}}
}

func (s *served) post(name, body string) response {
	s.t.Helper()
	answer, err := s.client.Post("http://plugin/"+name, "", strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: %s %v: %s", name, answer.Status, err, data)
	}
	var r response
	if err := json.Unmarshal(data, &r); err != nil {
		s.t.Fatalf("%s: %v: %s", name, err, data)
	}
	return r
}

func TestProtocol(t *testing.T) {
	s := serve(t, Config{}, time.Minute)
	data := filepath.Join(s.dirOf("db"), "data")
	for _, c := range []struct{ name, body, want string }{
		{"Plugin.Activate", "", `{"Err":"","Implements":["VolumeDriver"]}`},
		{"VolumeDriver.Capabilities", "{}", `{"Err":"","Capabilities":{"Scope":"local"}}`},
		{"VolumeDriver.List", "{}", `{"Err":""}`},
		{"VolumeDriver.Get", `{"Name":"db"}`, `{"Err":"no such volume: db"}`},
		{"VolumeDriver.Create", `{"Name":"db","Opts":{"size":"1G"}}`, `{"Err":""}`},
		{"VolumeDriver.Create", `{"Name":"db","Opts":{"size":"2G"}}`, `{"Err":"volume db exists with other options: size is \"1G\", not \"2G\""}`},
		{"VolumeDriver.Path", `{"Name":"db"}`, `{"Err":""}`},
		{"VolumeDriver.Mount", `{"Name":"db","ID":"a"}`, `{"Err":"","Mountpoint":"` + data + `"}`},
		{"VolumeDriver.Path", `{"Name":"db"}`, `{"Err":"","Mountpoint":"` + data + `"}`},
		{"VolumeDriver.Unmount", `{"Name":"db","ID":"a"}`, `{"Err":""}`},
		{"VolumeDriver.Remove", `{"Name":"db"}`, `{"Err":""}`},
		{"VolumeDriver.Create", "", `{"Err":"the request names no volume; if the driver was just restarted, try again"}`},
		{"VolumeDriver.Mount", "", `{"Err":"the request names no volume; if the driver was just restarted, try again"}`},
		{"VolumeDriver.Unmount", "", `{"Err":"the request names no volume; if the driver was just restarted, try again"}`},
		{"VolumeDriver.Remove", "", `{"Err":"the request names no volume; if the driver was just restarted, try again"}`},
		{"VolumeDriver.Get", "", `{"Err":"the request names no volume; if the driver was just restarted, try again"}`},
		{"VolumeDriver.Path", "", `{"Err":"the request names no volume; if the driver was just restarted, try again"}`},
		{"VolumeDriver.Create", `{"Name":"../x"}`, `{"Err":"\"../x\" cannot be a volume's name: it begins with a letter or digit, and goes on with those, _, . and -"}`},
		{"VolumeDriver.Create", `{"Name":"` + strings.Repeat("x", 300) + `"}`, `{"Err":"the volume's name \"` + strings.Repeat("x", 40) + `\"… has 300 characters, at most 128 are possible"}`},
		{"VolumeDriver.Create", `{"Name":"db","Opts":{"a\nb":""}}`, `{"Err":"unknown option \"a\\nb\"; there are autogrow, compress, from, history, interval, name, remote, replicate, size, volume"}`},
	} {
		got, err := json.Marshal(s.post(c.name, c.body))
		if err != nil {
			t.Fatal(err)
		}
		var want response
		if err := json.Unmarshal([]byte(c.want), &want); err != nil {
			t.Fatal(err)
		}
		if again, _ := json.Marshal(want); !bytes.Equal(got, again) {
			t.Errorf("%s %s: %s, want %s", c.name, c.body, got, again)
		}
	}
	for _, body := range []string{"{", `{"Name":1}`, "[]", `"x"`, `{"Name":"db"} {}`, `{"Opts":{"size":5}}`} {
		if got := s.post("VolumeDriver.Create", body); !strings.HasPrefix(got.Err, "the request is not as it should be") || strings.Contains(got.Err, "\n") {
			t.Errorf("%s: %q", body, got.Err)
		}
	}
	if got := s.post("VolumeDriver.Create", strings.Repeat(" ", maxRequest+1)); !strings.Contains(got.Err, "longer than") {
		t.Errorf("a long request: %q", got.Err)
	}
	s.create("db", nil)
	got := s.post("VolumeDriver.Get", `{"Name":"db"}`)
	if v := got.Volume; v == nil || v.Name != "db" || v.CreatedAt.IsZero() || v.Status["snapshots"] != 3.0 || v.Status["state"] != "ready" {
		t.Errorf("get: %+v", got)
	}
	if got := s.post("VolumeDriver.List", ""); len(got.Volumes) != 1 || got.Volumes[0].Name != "db" {
		t.Errorf("list: %+v", got)
	}
	for _, c := range []struct {
		method, name string
		want         int
	}{{"GET", "VolumeDriver.List", http.StatusMethodNotAllowed}, {"POST", "VolumeDriver.Other", http.StatusNotFound}, {"POST", "", http.StatusNotFound}} {
		r, err := http.NewRequest(c.method, "http://plugin/"+c.name, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		got.Body.Close()
		if got.StatusCode != c.want {
			t.Errorf("%s %s: %s", c.method, c.name, got.Status)
		}
	}
}

func TestPanic(t *testing.T) {
	s := serve(t, Config{}, time.Minute)
	s.b.tell(t, "panic-create")
	if got := s.post("VolumeDriver.Create", `{"Name":"db"}`); got.Err != "an error inside of s4; its log has the details" {
		t.Errorf("%q", got.Err)
	}
	// Neither the server nor the volume's lock is lost.
	if got := s.post("VolumeDriver.Create", `{"Name":"db"}`); got.Err != "" {
		t.Error(got.Err)
	}
}

// Each call ends in time: where the backend heeds the deadline with its reason,
// else without.
func TestDeadline(t *testing.T) {
	s := serve(t, Config{}, 100*time.Millisecond)
	s.create("db", nil)
	s.b.tell(t, "hold-mount")
	if got := s.post("VolumeDriver.Mount", `{"Name":"db","ID":"a"}`); !strings.HasPrefix(got.Err, "not done within 100ms: mount:") {
		t.Errorf("%q", got.Err)
	}
	unlock, err := s.volumes.lock(t.Context(), "db")
	if err != nil {
		t.Fatal(err)
	}
	if got := s.post("VolumeDriver.Remove", `{"Name":"db"}`); !strings.Contains(got.Err, "not done within 100ms: wait for what else is done with volume db") {
		t.Errorf("%q", got.Err)
	}
	unlock()
	deaf := NewServer(s.Driver, nil)
	held := make(chan struct{})
	defer deaf.tasks.Wait()
	defer close(held)
	_, err = deaf.run(t.Context(), call{50 * time.Millisecond, func(context.Context, request) (response, error) {
		<-held
		return response{}, nil
	}}, request{})
	fails(t, err, nil, "not done within 50ms; try again later")
}

// A call that goes on when the server is told to end is answered.
func TestServeEnds(t *testing.T) {
	s := serve(t, Config{}, time.Minute)
	s.b.tell(t, "hold-create")
	answered := make(chan string)
	go func() { answered <- s.post("VolumeDriver.Create", `{"Name":"db"}`).Err }()
	s.b.reached(t, "create")
	s.stop()
	s.b.release(t, "hold-create")
	if got := <-answered; got != "" {
		t.Error(got)
	}
}

func TestOneLine(t *testing.T) {
	for in, want := range map[string]string{
		"a\nb\n":                  "a; b",
		"wrong usage: this":       "this",
		"\x1b[31mred":             `\033[31mred`,
		strings.Repeat("ä", 5000): strings.Repeat("ä", maxError/2) + "…",
	} {
		if got := oneLine(errors.New(in)); got != want {
			t.Errorf("%.20q: %.80q, want %.80q", in, got, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{"", "{}", `{"Name":"db","Opts":{"size":"5G"},"ID":"x"}`, `{"Name":"../x"}`, `{"Opts":{"size":5}}`, "{", `{"Name":"\u0000"}`, strings.Repeat(`{"Opts":`, 100)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := decode(bytes.NewReader(body))
		if err != nil {
			if text := oneLine(err); len(text) > maxError+3 || strings.ContainsAny(text, "\n\x1b") {
				t.Errorf("not one clear line: %q", text)
			}
			return
		}
		if CheckName(r.Name) == nil && (strings.ContainsAny(r.Name, "/\x00\n") || filepath.Join("/v", r.Name) == "/v" || filepath.Dir(filepath.Join("/v", r.Name)) != "/v") {
			t.Errorf("%q is taken for a name", r.Name)
		}
		if o, err := ParseOptions(r.Opts); err == nil && (o.Size < 0 || o.Autogrow < 0 || o.Interval < 0) {
			t.Errorf("%q became %+v", r.Opts, o)
		}
	})
}

func TestListen(t *testing.T) {
	path := filepath.Join(shortDir(t), "plugins", "s4.sock")
	// One that nobody answers, as kill -9 leaves it.
	left := func() {
		t.Helper()
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		l.Close()
	}
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	left()
	first, err := Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	_, err = Listen(t.Context(), path)
	fails(t, err, snapshot.ErrLocked, "another driver answers")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, err := Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	if !exists(path) {
		t.Error("the first took the second's socket away")
	}
	second.Close()
	if exists(path) {
		t.Error("the socket is left")
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Listen(t.Context(), path)
	fails(t, err, snapshot.ErrRefused, "no socket")
}

func TestUnits(t *testing.T) {
	analyze := tool(t, "systemd-analyze")
	dir := t.TempDir()
	socket, service := Units(UnitOptions{Command: []string{"/bin/true", "docker", "50% of $x", `"`}, Home: "/a b"})
	for name, text := range map[string]string{SocketUnit: socket, ServiceUnit: service} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(text, "Before=docker.service\n") {
			t.Errorf("%s is not there before docker", name)
		}
	}
	out, err := exec.CommandContext(t.Context(), analyze, "verify", filepath.Join(dir, SocketUnit), filepath.Join(dir, ServiceUnit)).CombinedOutput()
	if err != nil || strings.Contains(string(out), dir) {
		t.Errorf("systemd-analyze: %v: %s", err, out)
	}
	if socket, _ := Units(UnitOptions{}); !strings.Contains(socket, "ListenStream=/run/docker/plugins/s4.sock\n") {
		t.Error(socket)
	}
}

// tool gives the path of a program or skips.
func tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skip(err)
	}
	return path
}

// What s4 itself asks of a driver: the same as the engine, and that two volumes
// change their contents.
func TestClient(t *testing.T) {
	v := serve(t, Config{}, time.Minute)
	c := NewClient(v.socketPath)
	ctx := t.Context()
	for _, name := range []string{"a", "b"} {
		if err := c.Create(ctx, name, nil); err != nil {
			t.Fatal(err)
		}
		at, err := c.Mount(ctx, name, "use")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(at, "file"), []byte("of "+name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Exchange(ctx, "a", "b"); err == nil || !strings.Contains(err.Error(), "volume a is in use") {
		t.Errorf("exchanged below their users: %v", err)
	}
	for _, name := range []string{"a", "b"} {
		if err := c.Unmount(ctx, name, "use"); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Exchange(ctx, "b", "a"); err != nil {
		t.Fatal(err)
	}
	at, err := c.Mount(ctx, "a", "use")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(at, "file")); string(got) != "of b" {
		t.Errorf("a has %q, %v", got, err)
	}
	if err := c.Unmount(ctx, "a", "use"); err != nil {
		t.Fatal(err)
	}
	if err := c.Exchange(ctx, "a", "none"); err == nil || !strings.Contains(err.Error(), "no such volume: none") {
		t.Errorf("%v", err)
	}
	if err := c.Exchange(ctx, "a", "a"); err == nil {
		t.Error("exchanged with itself")
	}
	if _, err := c.Mount(ctx, "a", "use"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Restore(ctx, "a", "2h"); err == nil || !strings.Contains(err.Error(), "volume a is in use") {
		t.Errorf("brought back below its users: %v", err)
	}
	v.b.release(t, "at-unmount")
	unmounted := func() bool { return exists(filepath.Join(v.b.control, "at-unmount")) }
	if err := c.Resize(ctx, "a", "+5G"); err != nil || unmounted() {
		t.Errorf("unmounted below its users, or %v", err)
	}
	if got, err := os.ReadFile(filepath.Join(at, "size")); string(got) != "+5G" {
		t.Errorf("resized to %q, %v", got, err)
	}
	if err := c.Unmount(ctx, "a", "use"); err != nil {
		t.Fatal(err)
	}
	if r, err := c.Restore(ctx, "a", "2h"); err != nil || r != (Restored{"2h", "now"}) {
		t.Errorf("brought back: %v, %v", r, err)
	}
	v.b.release(t, "at-unmount")
	if err := c.Resize(ctx, "a", "max"); err != nil || !unmounted() {
		t.Errorf("still mounted though nobody uses it, or %v", err)
	}
	for _, err := range []error{c.Resize(ctx, "none", "5G"), c.Create(ctx, "c", given{"volume": "none"})} {
		if err == nil || !strings.Contains(err.Error(), "no such volume: none") {
			t.Errorf("%v", err)
		}
	}
	if err := c.Remove(ctx, "a"); err != nil {
		t.Error(err)
	}
	err = NewClient(filepath.Join(t.TempDir(), "none")).Remove(ctx, "a")
	if !errors.Is(err, snapshot.ErrUnreachable) {
		t.Errorf("without a driver: %v", err)
	}
}
