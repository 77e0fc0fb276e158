package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/s4-storage/s4/image"
	"github.com/s4-storage/s4/internal/bytesize"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/volume"
)

// InitCmd is `s4 init`.
type InitCmd struct {
	Folder string `arg:"" optional:"" name:"dir" help:"Folder to make a volume (default: here)."`
	Name   string `help:"Name of the volume (default: the folder's)."`
	btrfsFlags
	dockerFlags
	NoBtrfs bool              `name:"no-btrfs" xor:"btrfs" help:"Make a plain volume; the default."`
	Yes     bool              `short:"y" help:"Delete the folder as it was, once its files are on btrfs, without asking."`
	Docker  bool              `help:"Make a docker volume of that name, not a folder: the same as s4 docker create."`
	Label   map[string]string `placeholder:"K=V" help:"Label to keep with the volume; may be repeated."`
}

// Help is the paragraph under --help.
func (InitCmd) Help() string {
	return `Makes the folder a volume: creates .s4/ in it and leaves its files alone. Run again on a volume, it changes nothing. With --btrfs or --size the volume becomes a btrfs subvolume, on an image of its own where the disk is not btrfs: its files are copied there and compared, and then take the folder's place; the folder as it was stays beside it until you say that it may go.

Example: cd photos && s4 init`
}

// Run does it.
func (c *InitCmd) Run(ctx context.Context, a *app) error {
	if c.Docker {
		return c.docker(ctx, a)
	}
	dir := c.Folder
	if dir == "" {
		dir = a.here()
	} else if !filepath.IsAbs(dir) {
		dir = filepath.Join(a.here(), dir)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if c.wanted() {
		if err := c.convert(ctx, a, dir, c.Yes); err != nil {
			return err
		}
	}
	v, existed, err := volume.Init(dir, volume.InitOptions{Name: c.Name, Labels: c.Label}, a.access)
	if err != nil {
		return err
	}
	defer v.Close()
	if a.JSON {
		return a.printJSON(struct {
			Name    string `json:"name"`
			ID      string `json:"id"`
			Root    string `json:"root"`
			Existed bool   `json:"existed"`
		}{v.Name(), v.ID(), v.Shown, existed})
	}
	if a.Quiet {
		return nil
	}
	word := "Initialized empty"
	if existed {
		word = "Reinitialized existing"
	}
	return a.print("%s s4 volume in %s/\n", word, shownName(a.stdout, filepath.Join(v.Shown, volume.Dir)))
}

// docker makes a docker volume.
func (c *InitCmd) docker(ctx context.Context, a *app) error {
	name := c.Name
	switch {
	case c.Folder != "" && name != "" && c.Folder != name:
		return usage("--docker takes one name, not %s and %s", c.Folder, name)
	case c.Folder != "":
		name = c.Folder
	case name == "":
		return usage("--docker needs a name: s4 init --docker NAME")
	}
	create := DockerCreateCmd{dockerFlags: c.dockerFlags, Name: name, Size: c.Size, Limit: c.Limit, Label: c.Label}
	return create.Run(ctx, a)
}

// btrfsFlags are of the verbs that can put a volume on btrfs.
type btrfsFlags struct {
	Size  string `placeholder:"SIZE" help:"Put the volume on a btrfs image of this size, such as 20G, which grows by itself."`
	Btrfs bool   `xor:"btrfs" help:"Put the volume on btrfs: a subvolume where the disk is btrfs, else an image that fits."`
	Limit string `placeholder:"SIZE" help:"Never let the image grow beyond this."`
}

func (f btrfsFlags) wanted() bool { return f.Size != "" || f.Btrfs }

// options reads the sizes.
func (f btrfsFlags) options(a *app) (o image.Options, err error) {
	o = image.Options{Grow: true, Note: a.say, Log: a.log}
	for _, size := range []struct {
		flag, text string
		into       *int64
	}{{"--size", f.Size, &o.Size}, {"--limit", f.Limit, &o.Limit}} {
		if size.text == "" {
			continue
		}
		if *size.into, err = bytesize.Parse(size.text); err != nil {
			return o, usage("%s: %w", size.flag, err)
		}
	}
	if o.Limit > 0 && o.Limit < o.Size {
		return o, usage("--limit is less than --size")
	}
	return o, nil
}

// convert puts the folder dir on btrfs. One that is not there is made.
func (f btrfsFlags) convert(ctx context.Context, a *app, dir string, yes bool) error {
	o, err := f.options(a)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		a.warn("only root can put a volume on btrfs: this one is plain; as root: s4 init --btrfs %s", dir)
		return nil
	}
	if is, err := volume.IsBtrfs(dir); err != nil {
		return err
	} else if is {
		return nil // run again
	}
	if outer, err := volume.Find(filepath.Dir(dir)); err == nil {
		return fmt.Errorf("%w: %s is inside the volume %s", snapshot.ErrRefused, dir, outer)
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if err := f.convert(ctx, a, dir, true); err != nil {
			return errors.Join(err, os.Remove(dir))
		}
		return nil
	}
	c, err := image.Convert(ctx, dir, o)
	if err != nil {
		return err
	}
	if c.Record != nil {
		if err := a.atBoot(ctx, c.Record); err != nil {
			return err
		}
	}
	if c.Original == "" {
		return nil
	}
	if !yes {
		answer, err := a.ask(ctx, fmt.Sprintf("Delete the folder as it was, now at %s? [y/N] ", c.Original))
		if err != nil || answer != "y" && answer != "Y" && answer != "yes" {
			a.say("The folder as it was is at %s; delete it when you have seen that all is well", c.Original)
			return ctx.Err()
		}
	}
	return c.DropOriginal()
}

// ask asks a person at the terminal. Where there is none it is an error.
func (a *app) ask(ctx context.Context, question string) (string, error) {
	ask := a.asker()
	if ask == nil {
		return "", hint.With(errors.New("there is nobody to ask"), "say --yes")
	}
	return askLine(ctx, question)
}
