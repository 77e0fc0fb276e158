package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/reach"
	"github.com/s4-storage/s4/snapshot"
)

// Encryptions are borg's modes by the names `borg init --encryption` takes.
var Encryptions = []string{"none", "repokey", "keyfile", "repokey-blake2", "keyfile-blake2", "authenticated", "authenticated-blake2"}

// Remote is a named place where the volume's repository lives.
type Remote struct {
	Name       string `json:"name"`
	URL        string `json:"url"`        // of the place, as it was given
	Encryption string `json:"encryption"` // for the repository when s4 makes it
	Default    bool   `json:"default"`
}

var remoteName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

// legacyRemotes is where the first s4 kept its remotes: [remotes] NAME = URL.
const legacyRemotes = "remotes."

// setting reads a key that this host may have of its own.
func (v *Volume) setting(key string) (string, bool) {
	if value, ok := v.local.Get(key); ok {
		return value, true
	}
	return v.Config.Get(key)
}

// Remotes lists the remotes, the default one first.
func (v *Volume) Remotes() []Remote {
	names := append(v.Config.Subsections("remote"), v.local.Subsections("remote")...)
	for key := range v.Config.All() {
		if name, ok := strings.CutPrefix(key, legacyRemotes); ok {
			names = append(names, name)
		}
	}
	def := v.defaultRemote(names)
	var remotes []Remote
	for _, name := range names {
		if slices.ContainsFunc(remotes, func(r Remote) bool { return r.Name == name }) {
			continue
		}
		r := Remote{Name: name, Default: name == def}
		var ok bool
		if r.URL, ok = v.setting("remote." + name + ".url"); !ok {
			r.URL, _ = v.Config.Get(legacyRemotes + name)
		}
		if r.URL == "" {
			continue
		}
		if r.Encryption, ok = v.setting("remote." + name + ".encryption"); !ok {
			r.Encryption = v.defaultEncryption()
		}
		remotes = append(remotes, r)
	}
	slices.SortStableFunc(remotes, func(a, b Remote) int {
		if a.Default != b.Default {
			if a.Default {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
	return remotes
}

func (v *Volume) defaultRemote(names []string) string {
	if name, ok := v.setting(keyDefaultRemote); ok && slices.Contains(names, name) {
		return name
	}
	if slices.Contains(names, "origin") || len(names) == 0 {
		return "origin"
	}
	return names[0]
}

// Remote finds a remote by name, or the default one for "".
// Errors: fs.ErrNotExist.
func (v *Volume) Remote(name string) (Remote, error) {
	remotes := v.Remotes()
	for _, r := range remotes {
		if r.Name == name || name == "" && r.Default {
			return r, nil
		}
	}
	if len(remotes) == 0 {
		return Remote{}, hint.With(fmt.Errorf("the volume has no remote: %w", fs.ErrNotExist),
			"add one with: s4 remote add origin URL")
	}
	return Remote{}, hint.With(fmt.Errorf("no remote is named %q: %w", name, fs.ErrNotExist), "see: s4 remote list")
}

func (v *Volume) defaultEncryption() string {
	if v.access.HasPassphrase() {
		return "repokey-blake2"
	}
	return "none"
}

// AddRemote records a remote without connecting to it. encryption "" chooses
// repokey-blake2 where a passphrase is to be had without asking, else none.
func (v *Volume) AddRemote(name, url, encryption string) (Remote, error) {
	if !remoteName.MatchString(name) {
		return Remote{}, fmt.Errorf("%w: %q cannot be a remote's name", snapshot.ErrUsage, name)
	}
	if _, err := v.Remote(name); err == nil {
		return Remote{}, hint.With(fmt.Errorf("%w: remote %q is there already", snapshot.ErrRefused, name),
			"change it with: s4 remote set-url "+name+" URL")
	}
	if encryption == "" {
		encryption = v.defaultEncryption()
	}
	if !slices.Contains(Encryptions, encryption) {
		return Remote{}, hint.With(fmt.Errorf("%w: no encryption is called %q", snapshot.ErrUsage, encryption),
			"one of: "+strings.Join(Encryptions, ", "))
	}
	url, err := canonicalURL(url)
	if err != nil {
		return Remote{}, err
	}
	first := len(v.Remotes()) == 0
	err = errors.Join(v.Config.Set("remote."+name+".url", url), v.Config.Set("remote."+name+".encryption", encryption))
	if first || name == "origin" {
		err = errors.Join(err, v.Config.Set(keyDefaultRemote, name))
	}
	if err == nil {
		err = v.Config.Save()
	}
	if err != nil {
		return Remote{}, err
	}
	return v.Remote(name)
}

// canonicalURL makes a local path absolute and refuses what is no place.
func canonicalURL(url string) (string, error) {
	loc, err := reach.ParseLocation(url)
	if err != nil {
		return "", err
	}
	if loc.Archive != "" {
		return "", fmt.Errorf("%w: %s names an archive, not a place for volumes", snapshot.ErrUsage, url)
	}
	if loc.IsRemote() {
		return url, nil // as the person wrote it: ssh's own configuration decides what it means
	}
	return filepath.Abs(loc.Path)
}

// RemoveRemote forgets a remote; its repository stays where it is.
func (v *Volume) RemoveRemote(ctx context.Context, name string) error {
	r, err := v.Remote(name)
	if err != nil || name == "" {
		return err
	}
	if err := v.forget(ctx, r); err != nil {
		return err
	}
	return v.dropRemote(name)
}

// dropRemote takes a remote out of the configuration.
func (v *Volume) dropRemote(name string) error {
	for _, f := range v.files() {
		f.RemoveSubsection("remote", name)
	}
	if _, legacy := v.Config.Get(legacyRemotes + name); legacy {
		if err := v.Config.Unset(legacyRemotes + name); err != nil {
			return err
		}
	}
	if def, ok := v.Config.Get(keyDefaultRemote); ok && def == name {
		if err := v.Config.Unset(keyDefaultRemote); err != nil {
			return err
		}
	}
	return v.saveConfig()
}

// forget drops what is remembered of a remote's repository, so that its
// snapshots leave the time line.
func (v *Volume) forget(ctx context.Context, r Remote) error {
	place, err := reach.ParseLocation(r.URL)
	if err != nil {
		return err
	}
	id, _, ok := v.state.at(v.ownLocation(place).String(), place.String())
	if !ok {
		return nil
	}
	if err := v.acquire(ctx); err != nil {
		return err
	}
	defer v.unlock()
	delete(v.state.Repositories, id)
	return v.state.save()
}

// RenameRemote gives a remote another name.
func (v *Volume) RenameRemote(from, to string) error {
	r, err := v.Remote(from)
	if err != nil {
		return err
	}
	if _, err := v.AddRemote(to, r.URL, r.Encryption); err != nil {
		return err
	}
	if err := v.dropRemote(r.Name); err != nil {
		return err
	}
	if r.Default {
		if err := v.Config.Set(keyDefaultRemote, to); err != nil {
			return err
		}
		return v.Config.Save()
	}
	return nil
}

// SetRemoteURL moves a remote; what is set for this host alone gives way.
func (v *Volume) SetRemoteURL(name, url string) error {
	r, err := v.Remote(name)
	if err != nil {
		return err
	}
	if url, err = canonicalURL(url); err != nil {
		return err
	}
	v.local.RemoveSubsection("remote", r.Name)
	if err := v.Config.Set("remote."+r.Name+".url", url); err != nil {
		return err
	}
	return v.saveConfig()
}

// repository is a repository that a remote led to.
type repository struct {
	*borgio.Repository
	Location borgio.Location
	Adopted  bool // the place itself is the repository
}

// reach opens the repository of a remote: PLACE/NAME, or PLACE where that is
// a repository itself. Where there is none, or one that was begun and never finished,
// the error wraps borgio.ErrNotRepository and the location tells where one would be
// made.
func (v *Volume) reach(ctx context.Context, r Remote) (*repository, error) {
	place, err := reach.ParseLocation(r.URL)
	if err != nil {
		return nil, err
	}
	own := v.ownLocation(place)
	repo, err := v.access.Open(ctx, own)
	if err == nil {
		return &repository{Repository: repo, Location: own}, nil
	}
	if !errors.Is(err, borgio.ErrNotRepository) {
		return nil, err
	}
	if repo, errPlace := v.access.Open(ctx, place); errPlace == nil {
		return &repository{Repository: repo, Location: place, Adopted: true}, nil
	} else if errors.Is(errPlace, borgio.ErrUnfinished) {
		return &repository{Location: place, Adopted: true}, errPlace
	} else if errors.Is(errPlace, snapshot.ErrUnreachable) || errors.Is(errPlace, snapshot.ErrKey) || ctx.Err() != nil {
		return nil, errPlace
	}
	return &repository{Location: own}, err
}

// ownLocation is where the volume's repository is at a place for volumes.
func (v *Volume) ownLocation(place borgio.Location) borgio.Location {
	place.Path = path.Join(place.Path, v.Name())
	return place
}
