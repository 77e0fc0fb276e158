// Package e2e tests the whole program as a person uses it: the real binary on
// real borg repositories, through a real sshd, with real FUSE mounts. Each
// test is a script in testdata/script; see
// https://pkg.go.dev/github.com/rogpeppe/go-internal/testscript.
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// bin is the directory with the s4 under test.
var bin string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "s4-e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // some tests run it as another user
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	bin = dir
	args := []string{"build", "-o", filepath.Join(dir, "s4")}
	if raceEnabled {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "../cmd/s4")...)
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build s4:", err)
		return 1
	}
	return m.Run()
}

func TestScripts(t *testing.T) {
	need(t, "borg", "ssh", "rsync", "setfacl", "fusermount3")
	needFUSE(t)
	server := startSSHD(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			home := filepath.Join(env.WorkDir, "home")
			if err := os.MkdirAll(home, 0o700); err != nil {
				return err
			}
			config, err := server.clientConfig(env.WorkDir)
			if err != nil {
				return err
			}
			env.Vars = append(env.Vars,
				"HOME="+home,
				"XDG_CACHE_HOME="+filepath.Join(home, "cache"),
				"XDG_CONFIG_HOME="+filepath.Join(home, "config"),
				"XDG_STATE_HOME="+filepath.Join(home, "state"),
				"BORG_BASE_DIR="+filepath.Join(home, "borg"),
				"BORG_RSH=ssh -F "+config,
				"USER="+server.user,
				fmt.Sprint("SSH_PORT=", server.port),
				"AUTHORIZED_KEYS="+filepath.Join(server.dir, "client.pub"),
				"BORG_RELOCATED_REPO_ACCESS_IS_OK=yes",
				"BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes",
				"TZ=UTC",
				"PATH="+bin+":"+os.Getenv("PATH")+":/usr/sbin",
			)
			env.Defer(func() { unmountBelow(t, env.WorkDir) })
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"fails":    cmdFails,
			"maketree": cmdMakeTree,
			"sametree": cmdSameTree,
			"retry":    cmdRetry,
			"tick":     cmdTick,
			"mkname":   cmdMkname,
		},
	})
}

// need skips the test for want of programs, which in CI is a failure.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			missing(t, p+" is not installed")
		}
	}
}

func needFUSE(t *testing.T) {
	t.Helper()
	if err := unix.Access("/dev/fuse", unix.R_OK|unix.W_OK); err != nil {
		missing(t, "/dev/fuse: "+err.Error())
	}
}

func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}
