package borgio

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
)

// Location says where a repository is, and which archive of it is meant.
type Location struct {
	User    string // "" leaves it to ssh
	Host    string // "" means this machine; an IPv6 address stands without brackets
	Port    int    // 0 leaves it to ssh
	Path    string // absolute when local; remote: as the server resolves it
	Archive string // "" when none was named
}

// ParseLocation reads a repository's place in any of the forms that borg
// accepts: user@host:path, host:path, ssh://user@host:port/path,
// file:///path, or a local path, each with an optional ::ARCHIVE. A local
// path is made absolute.
func ParseLocation(s string) (Location, error) {
	l, err := parseLocation(s)
	if err != nil {
		return Location{}, fmt.Errorf("parse location %q: %w", s, err)
	}
	return l, nil
}

func parseLocation(s string) (l Location, err error) {
	if strings.ContainsAny(s, "\x00\n") {
		return l, errors.New("line break or NUL in it")
	}
	if rest, ok := strings.CutPrefix(s, "ssh://"); ok {
		slash := strings.IndexByte(rest, '/')
		if slash < 0 {
			return l, errors.New("no path")
		}
		if err := l.setAuthority(rest[:slash]); err != nil {
			return l, err
		}
		return l, l.setPath(rest[slash:])
	}
	if rest, ok := strings.CutPrefix(s, "file://"); ok {
		if !strings.HasPrefix(rest, "/") {
			return l, errors.New("path is not absolute")
		}
		s = rest
	} else if scheme, _, ok := strings.Cut(s, "://"); ok && !strings.Contains(scheme, "/") {
		return l, fmt.Errorf("unknown scheme %q", scheme)
	} else if host, path, ok := cutSCP(s); ok {
		l.User, l.Host = cutUser(host)
		l.Host = strings.Trim(l.Host, "[]")
		if err := l.checkHost(); err != nil {
			return l, err
		}
		return l, l.setPath(path)
	}
	if err := l.setPath(s); err != nil {
		return l, err
	}
	l.Path, err = filepath.Abs(l.Path)
	return l, err
}

// cutSCP splits host:path. As for scp, what has a slash before the first colon
// is a local path, and so is NAME::ARCHIVE.
func cutSCP(s string) (host, path string, ok bool) {
	from := 0
	if _, h := cutUser(s); strings.HasPrefix(h, "[") {
		from = max(strings.IndexByte(s, ']'), 0)
	}
	i := strings.IndexByte(s[from:], ':') + from
	if i <= from-1 || i == 0 || strings.Contains(s[:i], "/") || strings.HasPrefix(s[i:], "::") {
		return "", "", false
	}
	return s[:i], s[i+1:], true
}

func cutUser(s string) (user, host string) {
	if i := strings.IndexByte(s, '@'); i >= 0 && !strings.ContainsAny(s[:i], "/:") {
		return s[:i], s[i+1:]
	}
	return "", s
}

func (l *Location) setAuthority(s string) error {
	l.User, s = cutUser(s)
	host, port, err := net.SplitHostPort(s)
	if err != nil { // no port
		host, port = strings.Trim(s, "[]"), ""
	}
	l.Host = host
	if port != "" {
		if l.Port, err = strconv.Atoi(port); err != nil || l.Port < 1 || l.Port > 65535 {
			return fmt.Errorf("port %q", port)
		}
	}
	return l.checkHost()
}

// checkHost keeps a host from being taken for an option of ssh, or for a user
// and a host.
func (l *Location) checkHost() error {
	for _, s := range []string{l.Host, l.User} {
		if strings.HasPrefix(s, "-") || strings.ContainsAny(s, " \t@/[]") {
			return fmt.Errorf("host %q", s)
		}
	}
	if l.Host == "" || strings.Contains(l.User, ":") {
		return fmt.Errorf("host %q", l.Host)
	}
	return nil
}

func (l *Location) setPath(s string) error {
	l.Path = s
	if i := strings.Index(s, "::"); i >= 0 {
		l.Path, l.Archive = s[:i], s[i+2:]
		if l.Archive == "" || strings.Contains(l.Archive, "/") {
			return fmt.Errorf("archive name %q", l.Archive)
		}
	}
	if l.Path == "" {
		return errors.New("no path")
	}
	return nil
}

// IsRemote reports whether the repository is reached through ssh.
func (l Location) IsRemote() bool { return l.Host != "" }

// String gives the repository's place, without the archive, in a form that
// borg itself accepts and that [ParseLocation] reads back.
func (l Location) String() string {
	if !l.IsRemote() {
		return l.Path
	}
	host := l.Host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if l.User != "" {
		host = l.User + "@" + host
	}
	if !strings.HasPrefix(l.Path, "/") {
		if l.Port == 0 {
			return host + ":" + l.Path
		}
		return fmt.Sprintf("ssh://%s:%d/./%s", host, l.Port, l.Path)
	}
	if l.Port != 0 {
		host += ":" + strconv.Itoa(l.Port)
	}
	return "ssh://" + host + l.Path
}

// canonical is the form in which borg notes a repository's place.
func (l Location) canonical() string {
	if !l.IsRemote() {
		return l.Path
	}
	if !strings.HasPrefix(l.Path, "/") {
		if strings.HasPrefix(l.Path, "~") {
			l.Path = "/" + l.Path
		} else {
			l.Path = "/./" + l.Path
		}
	}
	return l.String()
}
