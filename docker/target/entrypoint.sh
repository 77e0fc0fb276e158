#!/bin/sh
# Makes the host key at the first start, tells its fingerprint, and becomes
# sshd. With arguments it becomes s4 instead.
set -eu
[ $# = 0 ] || exec s4 "$@"
key=/config/ssh_host_ed25519_key
[ -e "$key" ] || ssh-keygen -q -t ed25519 -N '' -C s4-target -f "$key"
ssh-keygen -lf "$key"
exec /usr/sbin/sshd -D -e -f /etc/s4-target/sshd_config -p "$S4_TARGET_PORT"
