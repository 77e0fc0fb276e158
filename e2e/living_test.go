package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLivingInIt does a day's work in a volume that is mounted over itself, and
// finds it whole below when the mount is gone.
func TestLivingInIt(t *testing.T) {
	t.Parallel()
	need(t, "git", "make", "cc", "sqlite3", "dpkg-deb", "dpkg", "rsync", "tar", "setfacl", "setfattr")
	if os.Geteuid() != 0 {
		missing(t, "not root")
	}
	v := newInhabited(t)
	outside := filepath.Join(filepath.Dir(v.dir), "outside")
	script := func(name, text string) func(t *testing.T) {
		return func(t *testing.T) {
			if out, err := v.try("bash", "-c", "set -eu; out="+outside+"; "+text); err != nil {
				t.Fatalf("%s: %v\n%s", name, err, out)
			}
		}
	}
	script("prepare", prepareLife)(t)
	if t.Failed() {
		return
	}
	v.run("s4", "push")
	v.run("s4", "mount")
	for _, part := range [][2]string{
		{"git", gitLife}, {"make", makeLife}, {"sqlite", sqliteLife}, {"dpkg", dpkgLife}, {"copies", copyLife},
	} {
		t.Run(part[0], script(part[0], part[1]))
	}
	t.Run("editor", func(t *testing.T) { saveAgainAndAgain(t, filepath.Join(v.dir, "edited")) })
	if out := v.run("s4", "status"); !strings.Contains(out, "changes not pushed") {
		t.Errorf("status does not show what was done: %s", out)
	}
	v.run("s4", "push") // while mounted
	v.umount(v.dir)
	t.Run("below", script("below", belowLife))
	if out := v.run("s4", "status"); !strings.Contains(out, "clean") {
		t.Errorf("what was pushed through the mount is not what is below: %s", out)
	}
}

