// Package sshd runs a real sshd on a loopback port, with a host key and a
// client's key made for it, that lets the current user in.
package sshd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/s4-storage/s4/e2e/bench/proc"
)

// Server is one that listens.
type Server struct {
	Config string // of the client, ssh -F CONFIG, which knows the server as [Host]

	cmd   *exec.Cmd
	ended chan struct{}
}

// Host is what the client's configuration calls the server.
const Host = "s4bench"

const (
	startLimit    = 20 * time.Second
	farewellLimit = 5 * time.Second
	pollEvery     = time.Millisecond
)

// Start makes what is needed in dir, which is emptied, and returns when the
// server listens. env is what it sets for those who come: NAME=VALUE.
func Start(ctx context.Context, dir, env string) (*Server, error) {
	program, err := exec.LookPath("sshd")
	if err != nil {
		program = "/usr/sbin/sshd" // not in everybody's PATH
		if _, err := os.Stat(program); err != nil {
			return nil, err
		}
	}
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
			return nil, fmt.Errorf("ssh-keygen: %w: %s", err, out)
		}
	}
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	s := &Server{Config: filepath.Join(dir, "ssh_config"), ended: make(chan struct{})}
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
SetEnv "%[3]s"
`, port, dir, env),
		"known_hosts": Host + " " + string(hostKey),
		"ssh_config": fmt.Sprintf(`Host %[1]s
	HostName 127.0.0.1
	HostKeyAlias %[1]s
	Port %[2]d
	IdentityFile "%[3]s/client"
	IdentitiesOnly yes
	UserKnownHostsFile "%[3]s/known_hosts"
	StrictHostKeyChecking yes
	LogLevel ERROR
`, Host, port, dir),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	s.cmd = exec.Command(program, "-D", "-e", "-f", filepath.Join(dir, "sshd_config")) //nolint:noctx // Stop ends it
	return s, s.start()
}

func (s *Server) start() error {
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
		return fmt.Errorf("sshd: %s", strings.TrimSpace(said.String()))
	case <-time.After(startLimit):
		s.Stop()
		return errors.New("sshd does not listen")
	}
}

// Stop ends the server, not those who are connected.
func (s *Server) Stop() {
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

// Spent is the processor time of all connections that are over, in seconds: of
// sshd and what it ran. It waits for those that are about to end.
func (s *Server) Spent() (float64, error) {
	children := fmt.Sprintf("/proc/%d/task/%[1]d/children", s.cmd.Process.Pid)
	for limit := time.Now().Add(farewellLimit); ; time.Sleep(pollEvery) {
		text, err := os.ReadFile(children)
		if err != nil {
			return 0, err
		}
		if len(strings.TrimSpace(string(text))) == 0 {
			break
		}
		if time.Now().After(limit) {
			return 0, errors.New("sshd still has connections")
		}
	}
	took, err := proc.CPU(s.cmd.Process.Pid, proc.OfChildren)
	return took.Seconds(), err
}
