#!/bin/sh
# Takes the ssh key that came as a secret, and becomes s4.
#
#	S4_PRIV_KEY_FILE   file with the ssh private key, such as /run/secrets/s4_key
#	S4_PRIV_KEY        the key itself; a file is better, as others see variables
#	S4_KNOWN_HOSTS_FILE  file with the remote's host key, which is taken on trust too
#
# A BORG_RSH of your own is left alone.
set -eu
if [ -n "${S4_PRIV_KEY_FILE:-}${S4_PRIV_KEY:-}" ] && [ -z "${BORG_RSH:-}" ]; then
	s4 loadkey >/dev/null
fi
unset S4_PRIV_KEY
if [ -n "${S4_KNOWN_HOSTS_FILE:-}" ]; then
	mkdir -p "${XDG_CONFIG_HOME:-$HOME/.config}/s4"
	cp "$S4_KNOWN_HOSTS_FILE" "${XDG_CONFIG_HOME:-$HOME/.config}/s4/known_hosts"
fi
exec s4 "$@"
