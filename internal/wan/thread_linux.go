package wan

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// thread is a thread of the operating system that does what it is given, one thing after the other. It may have a network namespace of its own, which
// has no name and so ends by itself with the last thread, process or file that uses it.
//
// A process that is started by it is killed when the thread ends, which also is when this process ends in any way: Linux binds Pdeathsig to the thread.
type thread struct {
	work      chan func()
	stop      chan struct{} // closed by end
	ended     chan struct{}
	namespace *os.File // the network namespace; nil: that of the process
	home      *os.File // the network namespace of the process

	mu    sync.Mutex
	users int // guarded by mu; of the files, which are closed by the last one: the thread itself, and visits
}

// startThread starts a thread, with a network namespace of its own if isApart.
func startThread(isApart bool) (*thread, error) {
	t := &thread{work: make(chan func()), stop: make(chan struct{}), ended: make(chan struct{}), users: 1}
	started := make(chan error)
	go func() {
		defer close(t.ended)
		runtime.LockOSThread() // until the goroutine ends, and the thread with it
		err := t.prepare(isApart)
		started <- err
		if err != nil {
			return
		}
		t.workUntilStopped()
		if t.namespace != nil {
			_ = unix.Setns(int(t.home.Fd()), unix.CLONE_NEWNET) // the first thread of a process never ends, and would keep the namespace
		}
	}()
	if err := <-started; err != nil {
		t.releaseFiles()
		return nil, err
	}
	return t, nil
}

// prepare gives the thread that calls it its namespace.
func (t *thread) prepare(isApart bool) (err error) {
	if !isApart {
		return nil
	}
	const own = "/proc/thread-self/ns/net"
	if t.home, err = os.Open(own); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("a network namespace: %w", err)
	}
	t.namespace, err = os.Open(own)
	return err
}

func (t *thread) workUntilStopped() {
	for {
		select {
		case f := <-t.work:
			f()
		case <-t.stop:
			return
		}
	}
}

// do has the thread call a function, and waits for it. The function must not wait for long. A thread that has ended returns net.ErrClosed.
func (t *thread) do(f func() error) error {
	done := make(chan error)
	select {
	case t.work <- func() { done <- f() }:
		return <-done
	case <-t.ended:
		return net.ErrClosed
	}
}

// visit calls a function in the thread's namespace by another thread, and waits for it. Sockets that the function makes are in that namespace. A thread that has ended returns net.ErrClosed.
func (t *thread) visit(f func() error) error {
	if !t.useFiles() {
		return net.ErrClosed
	}
	defer t.releaseFiles()
	if t.namespace == nil {
		return f()
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Setns(int(t.namespace.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			err = f()
		}
		if unix.Setns(int(t.home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread() // else the thread ends with the goroutine
		}
		done <- err
	}()
	return <-done
}

// start starts a command by the thread.
func (t *thread) start(cmd *exec.Cmd) error {
	attr := syscall.SysProcAttr{}
	if cmd.SysProcAttr != nil {
		attr = *cmd.SysProcAttr
	}
	attr.Pdeathsig = syscall.SIGKILL
	cmd.SysProcAttr = &attr
	return t.do(cmd.Start)
}

// end ends the thread, and waits for it.
func (t *thread) end() {
	close(t.stop)
	<-t.ended
	t.releaseFiles()
}

// useFiles has the files stay open until releaseFiles; false: they are closed.
func (t *thread) useFiles() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.users == 0 {
		return false
	}
	t.users++
	return true
}

func (t *thread) releaseFiles() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.users--; t.users > 0 {
		return
	}
	for _, f := range []*os.File{t.namespace, t.home} {
		if f != nil {
			_ = f.Close() // nothing was written
		}
	}
}
