package sshd

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestServer(t *testing.T) {
	for _, program := range []string{"/usr/sbin/sshd", "/usr/bin/ssh"} {
		if _, err := os.Stat(program); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	s, err := Start(t.Context(), filepath.Join(t.TempDir(), "ssh"), "BORG_BASE_DIR=/a/place")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	before, err := s.Spent()
	if err != nil {
		t.Fatal(err)
	}
	work := "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo $BORG_BASE_DIR"
	out, err := exec.CommandContext(t.Context(), "ssh", "-F", s.Config, Host, work).Output()
	if err != nil || string(out) != "/a/place\n" {
		t.Errorf("%q %v", out, err)
	}
	after, err := s.Spent()
	if err != nil || after <= before {
		t.Errorf("the server has spent %v s, then %v s: %v", before, after, err)
	}
	s.Stop() // twice is once
	if s.cmd.ProcessState == nil {
		t.Error("sshd still runs")
	}
}
