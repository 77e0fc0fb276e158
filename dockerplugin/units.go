package dockerplugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/s4-storage/s4/internal/atomicfile"
	"github.com/s4-storage/s4/internal/systemd"
)

// The names of the units.
const (
	SocketUnit  = "s4-docker-plugin.socket"
	ServiceUnit = "s4-docker-plugin.service"
)

// UnitOptions say what the units start.
type UnitOptions struct {
	Command []string // the program with its arguments
	Socket  string   // DefaultSocket
	Home    string   // of root, whose ssh and borg settings are used; "" is /root
}

// Units returns the texts of [SocketUnit] and [ServiceUnit].
func Units(o UnitOptions) (socket, service string) {
	if o.Socket == "" {
		o.Socket = DefaultSocket
	}
	if o.Home == "" {
		o.Home = "/root"
	}
	socket = fmt.Sprintf(`[Unit]
Description=Socket of s4's volume driver for docker
Documentation=https://github.com/s4-storage/s4
# An engine that does not find it lets each container with a volume of s4 wait,
# and gives up on it until somebody starts it by hand.
Before=docker.service

[Socket]
ListenStream=%s
SocketMode=0600
DirectoryMode=0755
RemoveOnStop=yes

[Install]
WantedBy=sockets.target
`, systemd.Text(o.Socket))
	service = fmt.Sprintf(`[Unit]
Description=s4's volume driver for docker
Documentation=https://github.com/s4-storage/s4
Requires=%[1]s
After=%[1]s local-fs.target
Before=docker.service
StartLimitIntervalSec=0

# No setting that gives the service a view of its own on the file system, such
# as PrivateTmp or ProtectSystem: containers would not see what it mounts.
[Service]
Type=exec
Environment=%[2]s
ExecStart=%[3]s
Restart=always
RestartSec=1s
# What it started for volumes in use has to outlive it.
KillMode=process
OOMScoreAdjust=-500

[Install]
WantedBy=multi-user.target
`, SocketUnit, systemd.Value("HOME="+o.Home), systemd.Words(o.Command...))
	return socket, service
}

// Install has the system's manager run the driver, now and at every boot.
func Install(ctx context.Context, m systemd.Manager, o UnitOptions) error {
	socket, service := Units(o)
	// Each needs the other to be known. Starting the socket anew ends a
	// service that has it.
	if err := atomicfile.Write(m.Path(ServiceUnit), []byte(service), 0o644); err != nil {
		return err
	}
	if err := m.Enable(ctx, SocketUnit, socket); err != nil {
		return err
	}
	return m.Enable(ctx, ServiceUnit, service)
}

// Uninstall undoes [Install]. Volumes stay, and what is mounted stays mounted.
// Errors: fs.ErrNotExist where nothing is installed.
func Uninstall(ctx context.Context, m systemd.Manager) error {
	// The socket first: it would start the service again.
	socket := m.Disable(ctx, SocketUnit)
	service := m.Disable(ctx, ServiceUnit)
	if errors.Is(socket, fs.ErrNotExist) && service == nil { // half of an install
		return nil
	}
	return cmp.Or(socket, service)
}
