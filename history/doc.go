// Package history joins snapshot sources and the index into one time line:
// names and metadata come from the index alone, bytes from the sources.
//
// # Words
//
//   - time line: the snapshots of all sources, oldest first, each once: what
//     two sources hold with the same [snapshot.Info.ID] is one snapshot.
//
//   - TIME: what a person types for a moment, see [History.Resolve].
//
//   - series: the snapshots of the time line that show one tree as it changed,
//     whichever sources hold them; see [snapshot.Info.Series].
//
//   - trace: what one path was over time in one series.
//
//   - to fill: to read the trees of snapshots that were announced into the
//     index, newest first.
//
//   - local: of a source, on this machine. Reading prefers btrfs snapshots, whose
//     files are opened by path, to archives of the same snapshot.
//
// # Invariants
//
//   - What the index knows can be browsed whatever becomes of the sources.
//   - A directory name (Dir) is the UTC time in [snapshot.DirFormat]; of
//     several in one second the second has the suffix _2, the third _3.
//   - One snapshot is read once, however many callers want it, and from one
//     source only. Where that loses it, another takes its place on the line.
//   - Every goroutine ends before Close returns.
//
// # Archives of s4 in a borg repository
//
// An archive's comment is the message of the person who pushed, and after an
// empty line, as in git, trailers that say what the archive's name and time
// don't: s4-volume, s4-snapshot (the ID) and s4-parent. See [FormatComment].
package history
