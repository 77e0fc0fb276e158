package main

import (
	"path/filepath"

	"github.com/s4-storage/s4/volume"
)

// InitCmd is `s4 init`.
type InitCmd struct {
	Folder  string            `arg:"" optional:"" name:"dir" help:"Folder to make a volume (default: here)."`
	Name    string            `help:"Name of the volume (default: the folder's)."`
	NoBtrfs bool              `name:"no-btrfs" help:"Make a plain volume; the default."`
	Label   map[string]string `placeholder:"K=V" help:"Label to keep with the volume; may be repeated."`
}

// Help is the paragraph under --help.
func (InitCmd) Help() string {
	return `Makes the folder a volume: creates .s4/ in it and leaves its files alone. Run again on a volume, it changes nothing.

Example: cd photos && s4 init`
}

// Run does it.
func (c *InitCmd) Run(a *app) error {
	dir := c.Folder
	if dir == "" {
		dir = a.here()
	} else if !filepath.IsAbs(dir) {
		dir = filepath.Join(a.here(), dir)
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
