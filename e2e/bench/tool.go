package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/s4-storage/s4/e2e/bench/report"
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

	// dump gives the command whose output is one file of a snapshot.
	dump func(ctx context.Context, b *bench, repo string, at time.Time, path string) ([]string, error)
}

const (
	nameS4     = report.S4
	namePlain  = report.Plain
	nameBorg   = report.Borg
	nameRestic = report.Restic
	nameKopia  = report.Kopia
	nameCat    = report.Cat

	nameLoopback = report.Loopback
	nameDisk     = report.Disk
)

// ours tells whether it is s4, on whatever it is measured.
func (t *tool) ours() bool { return t.name == nameS4 || t.name == namePlain }

// findTools gives those that are installed, or wanted, and those that are not
// installed.
func findTools(s4 string, wanted []string) (found, missing []*tool, err error) {
	for _, t := range []*tool{toolS4(), toolPlain(), toolBorg(), toolRestic(), toolKopia(), toolCat(), toolLoopback(), toolDisk()} {
		if t.ours() {
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
		case t.ours() || len(wanted) > 0:
			return nil, nil, fmt.Errorf("%s: %w", t.name, err)
		default:
			missing = append(missing, t)
		}
	}
	return found, missing, nil
}

// repository is where the repository of that kind, such as history or big, is
// that the tool reads.
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
		folder: s4Time,
		dump: func(_ context.Context, _ *bench, repo string, at time.Time, path string) ([]string, error) {
			return []string{"cat", "--repo", repo, s4Time(at) + ":" + path}, nil
		},
	}
}

// toolPlain is s4 where a volume is a plain directory. It has no repositories.
func toolPlain() *tool { return &tool{name: namePlain, program: "s4"} }

// s4Time is a snapshot's directory name, which is a TIME too.
func s4Time(at time.Time) string { return at.Format("2006-01-02T15-04-05Z") }

// borgArchive is the name that borg's archives get here.
func borgArchive(at time.Time) string { return at.Format("2006-01-02T15-04-05") }

func toolBorg() *tool {
	return &tool{
		name: nameBorg, program: "borg", version: []string{"--version"},
		init: func(repo string) [][]string { return [][]string{{"init", "--encryption", "none", repo}} },
		backup: func(repo string, at time.Time) []string {
			return []string{"create", "--compression", "lz4", "--timestamp", at.Format("2006-01-02T15:04:05"), repo + "::" + borgArchive(at), "."}
		},
		mount:   func(repo, mountpoint string) []string { return []string{"mount", "--foreground", repo, mountpoint} },
		unmount: fusermount,
		shelf:   ".",
		folder:  borgArchive,
		dump: func(_ context.Context, _ *bench, repo string, at time.Time, path string) ([]string, error) {
			return []string{"extract", "--stdout", repo + "::" + borgArchive(at), path}, nil
		},
	}
}

func toolRestic() *tool {
	return &tool{
		name: nameRestic, program: "restic", version: []string{"version"},
		init: func(repo string) [][]string { return [][]string{{"init", "--repo", repo}} },
		backup: func(repo string, at time.Time) []string {
			return []string{"backup", "--quiet", "--repo", repo, "--time", at.Format(time.DateTime), "."}
		},
		mount:   func(repo, mountpoint string) []string { return []string{"mount", "--repo", repo, mountpoint} },
		unmount: fusermount,
		shelf:   "snapshots",
		folder:  func(at time.Time) string { return at.Format(time.RFC3339) },
		dump: func(ctx context.Context, b *bench, repo string, at time.Time, path string) ([]string, error) {
			id, err := resticSnapshot(ctx, b, repo, at)
			return []string{"dump", "--repo", repo, id, "/" + path}, err
		},
	}
}

func toolKopia() *tool {
	// Each repository has a configuration file of its own, written beside it
	// by the first command.
	config := func(repo string) string { return "--config-file=" + repo + ".config" }
	return &tool{
		name: nameKopia, program: "kopia", version: []string{"--version"},
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
		dump: func(ctx context.Context, b *bench, repo string, at time.Time, path string) ([]string, error) {
			out, err := b.run(ctx, b.tool(nameKopia), b.dir, "snapshot", "list", config(repo), "--all", "--json")
			if err != nil {
				return nil, err
			}
			var list []struct {
				StartTime time.Time `json:"startTime"`
				RootEntry struct {
					Obj string `json:"obj"`
				} `json:"rootEntry"`
			}
			if err := json.Unmarshal(out, &list); err != nil {
				return nil, fmt.Errorf("kopia's list of snapshots: %q: %w", tail(string(out)), err)
			}
			for _, l := range list {
				if l.StartTime.Equal(at) {
					return []string{"show", config(repo), l.RootEntry.Obj + "/" + path}, nil
				}
			}
			return nil, fmt.Errorf("kopia has no snapshot of %v", at)
		},
	}
}

// resticSnapshot finds the id of the snapshot of that time.
func resticSnapshot(ctx context.Context, b *bench, repo string, at time.Time) (string, error) {
	out, err := b.run(ctx, b.tool(nameRestic), b.dir, "snapshots", "--repo", repo, "--json")
	if err != nil {
		return "", err
	}
	var list []struct {
		ID   string    `json:"id"`
		Time time.Time `json:"time"`
	}
	if err := json.Unmarshal(out, &list); err != nil {
		return "", fmt.Errorf("restic's list of snapshots: %q: %w", tail(string(out)), err)
	}
	for _, l := range list {
		if l.Time.Equal(at) {
			return l.ID, nil
		}
	}
	return "", fmt.Errorf("restic has no snapshot of %v", at)
}

// toolLoopback is built by scripts/bench.sh.
func toolLoopback() *tool { return &tool{name: nameLoopback, program: "bin/loopback"} }

// toolDisk uses a directory as it is.
func toolDisk() *tool { return &tool{name: nameDisk, program: "true"} }

// toolCat is what no backup can be faster than through ssh: cat of the file
// itself. It has no repositories.
func toolCat() *tool {
	return &tool{name: nameCat, program: "ssh", version: []string{"-V"}}
}
