package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/volume"
)

// LsCmd is `s4 ls`.
type LsCmd struct {
	lookFlags

	When      string `arg:"" name:"time[:path]" help:"Moment and, below the volume's root, a path."`
	Long      bool   `short:"l" help:"Show mode, owner, size and time."`
	Recursive bool   `short:"R" help:"List what is below directories too."`
	nameFlags
}

// Help is the paragraph under --help.
func (LsCmd) Help() string {
	return `Lists what a snapshot holds, from the index alone. TIME is latest, latest~2, a name from .s4/history or its beginning, 2h, 3d, yesterday, a date, before:TIME, after:TIME, an archive's name or id.

Examples:

  s4 ls -l yesterday:photos/2024
  s4 ls -r nas:/backups/repo latest`
}

// Run does it.
func (c *LsCmd) Run(ctx context.Context, a *app) error {
	return a.withMoment(ctx, c.lookFlags, c.When, func(_ *volume.Volume, past *volume.Past, s snapshot.Info, path string) error {
		entries, err := c.list(ctx, past, s, path)
		if err != nil {
			return err
		}
		if a.JSON {
			list := []entryJSON{}
			for _, e := range entries {
				list = append(list, entryToJSON(e.Path, e.Entry))
			}
			return a.printJSON(struct {
				Snapshot snapshotJSON `json:"snapshot"`
				Entries  []entryJSON  `json:"entries"`
			}{toJSON(s), list})
		}
		for _, e := range entries {
			if err := c.printEntry(a, path, e); err != nil {
				return err
			}
		}
		return nil
	})
}

// list is what to show for path: a directory's entries, or the path itself.
func (c *LsCmd) list(ctx context.Context, past *volume.Past, s snapshot.Info, path string) ([]snapshot.Node, error) {
	top, err := find(ctx, past, s, path)
	if err != nil {
		return nil, err
	}
	if top.Mode&unix.S_IFMT != unix.S_IFDIR {
		return []snapshot.Node{{Path: path, Entry: top}}, nil
	}
	var nodes []snapshot.Node
	if c.Recursive {
		for n, err := range past.Walk(ctx, s.Num, path) {
			if err != nil {
				return nil, err
			}
			if n.Path != path {
				nodes = append(nodes, n)
			}
		}
		return nodes, nil
	}
	const page = 1000
	for after := ""; ; {
		entries, err := past.List(ctx, s.Num, top.Dir, after, page)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			full := e.Name
			if path != "" {
				full = path + "/" + e.Name
			}
			nodes = append(nodes, snapshot.Node{Path: full, Entry: e})
		}
		if len(entries) < page {
			return nodes, nil
		}
		after = entries[len(entries)-1].Name
	}
}

func (c *LsCmd) printEntry(a *app, top string, n snapshot.Node) error {
	name := n.Path
	if top != "" && name != top {
		name = strings.TrimPrefix(name, top+"/")
	}
	name, end := c.show(a.stdout, name), c.end()
	if !c.Long {
		return a.print("%s%s", name, end)
	}
	if n.Target != "" {
		name += " -> " + c.show(a.stdout, n.Target)
	}
	bytes := fmt.Sprint(n.Size)
	if f := n.Mode & unix.S_IFMT; f == unix.S_IFCHR || f == unix.S_IFBLK {
		bytes = fmt.Sprintf("%d,%d", unix.Major(n.Rdev), unix.Minor(n.Rdev))
	}
	return a.print("%s %3d %-8s %-8s %12s %s %s%s", modeString(n.Mode), n.Nlink,
		owner(n.User, n.UID), owner(n.Group, n.GID), bytes,
		time.Unix(0, n.Mtime).Local().Format("2006-01-02 15:04:05"), name, end)
}

func owner(name string, id uint32) string {
	if name != "" {
		return name
	}
	return fmt.Sprint(id)
}
