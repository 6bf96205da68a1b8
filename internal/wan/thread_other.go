//go:build !linux

package wan

import "os/exec"

// thread starts commands.
type thread struct{}

func startThread(bool) (*thread, error) { return &thread{}, nil }

func (*thread) start(cmd *exec.Cmd) error { return cmd.Start() }

func (*thread) end() {}
