#!/bin/sh
# Installs the Debian packages that are not there yet, and nothing that they
# merely recommend.
set -eu
missing=
for package in "$@"; do
	dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # a list of words
apt-get install -y -qq --no-install-recommends $missing
rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_*
