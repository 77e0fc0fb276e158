// Package proc reads what the kernel tells of a running process.
package proc

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Where proc_pid_stat(5) has what a process has spent in user and kernel mode,
// counted behind its name.
const (
	OfItself   = 11 // utime, stime
	OfChildren = 13 // cutime, cstime: of those that it has waited for
)

// CPU gives what a process has spent on the processor.
func CPU(pid, field int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name may hold spaces and brackets.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < field+2 {
		return 0, fmt.Errorf("/proc/%d/stat: too short", pid)
	}
	var ticks int64
	for _, f := range fields[field : field+2] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	const perSecond = 100 // USER_HZ is 100 on all of Linux's usual machines
	return time.Duration(ticks) * time.Second / perSecond, nil
}
