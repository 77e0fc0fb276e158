package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestMountHelper(t *testing.T) {
	volume := t.TempDir()
	if err := os.MkdirAll(filepath.Join(volume, ".s4"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(volume, ".s4/config"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"/sbin/mount.s4 nas:/repo /mnt":                                            "mount nas:/repo /mnt",
		"mount.fuse.s4 nas:/repo::x /mnt -n -o rw,noauto,x-systemd.automount,ro":   "mount nas:/repo::x /mnt -o ro",
		"mount.s4 /repo /mnt -s -o allow_other,at=yesterday,_netdev,nosuid,nofail": "mount /repo /mnt --allow-other --at yesterday -o nosuid",
		"mount.s4 " + volume + " /mnt -v -t fuse.s4":                               "-C " + volume + " mount /mnt",
		"mount.s4 " + volume + "/ " + volume + " -o defaults,comment=home":         "-C " + volume + "/ mount",
		"mount.s4 /repo /mnt -f":                                                   "version",
	} {
		got, ok, err := mountHelper(strings.Fields(line))
		if !ok || err != nil || !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%s: %q, %v", line, got, ok)
		}
	}
	if _, ok, err := mountHelper([]string{"mount.s4", "/repo"}); !ok || exitCode(err) != exitUsage {
		t.Errorf("without a mountpoint: %v, %v", ok, err)
	}
	if _, ok, _ := mountHelper([]string{"/usr/bin/s4", "mount", "x", "y"}); ok {
		t.Error("s4 itself was taken for the helper")
	}
}
