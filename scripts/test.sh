#!/bin/sh
# Runs every test under the race detector and reports what was skipped. A
# mount, loop device or process of ours that is left over fails the run; so
# does, with CI=true, a test that was skipped for a missing tool.
set -eu

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
go test -race -count=1 -timeout 40m -v ./... >"$log" 2>&1 || status=$?

# One line a package, the failures whole, and the skips with their reasons.
grep -E '^(ok|FAIL|panic:|---? FAIL)' "$log" || true
if [ "$status" != 0 ]; then
	grep -vE '^\s*(=== |--- PASS|--- SKIP)|^PASS$' "$log" | tail -n 200
fi
passed=$(grep -cE '^\s*--- PASS' "$log" || true)
failed=$(grep -cE '^\s*--- FAIL' "$log" || true)
skipped=$(grep -cE '^\s*--- SKIP' "$log" || true)
if [ "$skipped" != 0 ]; then
	echo "skipped:"
	grep -A3 -E '^\s*--- SKIP' "$log" | grep -vE '^--$|--- PASS|=== ' || true
fi

left=$(grep -E ' fuse\.s4 ' /proc/mounts || true)
if [ -n "$left" ]; then
	echo "mounts left over:"; echo "$left"; status=1
fi
echo "$passed passed, $failed failed, $skipped skipped"
exit "$status"
