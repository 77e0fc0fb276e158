// Command bench times s4 and its peers side by side on the same machine, in
// one run, on the same data.
//
// # Words
//
//   - corpus: the made-up tree of files; the same seed gives the same bytes.
//   - history: the snapshots of the corpus, a few files changed between each
//     two, as each tool's own repository; s4 reads borg's.
//   - clustered: another history, of tiny files, in which the changes between
//     two snapshots are all in a few directories.
//   - big, sealed: repositories that hold one large file, plain and encrypted.
//   - tool: a program under measure: s4, borg and, where they are installed,
//     restic and kopia. All that is particular to one is in its [tool].
//   - old: the snapshot most measures look at, one sixth into the history;
//     another: one from its middle.
//   - measure: one figure, such as the seconds from mount to the first list of
//     snapshots. A sample is its value in one run, a result the median.
//   - group: measures that are taken together, and fail together. What goes
//     wrong in one is told at the end; the others are taken all the same.
//   - probe: the bench itself, in a process of its own, that asks s4's packages
//     what the start of a process would hide; see package probe.
//   - target: a bound that the project has set itself for a figure.
//
// # What is warm
//
// Every sample is taken by a fresh process, and on a fresh mount where there is
// one, but for those that say otherwise. Before, each tool has once looked at
// what it is measured on, so s4's index and the peers' own caches are filled,
// and the repositories are in the kernel's page cache as far as memory allows.
// Tools take turns within each group, in an order that rotates with every run.
// A peer that takes its time is measured once.
//
// What is read is compared with what was written: a figure for wrong bytes is
// an error.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/s4-storage/s4/e2e/bench/probe"
	"github.com/s4-storage/s4/e2e/bench/report"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == launchWord {
		var failed *exec.ExitError
		switch err := launch(os.Args[2:]); {
		case errors.As(err, &failed): // it has said why
			os.Exit(max(failed.ExitCode(), 1)) //nolint:forbidigo // this is main
		case err != nil:
			fmt.Fprintln(os.Stderr, "launch:", err)
			os.Exit(1) //nolint:forbidigo // this is main
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1) //nolint:forbidigo // this is main
	}
}

// options are what the command line and the environment choose.
type options struct {
	params
	Runs    int      // samples of each measure
	Only    []string // groups of measures; empty for all that are not optional
	Tools   []string // empty for all that are installed
	Million int      // files of the group of that name
	Many    int      // snapshots of the group of that name
	Growth  []int    // files of the trees of the group of that name
	Writes  int      // files that the light writer of the group replicate writes
	S4      string   // the program under test
	Dir     string   // where data is kept for later runs; "" for a temporary one
	Out     string   // where results.json, results.md and the pictures go
	Docs    string   // whose bench.md gets the results, too; "" for none
	Limit   time.Duration
}

func parse(args []string, stderr io.Writer) (options, error) {
	o := options{params: defaultParams()}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.IntVar(&o.Files, "files", o.Files, "`number` of files in the corpus")
	f.IntVar(&o.Snapshots, "snapshots", o.Snapshots, "`number` of snapshots")
	f.Int64Var(&o.Big, "big", o.Big, "size of the big file in `bytes`")
	f.Uint64Var(&o.Seed, "seed", o.Seed, "of everything random")
	f.IntVar(&o.Runs, "runs", 3, "samples of each measure")
	f.StringVar(&o.S4, "s4", "bin/s4", "the `program` under test")
	f.StringVar(&o.Dir, "dir", "", "`directory` for corpus and repositories, kept for the next run (default: a temporary one)")
	f.StringVar(&o.Out, "out", "bench.out", "`directory` for results.json, results.md and pictures")
	f.StringVar(&o.Docs, "docs", "", "`directory` whose bench.md and bench/ get the results, too")
	f.IntVar(&o.Million, "million", 1_000_000, "`number` of files in the group million, which is taken only when asked for")
	f.IntVar(&o.Many, "many", 300, "`number` of snapshots in the group many, which is taken only when asked for")
	f.DurationVar(&o.Limit, "limit", 20*time.Minute, "for any single step")
	only := f.String("only", "", "comma-separated `groups` of: "+strings.Join(groupNames(), ", ")+"; "+allGroups+" stands for all but "+strings.Join(optionalGroups(), ", "))
	sizes := f.String("growth", "10000,100000,1000000", "comma-separated `numbers` of files in the trees of the group growth, which is taken only when asked for")
	f.IntVar(&o.Writes, "writes", 100, "`number` of files that the light writer of the group replicate writes, one a second")
	tools := f.String("tools", "", "comma-separated `names` of: "+strings.Join(report.Tools, ", "))
	// Each flag has an environment variable, for make bench.
	var bad error
	f.VisitAll(func(g *flag.Flag) {
		if v := os.Getenv("BENCH_" + strings.ToUpper(g.Name)); v != "" {
			if err := f.Set(g.Name, v); err != nil {
				bad = fmt.Errorf("BENCH_%s: %w", strings.ToUpper(g.Name), err)
			}
		}
	})
	if bad != nil {
		return o, bad
	}
	if err := f.Parse(args); err != nil {
		return o, err
	}
	var err error
	if o.Only, err = words(*only, append(groupNames(), allGroups)); err != nil {
		return o, err
	}
	if o.Tools, err = words(*tools, report.Tools); err != nil {
		return o, err
	}
	if o.Growth, err = numbers(*sizes); err != nil {
		return o, fmt.Errorf("growth: %w", err)
	}
	if f.NArg() > 0 || o.Runs < 1 || o.Many < 1 || o.Writes < 1 {
		return o, errors.New("usage: bench [flags]; see -help")
	}
	return o, o.Check()
}

// words splits a comma-separated list of known words.
func words(list string, known []string) ([]string, error) {
	var all []string
	for _, w := range strings.Split(list, ",") {
		switch w = strings.TrimSpace(w); {
		case w == "":
		case !slices.Contains(known, w):
			return nil, fmt.Errorf("unknown %q, not one of %s", w, strings.Join(known, ", "))
		default:
			all = append(all, w)
		}
	}
	return all, nil
}

// numbers splits a comma-separated list of numbers of files.
func numbers(list string) ([]int, error) {
	var all []int
	for _, w := range strings.Split(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(w))
		if err != nil {
			return nil, err
		}
		if n < growthLeast {
			return nil, fmt.Errorf("%d files are fewer than %d", n, growthLeast)
		}
		all = append(all, n)
	}
	return all, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	if len(args) > 0 && args[0] == probe.Word {
		return probe.Run(ctx, args[1:], stdout)
	}
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	b, err := newBench(o, stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	r := b.newReport(ctx)
	err = b.measure(ctx, r)
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	r.Finish()
	if werr := r.Write(o.Out, o.Docs, stdout); werr != nil {
		return errors.Join(err, werr)
	}
	return err
}
