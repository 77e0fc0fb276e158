#!/bin/sh
# Fuzzes every target there is for the given time each, such as 1m, and ends
# with the first finding. `go test` says where the input is that shows it; left
# there, it is a test from then on.
#
#	scripts/fuzz.sh TIME [PACKAGE…]
set -eu
time=${1:-1m}
[ $# = 0 ] || shift
[ $# != 0 ] || set -- ./...
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Each package's targets, and then a line of its own with the package's name.
go test -list '^Fuzz' "$@" >"$log" || { cat "$log"; exit 1; }
targets=$(awk '/^Fuzz/ {t[n++] = $1} /^ok/ {for (i = 0; i < n; i++) print $2, t[i]; n = 0}' "$log")
count=$(echo "$targets" | wc -l)
echo "fuzzing $count targets for $time each"
echo "$targets" | while read -r pkg target; do
	start=$(date +%s)
	# New inputs are not made as small as can be, which would take most of
	# the time.
	if ! go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 200x "$pkg" >"$log" 2>&1; then
		# It may be its own time limit that go test takes for a failure.
		if grep -q '^ *Failing input\|^panic' "$log" || ! grep -q '^ *context deadline exceeded' "$log"; then
			echo "FAIL $pkg $target"
			grep -v '^fuzz: ' "$log" | cut -c1-2000
			if grep -q '^ *Failing input' "$log"; then
				echo "the input is in $(go list -f '{{.Dir}}' "$pkg")/testdata/fuzz/$target"
			fi
			exit 1
		fi
	fi
	execs=$(grep 'execs:' "$log" | tail -n 1 | sed 's/.*execs: \([0-9]*\).*/\1/')
	echo "ok   $pkg $target: $execs inputs in $(($(date +%s) - start)) s"
done
