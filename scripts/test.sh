#!/bin/sh
# Runs every test under the race detector and reports what was skipped. A
# mount, loop device or process of ours that is left over fails the run; so
# does, with CI=true, a test that was skipped for a missing tool.
set -eu

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
mounts() { grep -aE ' fuse\.s4 ' /proc/mounts | sort || true; }
loops() { losetup -ln -O NAME,BACK-FILE 2>/dev/null | sort || true; }
before="$(mounts; loops)"
# Each program under the race detector would wait a second at its end for what
# others of its threads may yet do, and the tests start hundreds of ours.
export GORACE="atexit_sleep_ms=0 ${GORACE:-}"
# Many packages mount, or start servers: on a large machine some at a time will do.
procs=$(nproc)
[ "$procs" -le 4 ] || procs=4
# Those that take longest come first, lest one of them is left to run alone.
go test -race -count=1 -p "$procs" -timeout 30m -v ./e2e ./borgio ./... >"$log" 2>&1 || status=$?

# One line a package, then of each failed test its name and the end of what
# it printed (the lines after each "=== NAME" are that test's), and the skips
# with their reasons.
grep -aE '^(ok|FAIL|panic:|[[:space:]]*--- FAIL)' "$log" || true
if [ "$status" != 0 ]; then
	awk '/^=== /{name = $3; next}
		/^ *--- FAIL: /{failed[++n] = $3}
		/^ *--- /{name = ""; next}
		/^(panic: |fatal error: |WARNING: DATA RACE)/{loose = 100}
		loose > 0{print; loose--; next}
		name != ""{out[name, ++lines[name]] = substr($0, 1, 400)}
		END{for (i = 1; i <= n; i++) {
			name = failed[i]
			if (lines[name] == 0) continue
			print "--- what " name " printed last:"
			first = lines[name] - 79
			for (l = first < 1 ? 1 : first; l <= lines[name]; l++) print out[name, l]
		}}' "$log"
fi
passed=$(grep -acE '^\s*--- PASS' "$log" || true)
failed=$(grep -acE '^\s*--- FAIL' "$log" || true)
skipped=$(grep -acE '^\s*--- SKIP' "$log" || true)
if [ "$skipped" != 0 ]; then
	echo "skipped:"
	awk '/^=== /{name = $3}
		/^ +[a-z_]+\.go:[0-9]+: /{reason[name] = $0}
		/^ *--- SKIP/{print; print reason[$3]}' "$log"
fi

after="$(mounts; loops)"
if [ "$after" != "$before" ]; then
	echo "mounts and loop devices before the run:"; echo "$before"
	echo "and after it:"; echo "$after"
	status=1
fi
echo "$passed passed, $failed failed, $skipped skipped"
exit "$status"
