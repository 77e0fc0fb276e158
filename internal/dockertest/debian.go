package dockertest

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Debian makes an image of Debian packages as they are installed on this host,
// with what they depend on and what every Debian has. That takes seconds and no
// network, where debootstrap takes a minute and a mirror. What the packages' own
// scripts would make is not in it, but for users, groups, alternatives and the
// linker's cache. Where the host has not all of them, the test is skipped.
func (e *Engine) Debian(image string, packages ...string) {
	e.tb.Helper()
	installed, err := readInstalled(e.tb.Context())
	if err != nil {
		skip(e.tb, "an image of this host's packages: "+err.Error())
	}
	all, err := installed.closure(packages)
	if err != nil {
		skip(e.tb, "an image of this host's packages: "+err.Error())
	}
	paths, err := filesOf(e.tb.Context(), all)
	if err != nil {
		e.tb.Fatal(err)
	}
	e.importTar(image, func(t *tar.Writer) error { return packDebian(t, paths, all) })
}

// installed are the host's packages, and virtual ones by who provides them.
type installed struct {
	depends  map[string][]string // by name; alternatives are all listed
	provided map[string][]string
	always   []string // what every Debian has
}

// name is what a relation such as "libc6:any (>= 2.36)" is about.
var name = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]*`)

func readInstalled(ctx context.Context) (*installed, error) {
	out, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", `${Package}\t${Essential}\t${Pre-Depends}, ${Depends}\t${Provides}\n`).Output()
	if err != nil {
		return nil, fmt.Errorf("dpkg-query: %w", err)
	}
	in := &installed{depends: map[string][]string{}, provided: map[string][]string{}}
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		in.depends[f[0]] = relations(f[2])
		for _, virtual := range relations(f[3]) {
			in.provided[virtual] = append(in.provided[virtual], f[0])
		}
		if f[1] == "yes" {
			in.always = append(in.always, f[0])
		}
	}
	return in, nil
}

func relations(field string) []string {
	var names []string
	for _, one := range strings.FieldsFunc(field, func(r rune) bool { return r == ',' || r == '|' }) {
		if n := name.FindString(strings.TrimSpace(one)); n != "" {
			names = append(names, n)
		}
	}
	return names
}

// closure are the packages and what they need, of alternatives those that the
// host has.
func (in *installed) closure(packages []string) ([]string, error) {
	for _, p := range packages {
		if _, ok := in.depends[p]; !ok {
			return nil, fmt.Errorf("%s is not installed", p)
		}
	}
	seen := map[string]bool{}
	todo := slices.Concat(in.always, packages)
	var all []string
	for len(todo) > 0 {
		p := todo[0]
		todo = todo[1:]
		if seen[p] {
			continue
		}
		seen[p] = true
		todo = append(todo, in.provided[p]...)
		if depends, ok := in.depends[p]; ok {
			all = append(all, p)
			todo = append(todo, depends...)
		}
	}
	return all, nil
}

// filesOf lists what the packages have, directories before what is in them.
func filesOf(ctx context.Context, packages []string) ([]string, error) {
	out, err := exec.CommandContext(ctx, "dpkg-query", append([]string{"--listfiles"}, packages...)...).Output()
	if err != nil {
		return nil, fmt.Errorf("dpkg-query: %w", err)
	}
	var paths []string
	for line := range strings.Lines(string(out)) {
		p := strings.TrimSuffix(line, "\n")
		if !strings.HasPrefix(p, "/") || p == "/." || unwanted.MatchString(p) {
			continue
		}
		// /bin is a link to /usr/bin, though packages know both.
		dir, err := filepath.EvalSymlinks(filepath.Dir(p))
		if err != nil {
			continue // deleted
		}
		paths = append(paths, filepath.Join(dir, filepath.Base(p)))
		if strings.HasSuffix(p, ".py") { // else Python compiles it at each start
			compiled, err := filepath.Glob(filepath.Join(dir, "__pycache__", strings.TrimSuffix(filepath.Base(p), "py")+"*.pyc"))
			if err != nil {
				return nil, err
			}
			paths = append(paths, compiled...)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths), nil
}

// unwanted are large, and used by no test; PostgreSQL goes without a compiler.
var unwanted = regexp.MustCompile(`^/usr/share/(doc|man|locale|i18n|info|perl)/|/libLLVM|/llvmjit|/libz3\.`)

// madeByScripts are paths that no package has, but a Debian.
var madeByScripts = []string{"/etc/ld.so.cache", "/etc/nsswitch.conf", "/var/run"}

func packDebian(t *tar.Writer, paths, packages []string) error {
	alternatives, err := filepath.Glob("/etc/alternatives/*")
	if err != nil {
		return err
	}
	all := slices.Concat(paths, alternatives, madeByScripts)
	slices.Sort(all)
	for _, p := range slices.Compact(all) {
		if err := packPath(t, p); err != nil {
			return err
		}
	}
	users, err := systemAccounts("/etc/passwd")
	if err != nil {
		return err
	}
	groups, err := systemAccounts("/etc/group")
	if err != nil {
		return err
	}
	status, err := statusOf(packages)
	if err != nil {
		return err
	}
	for path, text := range map[string]string{"etc/passwd": users, "etc/group": groups, "var/lib/dpkg/status": status} {
		if err := t.WriteHeader(&tar.Header{Name: path, Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		if _, err := io.WriteString(t, text); err != nil {
			return err
		}
	}
	return nil
}

// packPath packs a file, directory or link as it is; nothing where it was
// deleted.
func packPath(t *tar.Writer, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	target := ""
	if info.Mode().Type() == fs.ModeSymlink {
		if target, err = os.Readlink(path); err != nil {
			return err
		}
	}
	header, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	header.Name = strings.TrimPrefix(path, "/")
	if err := t.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(t, f)
	return err
}

// systemAccounts are the lines of passwd(5) or group(5) that are not people's.
func systemAccounts(file string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for line := range strings.Lines(string(data)) {
		f := strings.Split(line, ":")
		if len(f) < 4 {
			continue
		}
		if id, err := strconv.Atoi(f[2]); err == nil && (id < 1000 || id >= 65534) {
			b.WriteString(line)
		}
	}
	return b.String(), nil
}

// statusOf is dpkg's own note of these packages, which installers look at.
func statusOf(packages []string) (string, error) {
	data, err := os.ReadFile("/var/lib/dpkg/status")
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for one := range strings.SplitSeq(string(data), "\n\n") {
		first, _, _ := strings.Cut(one, "\n")
		if slices.Contains(packages, strings.TrimPrefix(first, "Package: ")) {
			b.WriteString(one + "\n\n")
		}
	}
	return b.String(), nil
}
