package dockeragent

import (
	"os"
	"regexp"
	"strings"
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

// selfIn reads proc_pid_mountinfo(5): the fourth field is the root, the fifth
// the mount point.
func selfIn(mountinfo string) string {
	for line := range strings.Lines(mountinfo) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == "/etc/hostname" {
			if m := ownHostname.FindStringSubmatch(f[3]); m != nil {
				return m[1]
			}
		}
	}
	return ""
}
