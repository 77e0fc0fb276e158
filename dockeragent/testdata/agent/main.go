// Command agent is an agent for tests: all of package dockeragent, with a
// backup that copies a volume's files below its remote, which is a directory.
// It takes the command lines of s4 that the override has.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/s4-storage/s4/dockeragent"
	"github.com/s4-storage/s4/internal/dockerapi"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:forbidigo // this is a main
	}
}

func run(ctx context.Context) error {
	engine, err := dockerapi.New("")
	if err != nil {
		return err
	}
	switch args := strings.Join(os.Args[1:], " "); args {
	case "docker agent run":
	case "docker status --quiet --health":
		project, err := dockeragent.ProjectOf(ctx, engine, dockeragent.Self())
		if err != nil {
			return err
		}
		all, err := dockeragent.Statuses(ctx, engine, project)
		for _, s := range all {
			if complaints := s.Complaints(0, time.Now()); len(complaints) > 0 {
				return errors.New(complaints[0])
			}
		}
		return err
	default:
		return fmt.Errorf("no such use: %s", args)
	}
	a, err := dockeragent.New(ctx, dockeragent.Config{
		Engine: engine, Self: dockeragent.Self(), Dir: dockeragent.AgentDir, Backup: copier{},
		Defaults: dockeragent.Defaults{Remote: os.Getenv("S4_REMOTE")}, Log: slog.Default(),
	})
	if err != nil {
		return err
	}
	return errors.Join(a.Run(ctx), a.Close())
}

type copier struct{}

func (copier) Push(_ context.Context, v dockeragent.Volume) (r dockeragent.Result, err error) {
	to := filepath.Join(v.Remote, v.Name)
	if err := os.RemoveAll(to); err != nil {
		return r, err
	}
	r.Files = 1
	return r, os.CopyFS(to, os.DirFS(v.Path))
}
