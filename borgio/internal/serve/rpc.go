// Package serve reads and writes a BorgBackup 1.x repository on another host
// through the "borg serve" that is there: msgpack calls {"i": n, "m": method, "a": {…}} down
// a program's stdin and answers {"i": n, "r": result} from its stdout, in any
// number at once.
//
// # Words
//
// A session is one running "borg serve". A guard is a session that opened the
// repository under the shared lock, which keeps writers out. A reader is one
// that opened it under no lock. A renewal is a guard's short life: it reads the
// manifest, a reader is opened beside it if there is none that knows this
// manifest, and the guard goes.
//
// # Why reading blocks nobody, and is safe
//
// Both sessions have logged in before the guard takes the lock, so it is held
// for a few round trips and the loading of the index, twice; the guard of Open
// stays for openLinger more. Then the reader serves from memory and holds nothing.
//
// In borg 1.1 and 1.2 (repository.py) the server's first get loads the index.
// If it is stale, because a writer died between its commit and its index, or
// damaged, the server writes a new one, and without a lock it would do so under
// the hands of a writer. The guard's get of the manifest comes first: it finds
// a good index or has one written under a lock that it upgrades to an exclusive
// one. While the guard is there no writer can make it stale again, so the
// reader's get of the manifest just loads it.
//
// Nothing loads it again: get does so only while the index in memory is empty,
// and what holds the manifest is not; what drops it are commit, rollback and
// replay, which nobody calls here. From then on get seeks in segment files and
// load_key answers from the configuration read by open; the end of input closes
// nothing but the lock, of which there is none. So a reader never writes.
//
// What a reader knows stays true. Segments are only ever appended to, and the
// number of one that was committed is not used again. One that compaction
// removed is still there for whoever has it open; else the server reports an
// exception (FileNotFoundError, or IntegrityError where it was truncated first),
// as it does for what was added later (ObjectNotFound). After any exception a
// call is made once more on a reader that was opened since, and only what that
// one says is reported. The manifest is the one object that is replaced under
// its id; it is read by guards only.
//
// # Writing
//
// A transaction is a session of its own under the exclusive lock; a server cannot
// give that back but by its end. A client that is kept has the next session log in
// ahead and stand by, without a repository, so that a transaction is not preceded
// by a login and the start of borg, and the lock is held for it alone. Elsewhere it is
// the reader's session, if nobody is reading: a server makes another repository of
// every open, and what that replaces holds no lock (RepositoryServer.open in
// remote.py). The guard of Open, whose lock would be in the way, is ended before.
//
// At most one renewal is under way, one reader in use, and one on its way out
// with calls still to finish, besides sessions that are just exiting.
//
// # When a server does not do its part
//
// A reader that breaks is replaced and its calls are made again: they change
// nothing, so this is always right. So is one that is silent for half of the
// time limit; silent is who does not go on with an answer by a stride of bytes.
// The first time this happens at once, then with back-off, until the calls were
// in vain for the time limit. That counts from when the remote was last well,
// so that it is known to be gone, and calls fail at once, until a renewal
// succeeds again; and for each call by itself, since a server may die of
// one object whenever it is asked for it.
//
// # Writing
//
// A transaction has a session of its own, which opened the repository under the
// exclusive lock; see [Writer]. Its puts are sent without waiting for answers, which
// come in order; putBytes bounds what is on its way. Nothing is sent again: what a
// lost session had put is gone with it, and whether a commit was made whose answer
// was lost is for the caller to find out. A writer's server may be silent for longer
// than a reader's, since it syncs and replays.
//
// # When a server does wrong
//
// An answer nobody asked for, or one that makes no sense, ends its session.
// Whatever a server sends, callers hold no more than heldBytes of answers,
// besides small ones, and each session one of maxFrameSize that is on its way.
package serve

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/fault"
	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// What a server may send in one answer: an object and its framing, or the
// report of an exception, which lists the lines of a traceback. Longer or deeper
// answers, or such of more values, end the connection.
const (
	maxFrameSize   = 20<<20 + 1<<20
	maxFrameDepth  = 32
	maxFrameValues = 1 << 16

	// What is kept of an exception; more makes no better message.
	maxExceptionArgs = 64
	maxExceptionText = 4096
)

// readFrame reads the bytes of one msgpack value from a stream.
func readFrame(r *bufio.Reader, pool *buffer.Pool) (*buffer.Buffer, error) {
	b := pool.Get(4096)
	n := 0
	var owed [maxFrameDepth]uint64 // values still to come, for each open container
	depth, values := 0, 0
	owed[0] = 1
	fail := func(err error) (*buffer.Buffer, error) {
		b.Release()
		return nil, err
	}
	for {
		for depth >= 0 && owed[depth] == 0 {
			depth--
		}
		if depth < 0 {
			b.Data = b.Data[:n]
			return b, nil
		}
		owed[depth]--
		if values++; values > maxFrameValues {
			return fail(fmt.Errorf("answer of more than %d values", maxFrameValues))
		}
		head, err := r.Peek(1) // more may never come
		if err == nil {
			head, err = r.Peek(msgpack.HeaderSize(head[0]))
		}
		if err != nil {
			if n+len(head) > 0 && errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fail(err)
		}
		h, err := msgpack.ParseHeader(head)
		if err != nil {
			return fail(err)
		}
		content := 0
		switch h.Kind {
		case msgpack.Map, msgpack.Array:
			if depth++; depth == maxFrameDepth {
				return fail(errors.New("answer is nested too deep"))
			}
			owed[depth] = h.Count
			if h.Kind == msgpack.Map {
				owed[depth] *= 2
			}
		case msgpack.Raw, msgpack.Ext, msgpack.Float:
			content = int(min(h.Count, maxFrameSize+1))
		}
		if n+h.Size+content > maxFrameSize {
			return fail(fmt.Errorf("answer is longer than %d bytes", maxFrameSize))
		}
		if need := n + h.Size + content; need > len(b.Data) {
			b = pool.Grow(b, n, max(need, min(2*len(b.Data), maxFrameSize)))
		}
		if _, err := io.ReadFull(r, b.Data[n:n+h.Size+content]); err != nil {
			return fail(err)
		}
		n += h.Size + content
	}
}

