package dockeragent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/s4-storage/s4/internal/dockerapi"
	"github.com/s4-storage/s4/internal/hint"
)

// DumpDir is where dumps are, in the root of the volume: they are stored with
// it. A dump has its name only when it is complete.
const DumpDir = ".s4-dump"

// The scripts run in the container, where there is a shell, as the user of the
// container. $1 is the directory of dumps, $2 the name of the dump; what the
// command prints becomes the dump. A command cannot be ended early, so each
// writes into a file of its own, lest a forgotten one spoils the next.
const (
	scriptBegin = `umask 077; mkdir -p "$1" || exit; part="$1/$2.$$.part"; trap 'rm -f "$part"' EXIT
`
	scriptEnd = ` && [ -s "$part" ] && mv -f "$part" "$1/$2"`

	// A command that prints nothing has done its own thing, and leaves no dump.
	scriptCommand = scriptBegin + `sh -c "$3" >"$part" || exit
[ ! -s "$part" ] || mv -f "$part" "$1/$2"`

	scriptPostgres = scriptBegin + `pg_dumpall --clean --if-exists -U "${POSTGRES_USER:-postgres}" >"$part"` + scriptEnd

	// MariaDB's images call the program otherwise. The password goes by the
	// environment, where other users of the host do not see it.
	scriptMySQL = scriptBegin + `p=${MYSQL_ROOT_PASSWORD:-$MARIADB_ROOT_PASSWORD}
file=${MYSQL_ROOT_PASSWORD_FILE:-$MARIADB_ROOT_PASSWORD_FILE}
[ -n "$p" ] || [ -z "$file" ] || p=$(cat "$file")
dump=mysqldump; ! command -v mariadb-dump >/dev/null || dump=mariadb-dump
MYSQL_PWD=$p "$dump" -uroot --all-databases --single-transaction --routines --events >"$part"` + scriptEnd

	// $3 is the database.
	scriptSQLite = scriptBegin + `sqlite3 "$3" ".backup '$part'"` + scriptEnd
)

// DumpError is a dump that failed in its container.
type DumpError struct {
	Container string
	Kind      DumpKind
	Code      int    // exit code; 126 and 127 mean that there is no such program
	Message   string // the last line that it printed
}

func (e *DumpError) Error() string {
	text := fmt.Sprintf("container %s: dump by %s failed with exit code %d", e.Container, e.Kind, e.Code)
	if e.Message != "" {
		text += ": " + e.Message
	}
	return text
}

// dumpTime bounds the dumps for one backup: a command that waits for something
// would else end all backups of its volume.
const dumpTime = 2 * time.Hour

// dump makes the dumps that the rules of a volume ask for.
func dump(ctx context.Context, engine *dockerapi.Client, v Volume) error {
	ctx, cancel := context.WithTimeoutCause(ctx, dumpTime, fmt.Errorf("not done after %v", dumpTime))
	defer cancel()
	for _, u := range v.Users {
		if u.Dump == DumpNone {
			continue
		}
		d, err := engine.Inspect(ctx, u.ID)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !d.State.Running {
			continue // it writes nothing, and its files are at rest
		}
		if err != nil {
			return err
		}
		if d.State.Paused {
			return fmt.Errorf("container %s: dump by %s: it is paused", u.Name, u.Dump)
		}
		if err := dumpOf(ctx, engine, v, u); err != nil {
			return err
		}
	}
	return nil
}

func dumpOf(ctx context.Context, engine *dockerapi.Client, v Volume, u User) error {
	name := dumpName(u)
	switch u.Dump {
	case DumpPostgres:
		return runDump(ctx, engine, u, scriptPostgres, name+".sql")
	case DumpMySQL:
		return runDump(ctx, engine, u, scriptMySQL, name+".sql")
	case DumpCommand:
		return runDump(ctx, engine, u, scriptCommand, name+".dump", u.Command)
	}
	databases, err := sqliteFiles(ctx, v.Path)
	if err != nil {
		return err
	}
	if len(databases) == 0 {
		return fmt.Errorf("container %s: dump by sqlite: no sqlite database in the volume %s", u.Name, v.Name)
	}
	for _, db := range databases {
		flat := strings.ReplaceAll(db, "/", "_")
		if strings.Contains(flat, "'") { // sqlite's shell could not be given it
			return fmt.Errorf("container %s: dump by sqlite: an apostrophe in the name of %s", u.Name, db)
		}
		if err := runDump(ctx, engine, u, scriptSQLite, flat, path.Join(u.Destination, db)); err != nil {
			return err
		}
	}
	return nil
}

// dumpName tells the dumps of two services apart that share a volume, and
// stays the same when a container is made anew.
func dumpName(u User) string {
	if u.Service != "" {
		return u.Service
	}
	return u.Name
}

func runDump(ctx context.Context, engine *dockerapi.Client, u User, script string, args ...string) error {
	args = append([]string{"sh", "-c", script, "s4-dump", path.Join(u.Destination, DumpDir)}, args...)
	r, err := engine.Exec(ctx, u.ID, dockerapi.ExecOptions{Args: args})
	if err != nil {
		return fmt.Errorf("container %s: dump by %s: %w", u.Name, u.Dump, err)
	}
	if r.ExitCode == 0 {
		return nil
	}
	text := strings.TrimSpace(r.Stderr)
	if text == "" {
		text = strings.TrimSpace(r.Stdout)
	}
	failed := &DumpError{Container: u.Name, Kind: u.Dump, Code: r.ExitCode, Message: text[strings.LastIndexByte(text, '\n')+1:]}
	if r.ExitCode == 126 || r.ExitCode == 127 {
		return hint.With(failed, "the container has no such program; hold it instead: "+LabelQuiesce+"=pause or stop")
	}
	return failed
}

// maxDatabases bounds how many databases one volume may have.
const maxDatabases = 1000

// sqliteMagic begins every sqlite database: https://www.sqlite.org/fileformat.html
var sqliteMagic = []byte("SQLite format 3\x00")

// sqliteFiles are the databases in the volume, as paths below its root.
func sqliteFiles(ctx context.Context, dir string) ([]string, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("look for databases: %w", err)
	}
	defer root.Close() //nolint:errcheck // only read
	var found []string
	err = walkData(ctx, root, func(name string, e fs.DirEntry) error {
		if !e.Type().IsRegular() {
			return nil
		}
		is, err := isSQLite(root, name)
		if is {
			found = append(found, filepath.ToSlash(name))
		}
		if len(found) > maxDatabases {
			return fmt.Errorf("more than %d sqlite databases; name them with a command in %s", maxDatabases, LabelDump)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for databases: %w", err)
	}
	return found, nil
}

func isSQLite(root *os.Root, name string) (bool, error) {
	f, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	head := make([]byte, len(sqliteMagic))
	if _, err := io.ReadFull(f, head); err != nil { // too short
		return false, nil
	}
	return bytes.Equal(head, sqliteMagic), nil
}