// saveAgainAndAgain saves as editors do, while another reads: it never finds less
// than a whole text.
func saveAgainAndAgain(t *testing.T, path string) {
	text := func(i int) string { return strings.Repeat(fmt.Sprintf("line of text %d\n", i), 500+i) }
	save := func(i int) error {
		f, err := os.CreateTemp(filepath.Dir(path), ".edited-*")
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.WriteString(text(i)); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		return os.Rename(f.Name(), path)
	}
	if err := save(0); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		defer close(done)
		for i := 1; i <= 100; i++ {
			if err := save(i); err != nil {
				done <- err
				return
			}
		}
	}()
	for saving := true; saving; {
		select {
		case err := <-done:
			if saving = false; err != nil {
				t.Error(err)
			}
		default:
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var i int
		if _, err := fmt.Sscanf(string(data), "line of text %d\n", &i); err != nil || string(data) != text(i) {
			t.Fatalf("read %d bytes that are no text that was saved", len(data))
		}
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != text(100) {
		t.Errorf("the last one is not there: %v", err)
	}
}

// The parts of a life, as bash scripts in the volume's root; $out is outside.
const (
	prepareLife = `
mkdir $out; cd $out
git init -q -b main src; cd src
for i in $(seq 200); do mkdir -p d$((i % 17)); seq $i $((i * 3)) >d$((i % 17))/f$i; done
ln -s d1 link; chmod 755 d1/f1
git add -A; git commit -qm one
for i in $(seq 1 40); do echo changed >>d$((i % 17))/f$i; done; git commit -qam two
cd ..
mkdir -p tree/sub/deep tree/empty; cd tree
echo hello >file; ln file sub/hard; ln -s ../file sub/link; ln -s /nowhere dangling; mkfifo -m 640 pipe; mknod null c 1 3
head -c 3000000 /dev/urandom >sub/deep/big; truncate -s 5M sparse; printf end >>sparse; echo x >$'odd \xff\n name'
setfattr -n user.color -v green file; setfacl -m u:1234:rw sub/deep/big; setfacl -d -m g:77:rx sub; chown 1000:1001 sub/deep/big
chmod 4755 file; chmod 1777 empty; touch -d '2001-02-03 04:05:06.789' file sub dangling; touch -h -d 2002-02-02 dangling
cd ..
mkdir -p pkg/DEBIAN pkg/usr/share/thing pkg/etc
printf 'Package: thing\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: thing\n' >pkg/DEBIAN/control
echo /etc/thing.conf >pkg/DEBIAN/conffiles; echo conf >pkg/etc/thing.conf
for i in $(seq 150); do seq $i >pkg/usr/share/thing/f$i; done; ln pkg/usr/share/thing/f1 pkg/usr/share/thing/hard; ln -s f2 pkg/usr/share/thing/link
dpkg-deb -b pkg thing.deb >/dev/null`

	gitLife = `
git clone -q $out/src clone; cd clone
test -z "$(git status --porcelain)"
git switch -qc branch; echo more >>d3/f3; git mv d4 moved; git commit -qam three
git switch -q main; echo other >>d5/f5; git commit -qam four; git merge -q branch -m merged
git worktree add -q ../worktree branch; git stash list; git gc -q --aggressive --prune=now; git repack -adq
git fsck --strict --no-progress; test -z "$(git status --porcelain)"; git push -q origin branch
git -C ../worktree checkout -q --detach HEAD~1; test -z "$(git -C ../worktree status --porcelain)"`

	makeLife = `
unset MAKEFLAGS MFLAGS MAKELEVEL # these tests may be run by make
mkdir built; cd built
for i in $(seq 12); do echo "int f$i(void) { return $i; }" >f$i.c; done
{ echo '#include <stdio.h>'; for i in $(seq 12); do echo "int f$i(void);"; done
  echo 'int main(void) { int s = 0;'; for i in $(seq 12); do echo "s += f$i();"; done; echo 'printf("%d\n", s); return 0; }'; } >main.c
printf 'prog: $(patsubst %%.c,%%.o,$(wildcard *.c))\n\t$(CC) -o $@ $^\nlib.a: prog\n\t$(AR) rcs $@ f*.o\n' >Makefile
make -s -j4 prog lib.a; test "$(./prog)" = 78
test "$(make prog)" = "make: 'prog' is up to date."
touch f3.c; test "$(make -n prog | wc -l)" = 2; make -s prog; test "$(./prog)" = 78`

	sqliteLife = `
test "$(sqlite3 db 'PRAGMA journal_mode=WAL; CREATE TABLE t(writer, i, body);')" = wal
writer() { { echo ".timeout 60000"; for i in $(seq 150); do
	echo "BEGIN IMMEDIATE; INSERT INTO t VALUES($1, $i, hex(randomblob(500))); COMMIT;"; done; } | sqlite3 -bail db; }
reader() { last=0; while [ -e reading ]; do
	now=$(sqlite3 -cmd '.timeout 60000' db "SELECT count(*) FROM t"); test $now -ge $last || exit 1; last=$now; done; }
touch reading; reader & r=$!
writer 1 & a=$!; writer 2 & b=$!
wait $a; wait $b; rm reading; wait $r
test "$(sqlite3 db 'SELECT count(*), sum(i) FROM t; PRAGMA integrity_check')" = $'300|22650\nok'
sqlite3 rollback 'PRAGMA journal_mode=DELETE; CREATE TABLE t(x); INSERT INTO t SELECT value FROM generate_series(1,1000); VACUUM' >/dev/null`

	dpkgLife = `
dpkg-deb -x $out/thing.deb unpacked
mkdir -p root/var/lib/dpkg/info root/var/lib/dpkg/updates; touch root/var/lib/dpkg/status root/var/lib/dpkg/available
dpkg --root=$PWD/root -i $out/thing.deb >/dev/null
test -z "$(dpkg --root=$PWD/root -V thing)"; echo mine >root/etc/thing.conf
dpkg --root=$PWD/root --force-confold -i $out/thing.deb >/dev/null; test "$(cat root/etc/thing.conf)" = mine`

	copyLife = `
same() { test -z "$(rsync -naicHAX --delete $1/ $2/)"; test -z "$(rsync -naicHAX --delete $2/ $1/)"; }
rsync -aHAXS $out/tree/ synced; same $out/tree synced
echo new >$out/tree/file; rsync -aHAX --inplace $out/tree/ synced; same $out/tree synced
cp -a $out/tree copied; same $out/tree copied
mkdir untarred; tar -C $out/tree --xattrs --acls -cf - . | tar -C untarred --xattrs --xattrs-include='*' --acls -xpf -; same $out/tree untarred
tar -C synced -czf packed.tar.gz .; tar -tzf packed.tar.gz >/dev/null
cp -a synced moved; mv moved further; rm -rf further`

	belowLife = `
test ! -e .s4/history
for d in clone worktree; do git -C $d fsck --strict --no-progress; done
git -C clone worktree repair >/dev/null 2>&1; test -z "$(git -C clone status --porcelain)"
test "$(git -C clone rev-parse branch)" = "$(git -C $out/src rev-parse branch)"
test "$(built/prog)" = 78
for db in db rollback; do test "$(sqlite3 $db 'PRAGMA integrity_check')" = ok; done
test "$(sqlite3 db 'SELECT count(*) FROM t')" = 300
test -z "$(dpkg --root=$PWD/root -V thing | grep -v /etc/thing.conf)"
diff -r unpacked/usr root/usr
for d in synced copied untarred; do
	test -z "$(rsync -naicHAX --delete $out/tree/ $d/)"; test -z "$(rsync -naicHAX --delete $d/ $out/tree/)"; done`
)
