#!/bin/sh
# A short tour of s4 on a sample volume, with a local directory as remote.
# Everything it makes lies in a temporary directory and is gone at the end.
set -eu
exec 2>&1

s4=$(realpath "${1:?usage: demo.sh PATH-TO-S4}")
tour=$(mktemp -d "${TMPDIR:-/tmp}/s4-demo.XXXXXX")
export XDG_CONFIG_HOME="$tour/home/config" XDG_CACHE_HOME="$tour/home/cache" XDG_STATE_HOME="$tour/home/state"
export BORG_BASE_DIR="$tour/home/borg"
unset BORG_PASSPHRASE BORG_PASSCOMMAND BORG_PASSPHRASE_FD || true

cleanup() {
	cd /
	if grep -qs " $tour/mnt fuse.s4" /proc/mounts; then "$s4" umount "$tour/mnt" || true; fi
	rm -rf "$tour"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

bold=; plain=
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$(printf '\033[1m'); plain=$(printf '\033[0m'); fi
say() { printf '\n%s# %s%s\n' "$bold" "$*" "$plain"; }
# Shows a command as a person would type it, then runs it.
run() { printf '%s$ %s%s\n' "$bold" "$*" "$plain"; "$@"; }
s4() { "$s4" --no-progress "$@"; }
# Snapshots are named by the second.
tick() { sleep 1.1; }

mkdir -p "$tour/remote" "$tour/mnt" "$tour/notes/drafts"
cd "$tour/notes"
printf 'milk\nbread\n' >shopping.txt
printf 'Chapter one\n' >drafts/novel.txt
dd if=/dev/urandom of=photo.raw bs=1M count=10 2>/dev/null

say "A folder becomes a volume, and a local directory its remote"
run s4 init
run s4 remote add origin "$tour/remote"

say "Three snapshots, with changes between"
run s4 push -m "the first one"
tick
printf 'milk\nbread\ncoffee\n' >shopping.txt
printf 'Chapter one\nIt was a dark and stormy night.\n' >drafts/novel.txt
run s4 push -m "coffee, and a beginning"
tick
rm drafts/novel.txt
printf 'coffee\n' >shopping.txt
run s4 push -m "the novel is gone"
run s4 push

say "The time machine: live files plus the past"
run s4 mount "$tour/mnt"
cd "$tour/mnt"
run ls -A . .s4/history
first=$(ls .s4/history | head -n 1)
second=$(ls .s4/history | sed -n 2p)

say "What changed between then and now?"
run diff -r "--exclude=.s4" ".s4/history/$first" . || true

say "The novel, brought back with cp"
run cp ".s4/history/$second/drafts/novel.txt" drafts/
run cat drafts/novel.txt
run s4 status

say "Any borg repository mounts too: this one is one"
cd "$tour"
run s4 umount "$tour/mnt"
run s4 mount "$tour/remote/notes" "$tour/mnt"
run ls "$tour/mnt" "$tour/mnt/.s4/history"
run s4 umount "$tour/mnt"

say "That was s4. Everything is cleaned up again."
