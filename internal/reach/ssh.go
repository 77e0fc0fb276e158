package reach

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/s4-storage/s4/internal/xdg"
)

// KeyFile is where the ssh private key is that s4 was given by loadkey.
func KeyFile() string { return filepath.Join(xdg.Config(), "ssh_key") }

// HostsFile has the host keys that were accepted by remote add --trust-host, in
// the format of sshd(8)'s known_hosts.
func HostsFile() string { return filepath.Join(xdg.Config(), "known_hosts") }

// remoteShell is BORG_RSH, and where that is not set, ssh with what s4 was given
// for it.
func remoteShell() (string, bool) {
	if value, ok := os.LookupEnv("BORG_RSH"); ok {
		return value, true
	}
	options := ""
	if key := KeyFile(); exists(key) {
		options += " -i " + shellWord(key) + " -o IdentitiesOnly=yes"
	}
	if hosts := HostsFile(); exists(hosts) {
		files := fmt.Sprintf("UserKnownHostsFile=%q %q", "~/.ssh/known_hosts", hosts)
		options += " -o " + shellWord(files)
	}
	return "ssh" + options, options != ""
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// shellWord is s as one word of BORG_RSH.
func shellWord(s string) string { return "'" + strings.ReplaceAll(s, "'", `'"'"'`) + "'" }
