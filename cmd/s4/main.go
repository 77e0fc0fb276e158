// Command s4 is the Simple Self-hosted Storage System: git for a person's
// data, with a time machine. Each verb has a file of its own that parses,
// calls package volume and prints.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/s4-storage/s4/dockeragent"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/internal/quote"
	"github.com/s4-storage/s4/internal/reach"
	"github.com/s4-storage/s4/snapshot"
)

// CLI is the whole command line.
type CLI struct {
	Globals

	Init      InitCmd      `cmd:"" help:"Make a folder a volume."`
	Remote    RemoteCmd    `cmd:"" help:"Manage the places where the volume is stored."`
	Push      PushCmd      `cmd:"" help:"Store the volume as a snapshot at a remote."`
	Pull      PullCmd      `cmd:"" help:"Bring the volume to a remote's snapshot."`
	Clone     CloneCmd     `cmd:"" help:"Make a volume from a repository."`
	Replicate ReplicateCmd `cmd:"" help:"Push whenever the volume changes."`
	Sync      SyncCmd      `cmd:"" help:"Pull whenever a remote has news."`
	Snapshot  SnapshotCmd  `cmd:"" help:"Keep the volume as it is now, on this host."`
	Ready     ReadyCmd     `cmd:"" help:"Tell whether the last good push or sync is young enough."`
	Status    StatusCmd    `cmd:"" help:"Show what is unpushed, and each remote."`
	Log       LogCmd       `cmd:"" help:"List the snapshots on one time line."`
	Ls        LsCmd        `cmd:"" help:"List a directory as it was."`
	Cat       CatCmd       `cmd:"" help:"Print a file as it was."`
	Find      FindCmd      `cmd:"" help:"Find paths by name over all of time."`
	Du        DuCmd        `cmd:"" help:"Show which snapshots and directories added how much."`
	Diff      DiffCmd      `cmd:"" help:"Show how two moments differ, or a moment and the live files."`
	Restore   RestoreCmd   `cmd:"" help:"Bring paths back from a snapshot."`
	Prune     PruneCmd     `cmd:"" help:"Remove old snapshots from a remote by rules."`
	Mount     MountCmd     `cmd:"" help:"Show live files and history, or any borg repository, as a file system."`
	Umount    UmountCmd    `cmd:"" help:"End a mount, also one that has lost its process."`
	Import    ImportCmd    `cmd:"" help:"Make a folder with files a volume on btrfs."`
	Resize    ResizeCmd    `cmd:"" help:"Change the size of a volume that has an image."`
	Attach    AttachCmd    `cmd:"" help:"Mount volumes that have an image, as at boot."`
	Detach    DetachCmd    `cmd:"" help:"Unmount a volume that has an image."`
	Config    ConfigCmd    `cmd:"" help:"Read and write settings."`
	Docker    DockerCmd    `cmd:"" help:"Back up docker volumes, and serve them."`
	LoadKey   LoadKeyCmd   `cmd:"" name:"loadkey" help:"Give s4 an ssh key of its own for remotes."`
	Target    TargetCmd    `cmd:"" help:"Manage this host as a place for volumes."`
	Version   VersionCmd   `cmd:"" help:"Show the version."`
}

// Globals are the options every command has.
type Globals struct {
	Dir      string `short:"C" placeholder:"DIR" help:"Work as if started in DIR."`
	JSON     bool   `name:"json" help:"Print the result as one JSON document."`
	Quiet    bool   `short:"q" help:"Print nothing but results and errors."`
	Verbose  int    `short:"v" type:"counter" help:"Log more (-vv: all) to stderr; S4_LOG sets a level too."`
	Progress *bool  `negatable:"" help:"Show progress; by default on a terminal only."`
}

// app is what the verbs work with.
type app struct {
	*Globals
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	log    *slog.Logger
	access *reach.Access
	after  int // arguments after --; -1 without one
}

func main() {
	if args, ok, err := mountHelper(os.Args); ok {
		if err != nil {
			printError(os.Stderr, err)
			os.Exit(exitCode(err))
		}
		homeForHelper()
		os.Args = append(os.Args[:1:1], args...) // which a daemon is started with, too
	}
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program but for exiting.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends us at once
	err := runContext(ctx, args, stdin, stdout, stderr)
	if err == nil {
		return exitDone
	}
	if errors.Is(err, errDiffers) || reportStart(err) {
		return exitCode(err)
	}
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		fmt.Fprintln(stderr, "s4: interrupted")
		return exitInterrupted
	}
	printError(stderr, err)
	return exitCode(err)
}

// exited carries the exit code with which kong ended a run, as after --help.
type exited int

func runContext(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) (err error) {
	var cli CLI
	parser, err := kong.New(&cli,
		kong.Name("s4"),
		kong.Description("The Simple Self-hosted Storage System: git for your data, with a time machine."),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { panic(exited(code)) }),
		kong.ValueFormatter(kong.DefaultHelpValueFormatter),
		kong.Vars{"agentDir": dockeragent.AgentDir, "agentImage": dockeragent.AgentImage},
	)
	if err != nil {
		return err
	}
	defer func() {
		if r := recover(); r != nil {
			code, ok := r.(exited)
			if !ok {
				panic(r)
			}
			if code != 0 {
				err = snapshot.ErrUsage
			}
		}
	}()
	switch {
	case len(args) == 0 || len(args) == 1 && args[0] == "help":
		args = []string{"--help"}
	case len(args) == 1 && args[0] == "--version":
		args = []string{"version"}
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		return hint.With(fmt.Errorf("%w: %w", snapshot.ErrUsage, err), "see: s4 --help")
	}
	a := &app{Globals: &cli.Globals, stdin: stdin, stdout: stdout, stderr: stderr, log: newLogger(stderr, cli.Verbose), after: -1}
	if at := slices.Index(args, "--"); at >= 0 {
		a.after = len(args) - at - 1
	}
	if a.access, err = reach.NewAccess(a.log, a.asker()); err != nil {
		return err
	}
	parsed.BindTo(ctx, (*context.Context)(nil))
	return parsed.Run(a)
}

func newLogger(w io.Writer, verbose int) *slog.Logger {
	level := slog.LevelWarn
	if text := os.Getenv("S4_LOG"); text != "" {
		// An unknown level leaves the default.
		_ = level.UnmarshalText([]byte(text))
	}
	switch {
	case verbose == 1:
		level = min(level, slog.LevelInfo)
	case verbose > 1:
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

func printError(w io.Writer, err error) {
	fmt.Fprintf(w, "s4: %s\n", quote.Text(errorText(err)))
	if h := hint.Of(err); h != "" {
		fmt.Fprintf(w, "hint: %s\n", quote.Text(h))
	}
}

// errorText is err on one line. Kinds whose name the text explains anyway
// need not stand before it.
func errorText(err error) string {
	text := strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
	for _, kind := range []error{snapshot.ErrUsage, snapshot.ErrRefused, snapshot.ErrLocked} {
		text = strings.TrimPrefix(text, kind.Error()+": ")
	}
	// So say the kinds' names at the end, after what is meant.
	return strings.TrimSuffix(text, ": "+fs.ErrNotExist.Error())
}
