package dockeragent

import (
	"os"
	"regexp"
	"strings"

	"github.com/s4-storage/s4/internal/mountinfo"
)

// ownHostname is the root, in the file system it is of, of the file that an
// engine binds over a container's /etc/hostname.
var ownHostname = regexp.MustCompile(`/containers/([0-9a-f]{64})/hostname$`)

// Self is the id of the container that this process runs in, "" on a host.
// The host's name would tell only where nobody chose another.
func Self() string {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	return selfIn(string(data))
}

// selfIn looks for it in the table of mounts.
func selfIn(table string) string {
	for line := range strings.Lines(table) {
		if m, ok := mountinfo.Parse(line); ok && m.Dir == "/etc/hostname" {
			if id := ownHostname.FindStringSubmatch(m.Root); id != nil {
				return id[1]
			}
		}
	}
	return ""
}
