// Package server starts programs that serve Kafka's protocol, or another one, and ends
// them: as a stop does, or as a crash does. A Server is one process, a Cluster several of
// them that are nodes of one cluster. Each belongs to one goroutine.
package server

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/leatstream/leat/internal/bench/client"
)

// ReadyWithin is how long a program may take from its start to its first answer.
const ReadyWithin = time.Minute

// stopWithin is how long a program may take to stop before it is killed.
const stopWithin = 30 * time.Second

// Program is a server that can be started on an empty directory.
type Program struct {
	About string // for the report: the command that is run
	// Prepare is work that must be done before a first start, and is not timed; nil: none.
	Prepare func(ctx context.Context, dir, addr string) error
	Command func(dir, addr string) (name string, args []string)
	// Furnish is work that must be done after a first start, before anything is measured; nil: none.
	Furnish func(ctx context.Context, s *Server) error
	Probe   func(ctx context.Context, addr string) error // nil: asks as a client of Kafka
	Within  time.Duration                                // that it may take from its start to its first answer; 0: ReadyWithin
	// Ensemble is how it runs as a cluster, instead of Prepare and Command; nil: it runs alone.
	Ensemble *Ensemble
}

// Server is a running program.
type Server struct {
	Addr  string
	Dir   string
	Began time.Time // the process's start

	cmd  *exec.Cmd
	log  string
	file *os.File
}

// FreeAddress finds a port of the loopback that is free now.
func FreeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it does not wait
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// Start runs the program in dir and waits until it answers.
func (p *Program) Start(ctx context.Context, dir string) (*Server, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	addr, err := FreeAddress()
	if err != nil {
		return nil, err
	}
	if p.Prepare != nil {
		if err := p.Prepare(ctx, dir, addr); err != nil {
			return nil, err
		}
	}
	s, err := p.Launch(ctx, dir, addr)
	if err != nil || p.Furnish == nil {
		return s, err
	}
	if err := p.Furnish(ctx, s); err != nil {
		return nil, errors.Join(fmt.Errorf("%w; it says: %s", err, s.LastWords()), s.Stop())
	}
	return s, nil
}

// Launch starts the program where it may have run before.
func (p *Program) Launch(ctx context.Context, dir, addr string) (*Server, error) {
	var err error
	s := &Server{Addr: addr, Dir: dir, log: strings.TrimSuffix(dir, "/") + ".log"}
	if s.file, err = os.Create(s.log); err != nil {
		return nil, err
	}
	name, args := p.Command(dir, addr)
	s.cmd = exec.CommandContext(ctx, name, args...) //nolint:gosec // the user of the suite names the programs
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(os.Interrupt) }
	s.cmd.WaitDelay = stopWithin
	s.cmd.Stdout, s.cmd.Stderr = s.file, s.file
	s.Began = time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, errors.Join(err, s.file.Close())
	}
	probe := p.Probe
	if probe == nil {
		probe = askBroker
	}
	for {
		err := probe(ctx, addr)
		if err == nil {
			return s, nil
		}
		if ctx.Err() != nil || time.Since(s.Began) > cmp.Or(p.Within, ReadyWithin) || s.Ended() {
			return nil, errors.Join(fmt.Errorf("it does not answer: %w; it says: %s", err, s.LastWords()), s.Stop())
		}
		time.Sleep(time.Millisecond)
	}
}

// askBroker returns an error unless a broker answers.
func askBroker(ctx context.Context, addr string) error {
	c, err := client.Dial(ctx, addr)
	if err != nil {
		return err
	}
	c.Close()
	return nil
}

// Ended tells whether the process is gone; Stop still has to wait for it.
func (s *Server) Ended() bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.PID()))
	return err != nil || bytes.Contains(b, []byte(") Z "))
}

// PID is the process's id.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Output is all that the program has said since its start.
func (s *Server) Output() ([]byte, error) { return os.ReadFile(s.log) }

// LastWords is the end of the program's output.
func (s *Server) LastWords() string {
	b, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b[max(0, len(b)-2000):]))
}

// Kill ends the program as a crash does.
func (s *Server) Kill() error {
	err := s.cmd.Process.Kill()
	_ = s.cmd.Wait() // it says that it was killed
	return errors.Join(err, s.file.Close())
}

// Stop ends the program, by force where it does not end in time.
func (s *Server) Stop() error {
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	kill := time.AfterFunc(stopWithin, func() { _ = s.cmd.Process.Kill() })
	defer kill.Stop()
	var exit *exec.ExitError
	if err := s.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return errors.Join(err, s.file.Close())
	}
	return s.file.Close()
}
