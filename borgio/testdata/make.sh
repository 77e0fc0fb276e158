#!/bin/sh
# Makes the frozen repositories that the tests read without borg. The tests know
# their trees (frozen_test.go, dialects_test.go) and the passphrase. Run it only
# to add a repository: what is there shall stay as an old borg wrote it.
#
#	sudo ./make.sh [ROOT]
#
# ROOT is a directory with another system whose borg is to be used, such as
# `debootstrap --variant=minbase --include=borgbackup bullseye ROOT` makes.
# What borg is that decides what is made:
#
#	borg-VERSION-MODE  every kind of entry, by each borg in each key mode
#	borg-1.1-ancient   an archive as borg 1.0 wrote it (by ancient.py)
#	mode-*, comp-*     a small tree in every key mode and compression, by 1.2
#	state-*            repositories that something happened to, by 1.2
#
# It works in namespaces of its own, on a file system of its own, and as a host
# of its own, so that nothing of this machine gets into a repository.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "${1:-/}" && pwd)
root=${root%/}
if [ -z "${FROZEN_NAMESPACE:-}" ]; then
	FROZEN_NAMESPACE=1 exec unshare --mount --uts "$0" "${root:-/}"
fi
hostname frozen

work=$root/mnt # which borg knows as /mnt
mount -t tmpfs none "$work"
truncate -s 64M "$work/image"
mkfs.ext4 -q -I 256 "$work/image"
mkdir "$work/fs"
mount -o loop,user_xattr,acl "$work/image" "$work/fs"
tree=$work/fs/tree
mkdir "$work/keys" "$here/keys" 2>/dev/null || :

# borg ARGUMENT… runs in the tree.
borg() {
	chroot "${root:-/}" env -i -C /mnt/fs/tree PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 TZ=UTC \
		BORG_BASE_DIR=/mnt/base BORG_KEYS_DIR=/mnt/keys BORG_PASSPHRASE=s4-test \
		BORG_CHECK_I_KNOW_WHAT_I_AM_DOING=YES BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes \
		${borg:-borg} "$@"
}
mkdir -p "$tree"
version=$(borg --version | sed 's/^borg \([0-9]*\.[0-9]*\).*/\1/')

# repeat COUNT prints a text that packs well; noise COUNT one that does not.
repeat() { awk -v n="$1" 'BEGIN { for (i = 0; i < n; i++) printf "line %d of a text that packs well\n", i }'; }
noise() { awk -v n="$1" 'BEGIN { s = 42; for (i = 0; i < n; i++) { s = (s * 1103515245 + 12345) % 2147483648; printf "%c", 33 + int(s / 65536) % 94 } }'; }
settle() { find "$tree" -exec touch -h -d '2020-02-02T02:02:02.123456789Z' {} +; }

# begin NAME fails when the repository is there already.
begin() {
	if [ -e "$here/$1" ]; then
		echo "$1: is there" >&2
		return 1
	fi
}

init() { borg init -e "$2" "../../$1" 2>/dev/null; }

