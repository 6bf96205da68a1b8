package workload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// ErrNoTracer is returned where nothing can count system calls.
var ErrNoTracer = errors.New("neither perf nor strace is there")

// Syscalls counts system calls of the servers during a produce run, with perf, or with
// strace, which slows the server down, so that it finds more to do each time it looks.
// One of them must be installed, and mostly this needs root.
func Syscalls(ctx context.Context, o Options) (*Result, error) {
	if len(o.PIDs) == 0 {
		return nil, errors.New("there is no server process to trace")
	}
	stop, err := traceCalls(ctx, o.PIDs)
	if err != nil {
		return nil, err
	}
	r, err := Produce(ctx, o)
	calls, traceErr := stop()
	if err = errors.Join(err, traceErr); err != nil {
		return nil, err
	}
	r.Kind, r.Syscalls = KindSyscalls, calls
	return r, nil
}

// traceCalls begins to count; stop ends that.
func traceCalls(ctx context.Context, pids []int) (stop func() (int64, error), err error) {
	var list []string
	for _, pid := range pids {
		list = append(list, strconv.Itoa(pid))
	}
	dir, err := os.MkdirTemp("", "leat-bench-")
	if err != nil {
		return nil, err
	}
	out := filepath.Join(dir, "calls")
	name, args, count := "perf", []string{"stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-o", out, "-p", strings.Join(list, ",")}, perfCalls
	if path, err := exec.LookPath(name); err != nil || exec.CommandContext(ctx, path, "stat", "-e", "raw_syscalls:sys_enter", "true").Run() != nil { //nolint:gosec // the program is fixed
		name, args, count = "strace", []string{"-c", "-f", "-q", "-o", out}, straceCalls
		for _, pid := range list {
			args = append(args, "-p", pid)
		}
	}
	if _, err := exec.LookPath(name); err != nil {
		return nil, errors.Join(ErrNoTracer, os.RemoveAll(dir))
	}
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // one of two programs
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	time.Sleep(tracerStart)
	return func() (int64, error) {
		defer os.RemoveAll(dir) //nolint:errcheck // it is temporary
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait() // its exit code is that of the interrupt
		text, err := os.ReadFile(out)
		if err != nil {
			return 0, fmt.Errorf("%s: %w: %s", name, err, said.String())
		}
		n, err := count(string(text))
		if err != nil {
			return 0, fmt.Errorf("%s: %w: %s%s", name, err, text, said.String())
		}
		return n, nil
	}, nil
}

// tracerStart is how long a tracer takes to attach to a process's threads.
const tracerStart = 300 * time.Millisecond

var errNoCount = errors.New("it counted nothing")

// perfCalls reads the output of "perf stat -x ,".
func perfCalls(text string) (int64, error) {
	for line := range strings.Lines(text) {
		fields := strings.Split(line, ",")
		if len(fields) > 2 && strings.HasPrefix(fields[2], "raw_syscalls") {
			return strconv.ParseInt(fields[0], 10, 64)
		}
	}
	return 0, errNoCount
}

// straceCalls reads the last line of the output of "strace -c".
func straceCalls(text string) (int64, error) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) >= 5 && fields[len(fields)-1] == "total" {
			return strconv.ParseInt(fields[3], 10, 64)
		}
	}
	return 0, errNoCount
}
