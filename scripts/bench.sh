#!/bin/sh
# Times s4 and its peers side by side: bench.sh PATH-TO-S4 [FLAGS]. Every flag
# has an environment variable too, for make bench: BENCH_DIR keeps corpus and
# repositories for the next run, BENCH_FILES, BENCH_SNAPSHOTS, BENCH_BIG (bytes),
# BENCH_RUNS and BENCH_ONLY make it smaller, BENCH_DOCS=docs puts the results
# into docs/bench.md and docs/bench/, those of the groups that were taken. See -help.
set -eu

s4=$(realpath "${1:?usage: bench.sh PATH-TO-S4 [FLAGS]}")
shift
cd "$(dirname "$0")/.."
go build -o bin/s4-bench ./e2e/bench
go build -o bin/loopback github.com/hanwen/go-fuse/v2/example/loopback
# The program is to get Ctrl-C itself, to unmount. Signals that Go's scheduler
# sends would interrupt its calls into the mounts, for which kopia gives errors.
export GODEBUG=asyncpreemptoff=1
exec bin/s4-bench -s4 "$s4" "$@"
