package e2e

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// extractEach restores every snapshot of the volume with borg, one after the
// other, and calls see with the number and the directory.
func (v *inhabited) extractEach(see func(n int, dir string)) int {
	v.t.Helper()
	archives := v.archives()
	for n, name := range archives {
		dir, err := os.MkdirTemp(filepath.Dir(v.dir), "clone")
		if err != nil {
			v.t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o755); err != nil { // for another user
			v.t.Fatal(err)
		}
		v.run("sh", "-c", `cd "$0" && borg extract --numeric-ids "$1"`, dir, v.repo+"::"+name)
		see(n, dir)
		if err := os.RemoveAll(dir); err != nil {
			v.t.Fatal(err)
		}
	}
	return len(archives)
}

// sqliteWriter commits to a database with a write-ahead log for ever, and says
// each time how often it has: in a counter, and in as many rows.
const sqliteWriter = `
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode=WAL")
db.execute("PRAGMA synchronous=FULL")
db.execute("PRAGMA wal_autocheckpoint=50")
db.execute("CREATE TABLE counter(n INTEGER)")
db.execute("CREATE TABLE log(n INTEGER PRIMARY KEY, text TEXT)")
db.execute("INSERT INTO counter VALUES(0)")
n = 0
while True:
    n += 1
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE counter SET n = ?", (n,))
    db.execute("INSERT INTO log VALUES(?, ?)", (n, str(n) * (n % 500)))
    db.execute("COMMIT")
    print(n, flush=True)
`

// TestReplicateSQLite replicates a database while it is written to: whatever was
// committed when a snapshot was taken is in it, and the database is sound.
func TestReplicateSQLite(t *testing.T) {
	t.Parallel()
	need(t, "python3", "sqlite3")
	snapshots := 4
	if long() {
		snapshots = 20
	}
	v := newOnBtrfs(t)
	cmd := exec.Command("python3", "-c", sqliteWriter, filepath.Join(v.dir, "data.db"))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var committed atomic.Int64
	heardAll := make(chan struct{})
	go func() {
		defer close(heardAll)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if n, err := strconv.ParseInt(lines.Text(), 10, 64); err == nil {
				committed.Store(n)
			}
		}
	}()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-heardAll; _ = cmd.Wait() })
	eventually(t, 20*time.Second, "it writes", func() bool { return committed.Load() > 20 })
	before := committed.Load() // what a snapshot must have
	j := v.start("replicate", "--interval", "100ms")
	j.happened("pushed", snapshots)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-heardAll
	last := committed.Load()
	j.signal(unix.SIGTERM)
	if code, said := j.end(); code != 0 {
		t.Errorf("SIGTERM: %d %s", code, said)
	}
	v.run("s4", "push")
	n := v.extractEach(func(n int, dir string) {
		db := filepath.Join(dir, "data.db")
		said := strings.Fields(v.run("sqlite3", db, "PRAGMA integrity_check; SELECT n FROM counter; SELECT count(*) FROM log; SELECT max(n) FROM log"))
		if len(said) != 4 || said[0] != "ok" || said[1] != said[2] || said[1] != said[3] {
			t.Fatalf("snapshot %d: %q", n, said)
		}
		count, err := strconv.ParseInt(said[1], 10, 64)
		if err != nil || count < before {
			t.Errorf("snapshot %d: %d transactions, and %d were committed before it was taken: %v", n, count, before, err)
		}
		before = count
	})
	if n < snapshots || before < last {
		t.Errorf("%d snapshots; the last has %d of %d transactions", n, before, last)
	}
}

// postgres is a server of Debian's PostgreSQL on a unix socket, run by the user
// that its package makes.
type postgres struct {
	t      *testing.T
	bin    string
	socket string
	user   *user.User
}

func newPostgres(t *testing.T) *postgres {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "cannot be another user: not root")
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(found) == 0 {
		missing(t, "postgresql is not installed")
	}
	p := &postgres{t: t, bin: filepath.Dir(found[len(found)-1])}
	if p.user, err = user.Lookup("postgres"); err != nil {
		missing(t, err.Error())
	}
	// Not below the test's directory: a socket's path may have a hundred bytes.
	if p.socket, err = os.MkdirTemp("/tmp", "s4pg"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(p.socket) })
	p.own(p.socket)
	return p
}

func (p *postgres) ids() (uid, gid int) {
	uid, errUID := strconv.Atoi(p.user.Uid)
	gid, errGID := strconv.Atoi(p.user.Gid)
	if errUID != nil || errGID != nil {
		p.t.Fatal(errUID, errGID)
	}
	return uid, gid
}

