package e2e

import (
	"os"
	"strings"
	"syscall"
	"testing"
)

// postgresEntry does what the entry points of databases' images do: it gives
// all files to the database's user at each start, and makes a database where
// there is nothing.
const postgresEntry = `set -e
bin=$(echo /usr/lib/postgresql/*/bin)
as="setpriv --reuid postgres --regid postgres --clear-groups"
mkdir -p /data/db
find /data \! -user postgres -exec chown postgres {} +
chmod 700 /data/db
[ -s /data/db/PG_VERSION ] || $as $bin/initdb -D /data/db
exec $as $bin/postgres -D /data/db -k /tmp`

// A database on a docker volume comes back from an s4-target after the host has
// lost everything, by the command that made it.
func databaseLost(t *testing.T, h *dockerHost, r *target) {
	h.Debian("postgres", "postgresql-15", "util-linux")
	r.letIn(t, "db", r.key)
	up := func() {
		t.Helper()
		h.Docker("run", "-d", "--name", "pg", "-v", "db:/data", "postgres", "sh", "-c", postgresEntry)
	}
	sql := func(text string) string {
		t.Helper()
		var got string
		h.eventually("the database answers", func() bool {
			out, err := h.Try("exec", "-u", "postgres", "pg", "psql", "-h", "/tmp", "-d", "postgres", "-Atc", text)
			got = out
			if err != nil && h.Docker("inspect", "-f", "{{.State.Running}}", "pg") != "true" {
				out, _ := h.Command(t.Context(), "logs", "pg").CombinedOutput()
				t.Fatalf("the database ended: %s", out)
			}
			return err == nil
		})
		return got
	}
	const sum = "select count(*), md5(string_agg(n || t, ',' order by n)) from kept"

	h.create("db", "size=1G", "remote="+r.place())
	up()
	sql("create table kept as select n, md5(n::text) as t from generate_series(1, 50000) as n")
	waitFor(t, "the first push", func() bool { return h.status("db", "last_push") != "" })
	h.Docker("restart", "pg") // with files of s4 in the volume
	sql("insert into kept select n, md5(n::text) from generate_series(50001, 60000) as n")
	before := sql(sum)
	if !strings.HasPrefix(before, "60000|") {
		t.Fatalf("written: %s", before)
	}
	// Snapshots are atomic: one that has the mark has what was written before it.
	h.run("db", "write", "/data/mark", "after all of it")
	waitFor(t, "the push of what was written last", func() bool { return r.has("db", "mark") == "after all of it" })

	h.Docker("rm", "-f", "pg") // as a power cut
	h.endPlugin(syscall.SIGKILL)
	if err := os.RemoveAll(h.state); err != nil {
		t.Fatal(err)
	}
	h.startPlugin()
	_, _ = h.Try("volume", "rm", "-f", "db") // what the engine remembers
	h.create("db", "remote="+r.place())
	up()
	if after := sql(sum); after != before {
		t.Errorf("came back: %s, it was %s", after, before)
	}
	sql("drop table kept")
	h.Docker("stop", "pg")
	log, err := h.Command(t.Context(), "logs", "pg").CombinedOutput()
	if log := string(log); err != nil || strings.Contains(log, "PANIC") || !strings.Contains(log, "ready to accept connections") {
		t.Errorf("it did not start cleanly: %v: %s", err, log)
	}
	if got := h.Docker("inspect", "-f", "{{.State.ExitCode}}", "pg"); got != "0" {
		t.Errorf("it ended with %s", got)
	}
	h.Docker("rm", "pg")
	h.Docker("volume", "rm", "db")
}
