package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// asker prompts on the terminal, also while stdin or stdout are redirected;
// nil where the process has none.
func (a *app) asker() func(context.Context, string) (string, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil
	}
	tty.Close()
	return askSecret
}

// askSecret gets a line that is not shown while it is typed. However it ends,
// by Ctrl-C too, the terminal shows what is typed from then on.
func askSecret(ctx context.Context, question string) (string, error) {
	return askTerminal(ctx, question, hideTyping)
}

// askLine gets a line as it is typed.
func askLine(ctx context.Context, question string) (string, error) {
	return askTerminal(ctx, question, func(*os.File) (func() error, error) {
		return func() error { return nil }, nil
	})
}

func askTerminal(ctx context.Context, question string, prepare func(*os.File) (restore func() error, err error)) (answer string, err error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer tty.Close()
	restore, err := prepare(tty)
	if err != nil {
		return "", fmt.Errorf("ask on the terminal: %w", err)
	}
	defer func() { err = errors.Join(err, restore()) }()
	stop := context.AfterFunc(ctx, func() {
		_ = tty.SetReadDeadline(time.Unix(1, 0)) // a terminal takes deadlines
	})
	defer stop()
	fmt.Fprint(tty, question)
	answer, err = bufio.NewReader(tty).ReadString('\n')
	fmt.Fprintln(tty)
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case errors.Is(err, io.EOF): // Ctrl-D
		err = errors.New("nothing was typed")
	}
	return strings.TrimSuffix(answer, "\n"), err
}

// hideTyping turns a terminal's echo off; the function that it gives turns it
// on again.
func hideTyping(tty *os.File) (show func() error, err error) {
	conn, err := tty.SyscallConn() // which, unlike Fd, leaves deadlines possible
	if err != nil {
		return nil, err
	}
	set := func(mode *unix.Termios) (err error) {
		cerr := conn.Control(func(fd uintptr) { err = unix.IoctlSetTermios(int(fd), unix.TCSETS, mode) })
		return errors.Join(err, cerr)
	}
	var before *unix.Termios
	cerr := conn.Control(func(fd uintptr) { before, err = unix.IoctlGetTermios(int(fd), unix.TCGETS) })
	if err = errors.Join(err, cerr); err != nil {
		return nil, err
	}
	hidden := *before
	hidden.Lflag &^= unix.ECHO
	hidden.Lflag |= unix.ICANON | unix.ISIG
	hidden.Iflag |= unix.ICRNL
	return func() error { return set(before) }, set(&hidden)
}
