#!/bin/sh
# Makes the frozen repositories that the tests read without borg: one for each
# key mode, and for each compression one, all of the same small tree. The
# tests know that tree (frozen_test.go) and the passphrase. Run it only to
# add a repository: what is there shall stay as an old borg wrote it.
#
#	./make.sh [NAME…]
set -eu
cd "$(dirname "$0")"
here=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export BORG_BASE_DIR="$work/base" BORG_PASSPHRASE=s4-test LC_ALL=C.UTF-8 TZ=UTC
mkdir -p "$here/keys"

tree=$work/tree
mkdir -p "$tree/dir/deep" "$tree/empty-dir"
printf 'hello, borg\n' >"$tree/hello.txt"
: >"$tree/empty"
awk 'BEGIN { for (i = 0; i < 500; i++) printf "line %d of a text that packs well\n", i }' >"$tree/dir/text"
awk 'BEGIN { s = 42; for (i = 0; i < 3000; i++) { s = (s * 1103515245 + 12345) % 2147483648; printf "%c", 33 + int(s / 65536) % 94 } }' >"$tree/dir/deep/noise"
ln -s ../hello.txt "$tree/dir/link"
ln "$tree/hello.txt" "$tree/dir/hard"
mkfifo "$tree/fifo"
chmod 640 "$tree/hello.txt"
chmod 1755 "$tree/dir"
find "$tree" -exec touch -h -d '2020-02-02T02:02:02.123456789Z' {} +

# make NAME MODE COMPRESSION
make() {
	if [ -e "$here/$1" ]; then
		echo "$1: is there" >&2
		return
	fi
	# Key files are named after their mode, and no path of this machine gets
	# into an archive's command line.
	case $2 in
	keyfile*) export BORG_KEY_FILE="$here/keys/$2" ;;
	*) unset BORG_KEY_FILE ;;
	esac
	borg init -e "$2" "$work/$1" 2>/dev/null
	(cd "$tree" && borg create -C "$3" --timestamp 2020-03-01T00:00:00 --comment 'a frozen archive' "../$1::first" .)
	printf 'changed\n' >"$tree/hello.txt.new"
	(cd "$tree" && borg create -C "$3" --timestamp 2020-03-02T00:00:00 "../$1::second" hello.txt.new dir/text)
	rm "$tree/hello.txt.new"
	rm -f "$work/$1/README"
	mv "$work/$1" "$here/$1"
	# An index is 41 KB; without it the segments are replayed. Two keep theirs.
	case $1 in
	mode-none | mode-repokey-blake2) ;;
	*) rm -f "$here/$1"/index.* "$here/$1"/hints.* "$here/$1"/integrity.* ;;
	esac
}

for mode in none repokey keyfile repokey-blake2 keyfile-blake2 authenticated authenticated-blake2; do
	make "mode-$mode" "$mode" lz4
done
for comp in none lz4 zstd,3 zlib,6 lzma,6 auto,zstd,3 obfuscate,110,lz4; do
	make "comp-$(echo "$comp" | tr , -)" none "$comp"
done
du -sk "$here"