# keep NAME [index] moves a repository here. An index is 41 KB: without one the
# segments are replayed, and few need theirs.
keep() {
	rm -f "$work/$1/README"
	[ "${2:-}" = index ] || rm -f "$work/$1"/index.* "$work/$1"/hints.* "$work/$1"/integrity.*
	cp -R "$work/$1" "$here/$1"
	for key in "$work"/keys/*; do
		[ -e "$key" ] && mv "$key" "$here/keys/$1"
	done
	return 0
}

# small_tree is that of mode-* and comp-*.
small_tree() {
	rm -rf "$tree"
	mkdir -p "$tree/dir/deep" "$tree/empty-dir"
	printf 'hello, borg\n' >"$tree/hello.txt"
	: >"$tree/empty"
	repeat 500 >"$tree/dir/text"
	noise 3000 >"$tree/dir/deep/noise"
	ln -s ../hello.txt "$tree/dir/link"
	ln "$tree/hello.txt" "$tree/dir/hard"
	mkfifo "$tree/fifo"
	chmod 640 "$tree/hello.txt"
	chmod 1755 "$tree/dir"
	settle
}

# two NAME COMPRESSION adds the two archives of the small tree.
two() {
	borg create -C "$2" --timestamp 2020-03-01T00:00:00 --comment 'a frozen archive' "../../$1::first" .
	between "$1"
	printf 'changed\n' >"$tree/hello.txt.new"
	borg create -C "$2" --timestamp 2020-03-02T00:00:00 "../../$1::second" hello.txt.new dir/text
	rm "$tree/hello.txt.new"
}
between() { :; }

make_mode() { # NAME MODE COMPRESSION
	begin "$1" || return 0
	small_tree
	init "$1" "$2"
	two "$1" "$3"
	case $1 in
	mode-none | mode-repokey-blake2) keep "$1" index ;;
	*) keep "$1" ;;
	esac
}

# every_kind makes a tree with every kind of entry.
every_kind() {
	rm -rf "$tree"
	mkdir -p "$tree/dir" "$tree/empty-dir" "$tree/sticky"
	printf 'hello, borg\n' >"$tree/hello"
	ln "$tree/hello" "$tree/dir/hello-hard"
	repeat 500 >"$tree/dir/text"
	noise 3000 >"$tree/noise"
	: >"$tree/empty"
	truncate -s 1M "$tree/sparse"
	printf 'end' >>"$tree/sparse"
	printf 'raw' >"$tree/$(printf 'raw \377\376 name')"
	printf 'ü' >"$tree/ü and a	tab"
	ln -s ../hello "$tree/dir/link"
	ln -s "$(printf 'nowhere/\377')" "$tree/dangling"
	mkfifo "$tree/fifo"
	ln "$tree/fifo" "$tree/fifo-hard"
	mknod "$tree/null" c 1 3
	ln "$tree/null" "$tree/null-hard"
	mknod "$tree/disk" b 259 70000
	printf 'old' >"$tree/old"
	printf 'future' >"$tree/future"
	printf 'flags' >"$tree/nodump"
	printf 'flags' >"$tree/immutable"
	printf 'flags' >"$tree/append"
	printf 'x' >"$tree/xattr"
	printf 'a' >"$tree/acl"
	chown 12345:54321 "$tree/noise"
	chmod 4751 "$tree/hello"
	chmod 1777 "$tree/sticky"
	printf 'v\000\377' | python3 -c 'import os, sys; os.setxattr(sys.argv[1], "user.note", sys.stdin.buffer.read()); os.setxattr(sys.argv[1], "user.empty", b"")' "$tree/xattr"
	setfacl -m u:12345:rw,g:54321:r "$tree/acl"
	setfacl -d -m u:12345:rwx "$tree/empty-dir"
	settle
	touch -d '1960-01-01T00:00:00.000000001Z' "$tree/old"
	touch -d '2100-01-01T00:00:00.000000001Z' "$tree/future"
	chattr +d "$tree/nodump"
	chattr +i "$tree/immutable"
	chattr +a "$tree/append"
}

make_every_kind() { # NAME MODE
	begin "$1" || return 0
	every_kind
	init "$1" "$2"
	borg create --timestamp 2020-03-01T00:00:00 --comment 'every kind' "../../$1::all" .
	chattr -i -a "$tree/immutable" "$tree/append"
	keep "$1"
}

for mode in none repokey repokey-blake2 keyfile authenticated; do
	make_every_kind "borg-$version-$mode" "$mode"
done

if [ "$version" = 1.1 ] && begin borg-1.1-ancient; then
	small_tree
	init borg-1.1-ancient repokey
	cp "$here/ancient.py" "$work"
	borg='python3 /mnt/ancient.py' borg ../../borg-1.1-ancient
	keep borg-1.1-ancient
fi

[ "$version" = 1.2 ] || exit 0

for mode in none repokey keyfile repokey-blake2 keyfile-blake2 authenticated authenticated-blake2; do
	make_mode "mode-$mode" "$mode" lz4
done
for comp in none lz4 zstd,3 zlib,6 lzma,6 auto,zstd,3 obfuscate,110,lz4 obfuscate,110,zlib,6 obfuscate,110,auto,lzma,6; do
	make_mode "comp-$(echo "$comp" | tr , -)" none "$comp"
done

# The index of the first archive only, as after a crash in the second's commit.
if begin state-stale-index; then
	small_tree
	init state-stale-index none
	between() { mkdir "$work/before" && cp "$work/$1"/index.* "$work/$1"/integrity.* "$work/$1"/hints.* "$work/before"; }
	two state-stale-index lz4
	between() { :; }
	rm "$work"/state-stale-index/index.* "$work"/state-stale-index/integrity.* "$work"/state-stale-index/hints.*
	cp "$work"/before/* "$work/state-stale-index"
	keep state-stale-index index
fi

# One bit of the index is wrong, where the manifest is looked up.
if begin state-corrupt-index; then
	small_tree
	init state-corrupt-index none
	two state-corrupt-index lz4
	printf '\001' | dd of="$(echo "$work"/state-corrupt-index/index.*)" bs=1 seek=$((18 + 36)) conv=notrunc status=none
	keep state-corrupt-index index
fi

# All of the second archive is there, but for its commit.
if begin state-uncommitted; then
	small_tree
	init state-uncommitted none
	between() { mkdir "$work/before2" && cp "$work/$1"/index.* "$work/$1"/integrity.* "$work/$1"/hints.* "$work/before2"; }
	two state-uncommitted lz4
	between() { :; }
	rm "$work"/state-uncommitted/index.* "$work"/state-uncommitted/integrity.* "$work"/state-uncommitted/hints.*
	cp "$work"/before2/* "$work/state-uncommitted"
	find "$work/state-uncommitted/data" -type f | sort -t/ -k6 -n | tail -1 | xargs rm
	keep state-uncommitted index
fi

# "whole" was checkpointed while it was made, "broken" also died of it.
if begin state-checkpoint; then
	small_tree
	init state-checkpoint none
	slowly() { noise 8000; sleep 2.5; noise 8000; sleep 2.5; noise 8000; }
	slowly | borg create --checkpoint-interval 1 --chunker-params fixed,4096 --stdin-name stream ../../state-checkpoint::whole -
	{ slowly; sleep 20; } | borg='timeout -s KILL 12 borg' borg create --checkpoint-interval 1 --chunker-params fixed,4096 --stdin-name stream ../../state-checkpoint::broken - || :
	borg break-lock ../../state-checkpoint
	borg list --consider-checkpoints --short ../../state-checkpoint | grep broken.checkpoint
	keep state-checkpoint
fi

# One chunk of three was lost, and a check put zeros in its place.
if begin state-repaired; then
	small_tree
	noise 12288 >"$tree/holed"
	settle
	init state-repaired repokey
	borg create --chunker-params fixed,4096 --timestamp 2020-03-01T00:00:00 ../../state-repaired::first .
	lost=$(borg debug dump-archive ../../state-repaired::first - | tr -d ' \n' |
		sed 's/.*"chunks":\[\["[^"]*",4096,[0-9]*\],\["\\u007f\([0-9a-f]\{64\}\)",4096,.*/\1/')
	borg debug delete-obj ../../state-repaired "$lost"
	borg check --repair ../../state-repaired || :
	keep state-repaired
fi
du -sk "$here"