func (p *postgres) own(dir string) {
	p.t.Helper()
	uid, gid := p.ids()
	if err := os.Chown(dir, uid, gid); err != nil {
		p.t.Fatal(err)
	}
}

// command is one of PostgreSQL's programs, run by its user.
func (p *postgres) command(program string, args ...string) *exec.Cmd {
	uid, gid := p.ids()
	cmd := exec.Command(filepath.Join(p.bin, program), args...)
	cmd.Dir = p.socket
	cmd.Env = []string{"PGHOST=" + p.socket, "PGUSER=bench", "PGDATABASE=postgres", "LC_ALL=C", "PATH=/usr/bin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	return cmd
}

func (p *postgres) run(program string, args ...string) string {
	p.t.Helper()
	out, err := p.command(program, args...).CombinedOutput()
	if err != nil {
		p.t.Fatalf("%s %q: %v\n%s", program, args, err, out)
	}
	return string(out)
}

// serve runs a server on the data in dir until stop is called.
func (p *postgres) serve(dir string) (stop func()) {
	p.t.Helper()
	cmd := p.command("postgres", "-D", dir, "-k", p.socket, "-c", "listen_addresses=", "-c", "shared_buffers=16MB", "-c", "max_connections=20")
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	ended := false
	stop = func() {
		if !ended {
			ended = true
			_ = cmd.Process.Signal(unix.SIGINT) // a fast shutdown
			_ = cmd.Wait()
			if p.t.Failed() {
				p.t.Log(log.String())
			}
		}
	}
	p.t.Cleanup(stop)
	eventually(p.t, 60*time.Second, "the database serves", func() bool { return p.command("psql", "-c", "SELECT 1").Run() == nil })
	return stop
}

// TestReplicatePostgreSQL replicates a database under load. Every snapshot starts
// elsewhere, is sound, and has what the one before it had.
func TestReplicatePostgreSQL(t *testing.T) {
	t.Parallel()
	p := newPostgres(t)
	seconds, snapshots := 10, 3
	if long() {
		seconds, snapshots = 120, 10
	}
	v := newOnBtrfs(t)
	// Directories of tests are for their own user only.
	if err := os.Chmod(filepath.Dir(filepath.Dir(v.dir)), 0o755); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(v.dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	p.own(data)
	p.run("initdb", "-D", data, "-A", "trust", "-U", "bench", "--wal-segsize=1", "-N")
	stop := p.serve(data)
	p.run("psql", "-c", "CREATE EXTENSION amcheck")
	p.run("pgbench", "-i", "-s", "1", "-q")
	load := p.command("pgbench", "-T", fmt.Sprint(seconds), "-c", "2", "-n")
	if err := load.Start(); err != nil {
		t.Fatal(err)
	}
	// So many snapshots over the whole time.
	j := v.start("replicate", "--interval", (time.Duration(seconds) * time.Second / time.Duration(snapshots+1)).String())
	if err := load.Wait(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 60*time.Second, "enough snapshots", func() bool { return j.count("pushed", "") >= snapshots })
	j.signal(unix.SIGTERM)
	if code, said := j.end(); code != 0 {
		t.Errorf("SIGTERM: %d %s", code, said)
	}
	stop()
	v.run("s4", "push")
	last := int64(0)
	n := v.extractEach(func(n int, dir string) {
		defer p.serve(filepath.Join(dir, "data"))()
		p.run("pg_amcheck", "--heapallindexed", "--no-dependent-toast", "-d", "postgres")
		said := strings.Fields(p.run("psql", "-At", "-F", " ", "-c", `SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),
			(SELECT sum(bbalance) FROM pgbench_branches), (SELECT coalesce(sum(delta), 0) FROM pgbench_history), (SELECT count(*) FROM pgbench_history)`))
		if len(said) != 5 || said[0] != said[1] || said[0] != said[2] || said[0] != said[3] {
			t.Errorf("snapshot %d: the sums differ: %q", n, said)
			return
		}
		transactions, err := strconv.ParseInt(said[4], 10, 64)
		if err != nil || transactions < last {
			t.Errorf("snapshot %d: %d transactions after %d: %v", n, transactions, last, err)
		}
		last = transactions
	})
	if n < snapshots || last == 0 {
		t.Errorf("%d snapshots, %d transactions in the last", n, last)
	}
}
