package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/s4-storage/s4/internal/dockertest"
)

// postgresImage is Debian with PostgreSQL, kept in the user's cache.
func postgresImage(t *testing.T, e *dockertest.Engine) string {
	t.Helper()
	const image = "s4-postgres"
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(cache, "s4-test", "s4-postgres-bookworm.tar")
	if info, err := os.Stat(kept); err == nil && time.Since(info.ModTime()) < 30*24*time.Hour {
		e.Docker("import", kept, image)
		return image
	}
	need(t, "debootstrap", "tar")
	dir := t.TempDir()
	for _, args := range [][]string{
		{"debootstrap", "--variant=minbase", "--include=postgresql", "bookworm", dir},
		{"mkdir", "-p", filepath.Dir(kept)},
		{"tar", "-C", dir, "--numeric-owner", "--exclude=./var/cache/apt/archives/*.deb", "-cf", kept + ".new", "."},
	} {
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			missing(t, "no PostgreSQL: "+args[0]+": "+err.Error()+": "+lastLines(string(out)))
		}
	}
	if err := os.Rename(kept+".new", kept); err != nil {
		t.Fatal(err)
	}
	e.Docker("import", kept, image)
	return image
}

// postgresEntry does what the entry points of databases' images do: it gives
// all files to the database's user at each start, and makes a database where
// there is nothing.
const postgresEntry = `set -e
bin=$(echo /usr/lib/postgresql/*/bin)
as="setpriv --reuid postgres --regid postgres --clear-groups"
find /data \! -user postgres -exec chown postgres {} +
chmod 700 /data
[ -s /data/PG_VERSION ] || $as $bin/initdb -D /data
exec $as $bin/postgres -D /data -k /tmp`

// A database on a docker volume comes back from the remote after the host has
// lost everything, and so does the one at a moment before.
func TestDockerPostgres(t *testing.T) {
	if os.Getenv("S4_LONG") == "" {
		t.Skip("it makes an image with PostgreSQL: set S4_LONG=1")
	}
	h := newDockerHost(t)
	image := postgresImage(t, h.Engine)
	up := func() {
		t.Helper()
		h.Docker("run", "-d", "--name", "pg", "-v", "db:/data", image, "sh", "-c", postgresEntry)
	}
	sql := func(text string) string {
		t.Helper()
		var got string
		h.eventually("the database answers", func() bool {
			out, err := h.Try("exec", "-u", "postgres", "pg", "psql", "-h", "/tmp", "-d", "postgres", "-Atc", text)
			got = out
			if err != nil && h.Docker("inspect", "-f", "{{.State.Running}}", "pg") != "true" {
				t.Fatalf("the database ended: %s", h.Docker("logs", "pg"))
			}
			return err == nil
		})
		return got
	}
	h.create("db", "size=1G", "remote="+h.remote)
	up()
	sql("create table kept as select generate_series(1, 50000) as n")
	h.eventually("it is replicated", func() bool { return h.status("db", "last_push") != "" })
	h.Docker("restart", "pg") // with files of s4 in the volume
	sql("insert into kept select generate_series(50001, 60000)")
	h.Docker("rm", "-f", "pg") // as a power cut

	h.endPlugin(syscall.SIGKILL)
	if err := os.RemoveAll(h.state); err != nil {
		t.Fatal(err)
	}
	h.startPlugin()
	_, _ = h.Try("volume", "rm", "-f", "db")
	h.create("db", "remote="+h.remote)
	up()
	if got := sql("select count(*), sum(n) from kept"); got != "60000|1800030000" {
		t.Errorf("came back: %s", got)
	}
	sql("drop table kept")
	h.Docker("stop", "pg")
	if log := h.Docker("logs", "pg"); strings.Contains(log, "PANIC") {
		t.Errorf("%s", log)
	}
	h.Docker("rm", "pg")
	h.Docker("volume", "rm", "db")
}
