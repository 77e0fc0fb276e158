#!/bin/sh
# Sees to it that the programs s4 works with are there: `tools.sh demo` for the
# tour, `tools.sh test` for the tests, `tools.sh bench` for timing. Debian
# packages are installed when this runs as root; otherwise it says what is
# missing.
set -eu

# program:package
common="fusermount3:fuse3 gcc:gcc"
tests="borg:borgbackup ssh:openssh-client getfattr:attr mkfs.btrfs:btrfs-progs /usr/sbin/sshd:openssh-server rsync:rsync setfacl:acl git:git patch:patch make:make sqlite3:sqlite3 python3:python3 /usr/sbin/filefrag:e2fsprogs /usr/sbin/dockerd:docker.io docker-compose:docker-compose busybox:busybox-static /usr/sbin/debootstrap:debootstrap /usr/sbin/update-ca-certificates:ca-certificates systemd-socket-activate:systemd /usr/sbin/ip:iproute2 /usr/lib/postgresql/15/bin/postgres:postgresql"

case "${1:-}" in
demo) wanted=$common ;;
test) wanted="$common $tests" ;;
bench) wanted="$common $tests restic:restic" ;;
*) echo "usage: tools.sh demo|test|bench" >&2; exit 2 ;;
esac

command -v go >/dev/null || { echo "s4 is built with Go: see https://go.dev/doc/install" >&2; exit 1; }

missing=
for pair in $wanted; do
	command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
done
# cgo needs the C library's headers, which gcc alone does not bring.
[ -e /usr/include/stdio.h ] || missing="$missing libc6-dev"
# borg mounts with one of these.
if [ "$1" = bench ] && ! python3 -c 'import pyfuse3' 2>/dev/null && ! python3 -c 'import llfuse' 2>/dev/null; then
	missing="$missing python3-pyfuse3"
fi
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	echo "installing:$missing" >&2
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq
	# shellcheck disable=SC2086 # a list of words
	apt-get install -y -qq --no-install-recommends $missing >/dev/null
	exit 0
fi
echo "please install these packages first:$missing" >&2
exit 1
