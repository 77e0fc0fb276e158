package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// tool is a program under measure: its commands, and where things are in what
// it mounts. Commands are arguments after the program's name.
type tool struct {
	name    string
	program string
	version []string
	reads   string // the tool whose repositories it reads, "" for its own

	init    func(repo string) [][]string
	backup  func(repo string, at time.Time) []string // of the working directory
	mount   func(repo, mountpoint string) []string   // stays in the foreground
	unmount func(mountpoint string) []string         // a whole command; nil for `PROGRAM umount`

	shelf  string                    // pattern below the mountpoint: the directory that lists snapshots
	folder func(at time.Time) string // name of a snapshot in it

	// stream gives the command whose output is the big file, once prepared.
	stream func(ctx context.Context, b *bench, repo string, at time.Time) ([]string, error)
}

// toolNames has the peer that all are compared with in second place.
var toolNames = []string{nameS4, nameBorg, "restic", "kopia"}

const (
	nameS4   = "s4"
	nameBorg = "borg"
)

// findTools gives those that are installed, or wanted.
func findTools(s4 string, wanted []string) ([]*tool, error) {
	var found []*tool
	for _, t := range []*tool{toolS4(), toolBorg(), toolRestic(), toolKopia()} {
		if t.name == nameS4 {
			t.program = s4
		}
		if len(wanted) > 0 && !slices.Contains(wanted, t.name) {
			continue
		}
		path, err := exec.LookPath(t.program)
		if err == nil {
			path, err = filepath.Abs(path)
		}
		switch {
		case err == nil:
			t.program = path
			found = append(found, t)
		case t.name == nameS4 || len(wanted) > 0:
			return nil, fmt.Errorf("%s: %w", t.name, err)
		}
	}
	return found, nil
}

// repository is where the repository of that kind, history or big, is that
// the tool reads.
func (b *bench) repository(t *tool, kind string) string {
	owner := t.name
	if t.reads != "" {
		owner = t.reads
	}
	return filepath.Join(b.dir, "repos", kind+"."+owner)
}

func fusermount(mountpoint string) []string { return []string{"fusermount3", "-u", mountpoint} }

func toolS4() *tool {
	return &tool{
		name: nameS4, program: "s4", version: []string{"version"}, reads: nameBorg,
		mount:  func(repo, mountpoint string) []string { return []string{"mount", "--foreground", repo, mountpoint} },
		shelf:  ".s4/history",
		folder: func(at time.Time) string { return at.Format("2006-01-02T15-04-05Z") },
		stream: func(ctx context.Context, b *bench, repo string, at time.Time) ([]string, error) {
			// cat works in a volume, so make one.
			volume := filepath.Join(b.dir, "volume")
			if _, err := os.Stat(volume); err != nil {
				if _, err := b.run(ctx, b.tool(nameS4), b.dir, "clone", repo, volume); err != nil {
					return nil, err
				}
			}
			return []string{"-C", volume, "cat", at.Format(time.RFC3339) + ":" + bigName}, nil
		},
	}
}

func toolBorg() *tool {
	archive := func(at time.Time) string { return at.Format("2006-01-02T15-04-05") }
	return &tool{
		name: nameBorg, program: "borg", version: []string{"--version"},
		init: func(repo string) [][]string { return [][]string{{"init", "--encryption", "none", repo}} },
		backup: func(repo string, at time.Time) []string {
			return []string{"create", "--compression", "lz4", "--timestamp", at.Format("2006-01-02T15:04:05"), repo + "::" + archive(at), "."}
		},
		mount:   func(repo, mountpoint string) []string { return []string{"mount", "--foreground", repo, mountpoint} },
		unmount: fusermount,
		shelf:   ".",
		folder:  archive,
		stream: func(_ context.Context, _ *bench, repo string, at time.Time) ([]string, error) {
			return []string{"extract", "--stdout", repo + "::" + archive(at), bigName}, nil
		},
	}
}

func toolRestic() *tool {
	return &tool{
		name: "restic", program: "restic", version: []string{"version"},
		init: func(repo string) [][]string { return [][]string{{"init", "--repo", repo}} },
		backup: func(repo string, at time.Time) []string {
			return []string{"backup", "--quiet", "--repo", repo, "--time", at.Format(time.DateTime), "."}
		},
		mount:   func(repo, mountpoint string) []string { return []string{"mount", "--repo", repo, mountpoint} },
		unmount: fusermount,
		shelf:   "snapshots",
		folder:  func(at time.Time) string { return at.Format(time.RFC3339) },
		stream: func(_ context.Context, _ *bench, repo string, _ time.Time) ([]string, error) {
			return []string{"dump", "--repo", repo, "latest", "/" + bigName}, nil
		},
	}
}

func toolKopia() *tool {
	// Each repository has a configuration file of its own, written beside it
	// by the first command.
	config := func(repo string) string { return "--config-file=" + repo + ".config" }
	return &tool{
		name: "kopia", program: "kopia", version: []string{"--version"},
		init: func(repo string) [][]string {
			return [][]string{
				{"repository", "create", "filesystem", config(repo), "--no-check-for-updates", "--cache-directory", repo + ".cache", "--path", repo},
				// It would prune by itself.
				{"policy", "set", config(repo), "--global", "--keep-latest", "100000"},
			}
		},
		backup: func(repo string, at time.Time) []string {
			when := at.Format("2006-01-02 15:04:05 MST")
			return []string{"snapshot", "create", config(repo), "--no-auto-maintenance", "--no-progress",
				"--start-time", when, "--end-time", when, "."}
		},
		mount: func(repo, mountpoint string) []string {
			return []string{"mount", config(repo), "all", mountpoint}
		},
		unmount: fusermount,
		shelf:   "*/*", // user@host, path
		folder:  func(at time.Time) string { return at.Format("20060102-150405") },
		stream: func(ctx context.Context, b *bench, repo string, _ time.Time) ([]string, error) {
			out, err := b.run(ctx, b.tool("kopia"), b.dir, "snapshot", "list", config(repo), "--all", "--json")
			if err != nil {
				return nil, err
			}
			var list []struct {
				RootEntry struct {
					Obj string `json:"obj"`
				} `json:"rootEntry"`
			}
			if err := json.Unmarshal(out, &list); err != nil || len(list) == 0 {
				return nil, fmt.Errorf("kopia's list of snapshots: %q: %w", out, err)
			}
			return []string{"show", config(repo), list[0].RootEntry.Obj + "/" + bigName}, nil
		},
	}
}
