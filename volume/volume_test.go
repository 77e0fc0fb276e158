package volume

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/s4-storage/s4/internal/config"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/reach"
	"github.com/s4-storage/s4/snapshot"
)

func testAccess(t *testing.T) *reach.Access {
	t.Helper()
	for _, name := range []string{"BORG_PASSPHRASE", "BORG_PASSCOMMAND", "S4_REMOTE_PORT"} {
		if old, ok := os.LookupEnv(name); ok {
			t.Setenv(name, old) // restores it at the end
			os.Unsetenv(name)
		}
	}
	for _, name := range []string{"XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"} {
		t.Setenv(name, t.TempDir())
	}
	a, err := reach.NewAccess(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func testVolume(t *testing.T) *Volume {
	t.Helper()
	v, _, err := Init(filepath.Join(t.TempDir(), "photos"), InitOptions{}, testAccess(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v
}

func TestCheckName(t *testing.T) {
	for _, name := range []string{"a", "my folder", "été", "2024.photos", "a:b", strings.Repeat("x", 255)} {
		if err := CheckName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", ".", "..", "a/b", "a::b", "{now}", "a\nb", "a\x00", "\xff", " a", "a ", "-a", "~a", strings.Repeat("x", 256)} {
		err := CheckName(name)
		if !errors.Is(err, snapshot.ErrUsage) || hint.Of(err) == "" {
			t.Errorf("%.20q: %v, hint %q", name, err, hint.Of(err))
		}
		if strings.ContainsAny(err.Error(), "\n\x00") || len(err.Error()) > 300 {
			t.Errorf("%.20q: message is not one short line: %q", name, err)
		}
	}
}

func TestArchivePrefix(t *testing.T) {
	for name, want := range map[string]string{
		"photos": "photos", "my folder": "my_folder", "été": "été", "a:b/c": "a_b_c",
		strings.Repeat("é", 80): strings.Repeat("é", 50),
	} {
		if got := archivePrefix(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

func TestInitKeepsWhatIsThere(t *testing.T) {
	v := testVolume(t)
	id := v.ID()
	again, existed, err := Init(v.Root, InitOptions{Name: "other"}, v.access)
	if err != nil || !existed {
		t.Fatalf("again: %v, existed %v", err, existed)
	}
	defer again.Close()
	if again.ID() != id || again.Name() != "photos" {
		t.Errorf("became %s %s", again.Name(), again.ID())
	}
	inner := filepath.Join(v.Root, "sub")
	if err := os.Mkdir(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	if root, err := Find(inner); err != nil || root != v.Root {
		t.Errorf("found %q, %v", root, err)
	}
	if _, _, err := Init(inner, InitOptions{}, v.access); !errors.Is(err, snapshot.ErrRefused) {
		t.Errorf("a volume in a volume: %v", err)
	}
	if _, err := Find(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no volume: %v", err)
	}
}

func TestRemotes(t *testing.T) {
	v := testVolume(t)
	if _, err := v.Remote(""); !errors.Is(err, fs.ErrNotExist) || hint.Of(err) == "" {
		t.Errorf("no remote: %v", err)
	}
	first, err := v.AddRemote("nas", "s4@nas:/volumes", "")
	if err != nil || !first.Default || first.Encryption != "none" {
		t.Fatalf("first: %+v, %v", first, err)
	}
	t.Setenv("BORG_PASSPHRASE", "x")
	second, err := v.AddRemote("origin", "relative", "")
	if err != nil || !second.Default || second.Encryption != "repokey-blake2" || !filepath.IsAbs(second.URL) {
		t.Fatalf("second: %+v, %v", second, err)
	}
	for _, bad := range [][3]string{{"origin", "/x", ""}, {"a b", "/x", ""}, {"c", "/x", "rot13"}, {"d", "host:/x::archive", ""}} {
		if _, err := v.AddRemote(bad[0], bad[1], bad[2]); err == nil {
			t.Errorf("%q was added", bad)
		}
	}
	// What this host says for itself wins, and goes with the remote.
	if err := errors.Join(v.local.Set("remote.nas.url", "here:/volumes"), v.local.Save()); err != nil {
		t.Fatal(err)
	}
	if r, err := v.Remote("nas"); err != nil || r.URL != "here:/volumes" {
		t.Errorf("%+v, %v", r, err)
	}
	if err := v.RenameRemote("origin", "main"); err != nil {
		t.Fatal(err)
	}
	if r, err := v.Remote(""); err != nil || r.Name != "main" || r.Encryption != "repokey-blake2" {
		t.Errorf("default after renaming: %+v, %v", r, err)
	}
	if err := v.RemoveRemote(t.Context(), "nas"); err != nil {
		t.Fatal(err)
	}
	reopened, err := Open(v.Root, v.access)
	if err != nil {
		t.Fatal(err)
	}
	defer reopened.Close()
	if got := reopened.Remotes(); len(got) != 1 || got[0].Name != "main" {
		t.Errorf("left: %+v", got)
	}
}

func TestLegacyRemotes(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, LocalDir), 0o755); err != nil {
		t.Fatal(err)
	}
	text := "[volume]\nname = old\nid = 1\n[remotes]\norigin = s4@host:/volumes\n"
	if err := os.WriteFile(filepath.Join(root, configKey), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	v, err := Open(root, testAccess(t))
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if r, err := v.Remote(""); err != nil || r.URL != "s4@host:/volumes" {
		t.Errorf("%+v, %v", r, err)
	}
	if err := v.RemoveRemote(t.Context(), "origin"); err != nil {
		t.Fatal(err)
	}
	if got := v.Remotes(); len(got) != 0 {
		t.Errorf("left: %+v", got)
	}
}

func TestLockExcludes(t *testing.T) {
	v := testVolume(t)
	if err := v.acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	other, err := Open(v.Root, v.access)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.acquire(t.Context()); !errors.Is(err, snapshot.ErrLocked) {
		t.Errorf("second lock: %v", err)
	}
	v.unlock()
	if err := other.acquire(t.Context()); err != nil {
		t.Errorf("after unlock: %v", err)
	}
}

func TestStateRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	s, err := loadState(path)
	if err != nil {
		t.Fatal(err)
	}
	r := s.repository("id")
	for _, h := range []string{"b", "a", "c", "a"} {
		r.see(h)
	}
	r.forget(map[string]bool{"a": true, "b": true})
	s.Base = &mark{ID: "x"}
	if err := s.save(); err != nil {
		t.Fatal(err)
	}
	again, err := loadState(path)
	if err != nil {
		t.Fatal(err)
	}
	got := again.repository("id")
	if !got.hasSeen("a") || !got.hasSeen("b") || got.hasSeen("c") || len(got.Seen) != 2 {
		t.Errorf("seen %q", got.Seen)
	}
	if !again.Base.is(snapshot.Info{ID: "x"}) || again.Arriving.is(snapshot.Info{}) {
		t.Errorf("base %+v, arriving %+v", again.Base, again.Arriving)
	}
}

func TestSettingsSayWhereTheyComeFrom(t *testing.T) {
	v := testVolume(t)
	if err := SetSetting(nil, v.access, reach.KeyPassCommand, "pass"); err != nil {
		t.Fatal(err)
	}
	if err := SetSetting(v, v.access, reach.KeyPassCommand, "pass"); !errors.Is(err, snapshot.ErrRefused) {
		t.Errorf("a secret's command in the volume: %v", err)
	}
	if err := SetSetting(v, v.access, keyID, "x"); !errors.Is(err, snapshot.ErrRefused) {
		t.Errorf("another id: %v", err)
	}
	if err := SetSetting(v, v.access, keyName, "a/b"); !errors.Is(err, snapshot.ErrUsage) {
		t.Errorf("a bad name: %v", err)
	}
	origins := map[string]string{}
	for _, s := range Settings(v, v.access) {
		origins[s.Key] = s.Origin
	}
	if origins[keyName] != "volume" || origins[reach.KeyPassCommand] != "global" {
		t.Errorf("origins: %v", origins)
	}
	saved, err := config.Load(reach.ConfigPath())
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := saved.Get(reach.KeyPassCommand); got != "pass" {
		t.Errorf("the global file has %q", got)
	}
}

func TestContains(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(dir, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		dir, path string
		want      bool
	}{
		{dir, dir, true},
		{dir, filepath.Join(dir, "a", "b"), true},
		{dir, dir + "x", false},
		{filepath.Join(dir, "a"), dir, false},
		{filepath.Join(dir, "link"), filepath.Join(dir, "a"), true},
		{dir, filepath.Join(dir, "..a"), true},
	} {
		if got := contains(c.dir, c.path); got != c.want {
			t.Errorf("contains(%s, %s) = %v", c.dir, c.path, got)
		}
	}
}

func TestPushTimeKeepsOrder(t *testing.T) {
	at := func(s int) time.Time { return time.Date(2026, 11, 22, 12, 0, s, 0, time.UTC) }
	held := []snapshot.Info{{Time: at(5)}, {Time: at(3)}}
	warned := ""
	report := Reporter{Warn: func(text string) { warned = text }}
	for now, want := range map[int]int{9: 9, 5: 6, 2: 6} {
		if got := pushTime(at(now).Add(time.Millisecond), held, report); !got.Equal(at(want)) {
			t.Errorf("at second %d: %v, want second %d", now, got, want)
		}
	}
	if warned != "" {
		t.Errorf("warned of a few seconds: %s", warned)
	}
	if got := pushTime(at(0).Add(-time.Hour), held, report); !got.Equal(at(6)) || warned == "" {
		t.Errorf("a clock an hour behind: %v, warning %q", got, warned)
	}
}
