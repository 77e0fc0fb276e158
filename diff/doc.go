// Package diff tells how two trees differ, in words a person can use: two
// snapshots of one index, or a snapshot and the live tree.
//
// # Words
//
//   - change: one path that differs, with [What] differs about it.
//   - rename: a file that is gone at one path and new at another with equal
//     content; looked for among what one comparison found, nowhere else.
//   - to weigh: to count the bytes that a change brings and takes.
//
// # What is compared
//
// Content is equal when the lists of extents are, where both sides name them
// alike. Between sources, which name them each in its own way, size and time
// decide. A live file is known by its ctime or stamp, as package worktree does
// it, and read only where its size does not tell and something touched it.
//
// Left out are the times of directories, which change with any name in them,
// the ctime, the atime, and what two hosts call the same owner.
//
// Changes come in the order of walks: parents before children, names bytewise.
package diff
