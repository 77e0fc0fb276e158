#!/bin/sh
# Makes the streams beside this script with the kernel and btrfs-progs of this
# machine. Needs root.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'cd /; umount "$work/m" || true; rm -rf "$work"' EXIT
mkdir "$work/m"
truncate -s 256M "$work/image"
mkfs.btrfs -q "$work/image"
mount -o loop,nodev,compress=zstd "$work/image" "$work/m"
cd "$work/m"
btrfs subvolume create v >/dev/null
mkdir v/dir v/gone
echo text >v/dir/file
ln v/dir/file v/hard
ln -s dir/file v/soft
mkfifo v/fifo
mknod v/null c 1 3
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("v/sock")'
setfattr -n user.name -v value v/dir/file
seq 500 >v/long
btrfs subvolume snapshot -r v one >/dev/null
mv v/dir v/moved
cp --reflink=always v/long v/clone
echo more >>v/moved/file
rm v/hard v/fifo
rmdir v/gone
truncate -s 1000 v/long
chmod 600 v/clone
chown 5:6 v/clone
setfattr -x user.name v/moved/file
setfattr -n user.other -v x v/moved/file
seq 500 >v/new
btrfs subvolume snapshot -r v two >/dev/null
btrfs send -q -f "$here/full-v1" one
btrfs send -q -f "$here/change-v1" -p one two
btrfs send -q --no-data -f "$here/change-v1-nodata" -p one two
btrfs send -q --proto 2 -f "$here/change-v2" -p one two
btrfs send -q --proto 2 --compressed-data -f "$here/full-v2-compressed" one
