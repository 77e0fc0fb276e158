#!/bin/sh
# Makes the image s4-base of Debian's own packages, where there is no registry
# to take debian:bookworm-slim from:
#
#	docker/base.sh [IMAGE]
#	docker build --build-arg BASE=s4-base -f docker/agent/Dockerfile -t s4-agent .
#
# It has what both images need, so that their builds need no network. Needs
# root and debootstrap.
set -eu
image=${1:-s4-base}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
debootstrap --variant=minbase \
	--include=borgbackup,openssh-client,openssh-server,fuse3,ca-certificates \
	bookworm "$dir" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" >&2
rm -rf "$dir"/var/cache/apt/archives/*.deb "$dir"/var/lib/apt/lists/*
# Host keys are each target's own.
rm -f "$dir"/etc/ssh/ssh_host_*
tar -C "$dir" --numeric-owner -c . | docker import - "$image" >&2
