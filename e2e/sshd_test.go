package e2e

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// sshd is a real sshd on a loopback port that lets the current user in with
// a key made for the test. Hosts mys4remote (known) and stranger (whose host
// key nobody knows) both lead to it; nowhere leads to a closed port.
type sshd struct {
	dir     string
	address string
	port    int
	user    string
	pid     int
	logins  atomic.Int32 // so far
}

func startSSHD(t *testing.T) *sshd {
	t.Helper()
	return startSSHDOn(t, "127.0.0.1")
}

// startSSHDOn starts it on an address, run by a program such as ip netns exec.
func startSSHDOn(t *testing.T, address string, by ...string) *sshd {
	t.Helper()
	program := "/usr/sbin/sshd"
	if _, err := os.Stat(program); err != nil {
		missing(t, "openssh-server is not installed")
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	s := &sshd{dir: t.TempDir(), address: address, user: me.Username}
	if os.Geteuid() == 0 { // where Debian's sshd drops its privileges to
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"host", "client"} {
		out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(s.dir, key)).CombinedOutput()
		if err != nil {
			t.Fatalf("ssh-keygen: %v\n%s", err, out)
		}
	}
	s.port = freePort(t)
	config := fmt.Sprintf(`ListenAddress %[3]s
Port %[1]d
HostKey %[2]s/host
AuthorizedKeysFile %[2]s/client.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
ClientAliveInterval 1
ClientAliveCountMax 5
`, s.port, s.dir, address)
	path := filepath.Join(s.dir, "sshd_config")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	argv := append(by, program, "-D", "-e", "-f", path)
	cmd := exec.Command(argv[0], argv[1:]...)
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.pid = cmd.Process.Pid
	ready := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(log)
		for lines.Scan() {
			if strings.Contains(lines.Text(), "Server listening") {
				ready <- ""
			}
			if strings.Contains(lines.Text(), "Accepted publickey") {
				s.logins.Add(1)
			}
		}
		close(ready)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	select {
	case _, ok := <-ready:
		if !ok {
			t.Fatal("sshd ended at once")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("sshd does not listen")
	}
	return s
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// clientConfig writes an ssh configuration for one test into dir.
func (s *sshd) clientConfig(dir string) (string, error) {
	host, err := os.ReadFile(filepath.Join(s.dir, "host.pub"))
	if err != nil {
		return "", err
	}
	known := filepath.Join(dir, "known_hosts")
	if err := os.WriteFile(known, []byte("mys4remote "+string(host)), 0o600); err != nil {
		return "", err
	}
	var config strings.Builder
	for _, name := range []string{"mys4remote", "stranger"} {
		fmt.Fprintf(&config, `Host %[1]s
	HostName %[5]s
	HostKeyAlias %[1]s
	Port %[2]d
	IdentityFile %[3]s/client
	IdentitiesOnly yes
	UserKnownHostsFile %[4]s
	StrictHostKeyChecking yes
`, name, s.port, s.dir, known, s.address)
	}
	config.WriteString("Host nowhere\n\tHostName 127.0.0.1\n\tPort 1\n")
	path := filepath.Join(dir, "ssh_config")
	return path, os.WriteFile(path, []byte(config.String()), 0o600)
}
