package main

import (
	"context"
	"fmt"
	"os"

	"github.com/s4-storage/s4/internal/quote"
	"github.com/s4-storage/s4/internal/reach"
	"github.com/s4-storage/s4/internal/systemd"
	"github.com/s4-storage/s4/volume"
)

// service has systemd run "s4 JOB" for the volume, or ends that. Where there is
// no systemd, the unit is printed.
func (a *app) service(ctx context.Context, v *volume.Volume, job string, enable bool, remotes []string) error {
	m := systemd.Ours()
	root := volume.Resolved(v.Shown)
	name := "s4-" + job + "-" + systemd.EscapePath(root) + ".service"
	if !enable {
		if err := m.Disable(ctx, name); err != nil {
			return err
		}
		a.say("%s is disabled", name)
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return err
	}
	words := append([]string{self, "-C", root, job}, remotes...)
	unit := fmt.Sprintf(`[Unit]
Description=s4 %[1]s of volume %[2]s
Documentation=https://github.com/s4-storage/s4
RequiresMountsFor=%[3]s
After=network-online.target
Wants=network-online.target

[Service]
Type=exec
Environment=%[4]s
ExecStart=%[5]s
Restart=on-failure
RestartSec=30s
# Wrong usage, refused to protect data, no key: trying again would not help.
RestartPreventExitStatus=2 4 8

[Install]
WantedBy=%[6]s
`, job, systemd.Text(v.Name()), systemd.Value(root), systemd.Value("HOME="+home), systemd.Words(words...), m.Target())
	if !m.Running() {
		a.say("There is no systemd here; this is what %s would hold:", m.Path(name))
		return a.print("%s", unit)
	}
	if err := m.Enable(ctx, name, unit); err != nil {
		return err
	}
	a.say("%s is enabled and runs", name)
	if os.Getenv("BORG_PASSPHRASE") != "" || os.Getenv("BORG_PASSCOMMAND") != "" {
		a.warn("the service does not have this shell's passphrase: give it one with: s4 config set --global %s COMMAND, or: systemctl edit %s", reach.KeyPassCommand, quote.Shell(name))
	}
	return nil
}
