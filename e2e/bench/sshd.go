package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// sshd is a real sshd of the bench's own on a loopback port, with a host key
// and a client's key made for it. It lets the current user in.
type sshd struct {
	config string // of the client, which knows the server as sshHost
	cmd    *exec.Cmd
	ended  chan struct{}
}

const (
	sshHost      = "s4bench"
	sshdStart    = 20 * time.Second
	sshdFarewell = 5 * time.Second
)

// startSSHD returns when the server listens. borg is the program on it.
func (b *bench) startSSHD(ctx context.Context) (*sshd, error) {
	program, err := exec.LookPath("sshd")
	if err != nil {
		program = "/usr/sbin/sshd" // not in everybody's PATH
		if _, err := os.Stat(program); err != nil {
			return nil, err
		}
	}
	dir := filepath.Join(b.dir, "ssh")
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if os.Geteuid() == 0 { // where Debian's sshd drops its privileges to
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			return nil, err
		}
	}
	for _, key := range []string{"host", "client"} {
		out, err := exec.CommandContext(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, key)).CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("ssh-keygen: %w: %s", err, tail(string(out)))
		}
	}
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	s := &sshd{config: filepath.Join(dir, "ssh_config"), ended: make(chan struct{})}
	hostKey, err := os.ReadFile(filepath.Join(dir, "host.pub"))
	if err != nil {
		return nil, err
	}
	for name, text := range map[string]string{
		"sshd_config": fmt.Sprintf(`ListenAddress 127.0.0.1
Port %d
HostKey "%[2]s/host"
AuthorizedKeysFile "%[2]s/client.pub"
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
SetEnv "BORG_BASE_DIR=%[3]s"
`, port, dir, filepath.Join(b.dir, "home", "borg")),
		"known_hosts": sshHost + " " + string(hostKey),
		"ssh_config": fmt.Sprintf(`Host %[1]s
	HostName 127.0.0.1
	HostKeyAlias %[1]s
	Port %[2]d
	IdentityFile "%[3]s/client"
	IdentitiesOnly yes
	UserKnownHostsFile "%[3]s/known_hosts"
	StrictHostKeyChecking yes
	LogLevel ERROR
`, sshHost, port, dir),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	s.cmd = exec.Command(program, "-D", "-e", "-f", filepath.Join(dir, "sshd_config")) //nolint:noctx // stop ends it
	return s, s.start()
}

func (s *sshd) start() error {
	log, err := s.cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	listening := make(chan struct{})
	var said strings.Builder
	go func() {
		defer close(s.ended)
		up := false
		for lines := bufio.NewScanner(log); lines.Scan(); {
			if !up {
				said.WriteString(lines.Text() + "\n")
			}
			if !up && strings.Contains(lines.Text(), "Server listening") {
				up = true
				close(listening)
			}
		}
		_ = s.cmd.Wait() // it is ended by a signal
	}()
	select {
	case <-listening:
		return nil
	case <-s.ended:
		return fmt.Errorf("sshd: %s", tail(said.String()))
	case <-time.After(sshdStart):
		s.stop()
		return errors.New("sshd does not listen")
	}
}

func (s *sshd) stop() {
	_ = s.cmd.Process.Kill() // gone is fine
	<-s.ended
}

func freePort(ctx context.Context) (int, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}

// spent is the processor time of all connections that are over, in seconds: of
// sshd and what it ran. It waits for those that are about to end.
func (s *sshd) spent() (float64, error) {
	proc := fmt.Sprintf("/proc/%d", s.cmd.Process.Pid)
	for limit := time.Now().Add(sshdFarewell); ; time.Sleep(pollEvery) {
		children, err := os.ReadFile(filepath.Join(proc, "task", strconv.Itoa(s.cmd.Process.Pid), "children"))
		if err != nil {
			return 0, err
		}
		if len(strings.TrimSpace(string(children))) == 0 {
			break
		}
		if time.Now().After(limit) {
			return 0, errors.New("sshd still has connections")
		}
	}
	took, err := cpuOf(s.cmd.Process.Pid, ofChildren)
	return took.Seconds(), err
}
