//go:build !linux

package server

import "errors"

var errLinux = errors.New("a program can be suspended on Linux only")

// Suspend fails: the suite needs Linux.
func (*Server) Suspend() error { return errLinux }

// Resume fails: the suite needs Linux.
func (*Server) Resume() error { return errLinux }
