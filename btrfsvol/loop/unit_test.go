package loop

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
)

// systemdTool finds a program of systemd, which is not everywhere, not even where everything else must be.
func systemdTool(t *testing.T, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	if err != nil {
		t.Skip(err)
	}
	return p
}

func TestUnit(t *testing.T) {
	id := uuid.NewString()
	u, err := NewUnit(UnitOptions{Image: "/var/lib/s4/my $data 100%.img", Dir: "/srv/a b/ü-$x", UUID: id, Program: "/usr/bin/s4"})
	must(t, err)
	want := `[Unit]
Description=s4 volume at /srv/a b/ü-$x
RequiresMountsFor="/var/lib/s4" "/srv/a b"
After=srv-a\x20b-\xc3\xbc\x2d\x24x.mount
Before=docker.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart="/usr/bin/s4" "attach" "--uuid" "` + id + `" "--" "/var/lib/s4/my $$data 100%%.img" "/srv/a b/ü-$$x"
ExecStop="/usr/bin/s4" "detach" "--" "/srv/a b/ü-$$x"
# Replaying the log of a large volume takes its time.
TimeoutStartSec=10min

[Install]
WantedBy=multi-user.target
`
	if u.Text != want || u.Name != `s4-volume-srv-a\x20b-\xc3\xbc\x2d\x24x.service` {
		t.Errorf("%s:\n%s", u.Name, u.Text)
	}
	good := UnitOptions{Image: "/a", Dir: "/b", UUID: id, Program: "/c"}
	for name, change := range map[string]func(*UnitOptions){
		"relative":   func(o *UnitOptions) { o.Image = "a" },
		"empty":      func(o *UnitOptions) { o.Dir = "" },
		"line break": func(o *UnitOptions) { o.Dir = "/b\nExecStart=/bin/false" },
		"quote":      func(o *UnitOptions) { o.Image = `/a"` },
		"backslash":  func(o *UnitOptions) { o.Image = `/a\` },
		"not UTF-8":  func(o *UnitOptions) { o.Dir = "/\xff" },
		"program":    func(o *UnitOptions) { o.Program = "s4" },
		"UUID":       func(o *UnitOptions) { o.UUID = "x" },
		"long":       func(o *UnitOptions) { o.Dir = "/" + strings.Repeat("ü", 40) },
	} {
		o := good
		change(&o)
		if u, err := NewUnit(o); err == nil {
			t.Errorf("%s: %s", name, u.Text)
		}
	}
}

// What systemd itself says of the unit.
func TestUnitVerify(t *testing.T) {
	analyze := systemdTool(t, "systemd-analyze")
	dir := t.TempDir()
	program := filepath.Join(dir, "pro gram $ü%")
	must(t, os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755))
	u, err := NewUnit(UnitOptions{Image: dir + "/im age %$;.img", Dir: dir + "/mnt ü%n 'x'", UUID: uuid.NewString(), Program: program})
	must(t, err)
	path := filepath.Join(dir, u.Name)
	must(t, os.WriteFile(path, []byte(u.Text), 0o644))
	if out := run(t, analyze, "verify", "--man=no", path); out != "" {
		t.Errorf("%s\n%s", out, u.Text)
	}
	// It would find a mistake.
	must(t, os.WriteFile(path, []byte(strings.Replace(u.Text, `"`+program, `"%Q`+program, 1)), 0o644))
	if err := runFails(analyze, "verify", "--man=no", path); err == nil {
		t.Error("a broken unit is as good")
	}
}
