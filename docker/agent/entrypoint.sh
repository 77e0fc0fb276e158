#!/bin/sh
# Gives ssh the key that came as a secret, and becomes s4.
#
#	S4_PRIV_KEY_FILE   file with the ssh private key, such as /run/secrets/s4_key
#	S4_PRIV_KEY        the key itself; a file is better, as others see variables
#	S4_KNOWN_HOSTS_FILE  file with the remote's host key (default: ~/.ssh/known_hosts)
#
# A BORG_RSH of your own is left alone.
set -eu
file=${S4_PRIV_KEY_FILE:-}
if [ -n "${S4_PRIV_KEY:-}" ]; then
	dir=$(mktemp -d) # for root alone
	file=$dir/key
	(umask 077 && printf '%s\n' "$S4_PRIV_KEY" >"$file")
	unset S4_PRIV_KEY
fi
if [ -n "$file" ] && [ -z "${BORG_RSH:-}" ]; then
	[ -r "$file" ] || { echo "s4-agent: cannot read the ssh key $file" >&2; exit 8; }
	BORG_RSH="ssh -i $file -o IdentitiesOnly=yes -o BatchMode=yes -o StrictHostKeyChecking=yes"
	[ -z "${S4_KNOWN_HOSTS_FILE:-}" ] || BORG_RSH="$BORG_RSH -o UserKnownHostsFile=$S4_KNOWN_HOSTS_FILE"
	export BORG_RSH
fi
exec s4 "$@"
