package main

import (
	"context"
	"path"
	"path/filepath"
	"strings"

	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/reach"
	"github.com/s4-storage/s4/volume"
	"github.com/s4-storage/s4/worktree"
)

// CloneCmd is `s4 clone`.
type CloneCmd struct {
	URL    string `arg:"" name:"url" help:"A repository, with ::ARCHIVE for one archive of it."`
	Folder string `arg:"" optional:"" name:"dir" help:"Where to (default: the repository's name)."`
	Name   string `help:"Name of the volume (default: the one it has)."`
	At     string `placeholder:"TIME" help:"Snapshot to take (default: the newest)."`
	Docker bool   `help:"Make a docker volume, called dir or as the repository is; it is replicated from then on."`
	btrfsFlags
	dockerFlags
}

// Help is the paragraph under --help.
func (CloneCmd) Help() string {
	return `Makes a volume from a repository, whether s4 or borg made it, with the repository as its remote. An interrupted clone is carried on by the same command.

Example: s4 clone s4@nas:/volumes/photos`
}

// Run does it.
func (c *CloneCmd) Run(ctx context.Context, a *app) error {
	if c.Docker {
		return c.docker(ctx, a)
	}
	dir := c.Folder
	if dir == "" {
		loc, err := reach.ParseLocation(c.URL)
		if err != nil {
			return err
		}
		dir = strings.TrimSuffix(filepath.Base(loc.Path), ".borg")
	}
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(a.here(), dir)
	}
	if c.wanted() {
		if err := c.convert(ctx, a, dir, true); err != nil {
			return err
		}
	}
	report, done := a.reporter()
	r, err := volume.Clone(ctx, volume.CloneOptions{URL: c.URL, Dir: dir, Name: c.Name, At: c.At, Report: report}, a.access)
	done()
	if err != nil {
		return err
	}
	if a.JSON {
		return a.printJSON(struct {
			Root     string           `json:"root"`
			Name     string           `json:"name"`
			ID       string           `json:"id"`
			Snapshot snapshotJSON     `json:"snapshot"`
			Changes  *worktree.Result `json:"changes,omitempty"`
		}{r.Root, r.Name, r.ID, toJSON(r.Snapshot), r.Changes})
	}
	if r.Changes != nil {
		a.say("At %s: %s", r.Snapshot.Time.Local().Format("2006-01-02 15:04:05"), summary(r.Changes))
	}
	return nil
}

// docker makes a docker volume that is filled from the repository.
func (c *CloneCmd) docker(ctx context.Context, a *app) error {
	loc, err := reach.ParseLocation(c.URL)
	if err != nil {
		return err
	}
	if loc.Archive != "" {
		return hint.With(usage("--docker takes a repository, not an archive of it"), "choose the snapshot with --at TIME")
	}
	if !loc.IsRemote() { // the driver runs somewhere else
		if !filepath.IsAbs(loc.Path) {
			loc.Path = filepath.Join(a.here(), loc.Path)
		}
		if loc.Path, err = filepath.Abs(loc.Path); err != nil {
			return err
		}
	}
	repository := path.Base(loc.Path)
	create := DockerCreateCmd{dockerFlags: c.dockerFlags, Name: c.Folder, Size: c.Size, Limit: c.Limit, From: c.At}
	if create.Name == "" {
		create.Name = strings.TrimSuffix(repository, ".borg")
	}
	if c.Name != "" && c.Name != repository {
		return usage("--name: a docker volume's repository is called as its s4 volume")
	}
	create.Option = map[string]string{}
	if repository != create.Name {
		create.Option["name"] = repository
	}
	loc.Path = path.Dir(loc.Path)
	create.Remote = loc.String()
	create.wantsContent = true
	return create.Run(ctx, a)
}