// reply is a server's answer to one call.
type reply struct {
	call   int64
	result []byte // packed
	err    error  // the server's exception
}

// What the server says of an object, for [errors.Is].
var (
	ErrNoObject  = fmt.Errorf("no such object: %w", fs.ErrNotExist)
	ErrBadObject = fmt.Errorf("%w there", fault.ErrIntegrity)
)

// RemoteError is an exception that the server reports.
type RemoteError struct {
	class string
	args  []string
	text  string
}

func (e *RemoteError) Error() string {
	if e.text != "" {
		return fmt.Sprintf("borg serve: %s: %s", fault.OneLine(e.class), fault.OneLine(e.text))
	}
	return fmt.Sprintf("borg serve: %s %.200q", fault.OneLine(e.class), e.args)
}

// Unwrap gives the sentinel of the exception's class, nil for most.
func (e *RemoteError) Unwrap() error {
	switch e.class {
	case "DoesNotExist", "Repository.DoesNotExist", "InvalidRepository", "InvalidRepositoryConfig":
		return fault.ErrNotRepository
	case "AtticRepository":
		return fault.ErrUnsupported
	case "LockTimeout":
		return fault.ErrLocked
	case "LockFailed", "PathNotAllowed":
		return fs.ErrPermission
	case "ObjectNotFound", "Repository.ObjectNotFound":
		return ErrNoObject
	case "IntegrityError":
		return ErrBadObject
	case "CheckNeeded":
		return fault.ErrIntegrity
	case "AlreadyExists", "PathAlreadyExists":
		return fault.ErrExists
	case "ParentPathDoesNotExist":
		return fs.ErrNotExist
	case "StorageQuotaExceeded":
		return fault.ErrQuota
	case "InsufficientFreeSpaceError":
		return fault.ErrNoSpace
	case "OSError":
		if slices.Contains(e.args, "No space left on device") || slices.Contains(e.args, "Disk quota exceeded") {
			return fault.ErrNoSpace
		}
	}
	return nil
}

// beforeCommit reports whether a server that answers a commit with this has not
// committed: it has looked, but written nothing yet.
func (e *RemoteError) beforeCommit() bool {
	return e.class == "StorageQuotaExceeded" || e.class == "InsufficientFreeSpaceError"
}

// parseReply decodes an answer of Borg 1.1 and later. The result is a part of
// the frame.
func parseReply(frame []byte) (reply, error) {
	rep := reply{call: -1}
	var exc RemoteError
	r := msgpack.NewReader(frame)
	if r.Peek() == msgpack.Array {
		return rep, otherBorg("1.0")
	}
	err := r.Fields(func(field []byte) (err error) {
		switch string(field) {
		case "i":
			rep.call, err = r.Int()
		case "r":
			start := r.Pos()
			err = r.Skip()
			rep.result = frame[start:r.Pos()]
		case "exception_class":
			exc.class, err = exceptionString(r)
		case "exception_args":
			exc.args, err = exceptionArgs(r)
		case "exception_short":
			exc.text, err = exceptionText(r)
		default:
			err = r.Skip()
		}
		return err
	})
	if err != nil {
		return rep, err
	}
	if exc.class != "" {
		rep.err = &exc
	}
	if rep.call < 0 || rep.result == nil && rep.err == nil {
		return rep, errors.New("an answer without id or result")
	}
	return rep, nil
}

// exceptionArgs reads the arguments that are text, the first few of them.
func exceptionArgs(r *msgpack.Reader) ([]string, error) {
	if r.Peek() != msgpack.Array {
		return nil, r.Skip()
	}
	n, err := r.Array()
	if err != nil {
		return nil, err
	}
	var args []string
	for range n {
		if r.Peek() != msgpack.Raw {
			if err := r.Skip(); err != nil {
				return nil, err
			}
			continue
		}
		s, err := exceptionString(r)
		if err != nil {
			return nil, err
		}
		if len(args) < maxExceptionArgs {
			args = append(args, s)
		}
	}
	return args, nil
}

// exceptionText reads a text, or the last of a few lines.
func exceptionText(r *msgpack.Reader) (string, error) {
	if r.Peek() == msgpack.Raw {
		return exceptionString(r)
	}
	lines, err := exceptionArgs(r)
	if err != nil || len(lines) == 0 {
		return "", err
	}
	return lines[len(lines)-1], nil
}

// exceptionString reads the beginning of a text.
func exceptionString(r *msgpack.Reader) (string, error) {
	b, err := r.Bytes()
	return string(b[:min(len(b), maxExceptionText)]), err
}

// arg is one named argument of a call, already packed.
type arg struct {
	name  string
	value []byte
}

// packCall encodes a call in the dialect of Borg 1.1 and later.
func packCall(call int64, method string, args []arg) []byte {
	b := msgpack.AppendMap(make([]byte, 0, 128), 3)
	b = msgpack.AppendInt(msgpack.AppendBytes(b, "i"), call)
	b = msgpack.AppendBytes(msgpack.AppendBytes(b, "m"), method)
	b = msgpack.AppendMap(msgpack.AppendBytes(b, "a"), len(args))
	for _, a := range args {
		b = append(msgpack.AppendBytes(b, a.name), a.value...)
	}
	return b
}
