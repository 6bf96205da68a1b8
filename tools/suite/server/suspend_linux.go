package server

import "syscall"

// Suspend makes the program stand still, as one does that is silent without being dead.
func (s *Server) Suspend() error { return s.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume lets a program go on that was suspended.
func (s *Server) Resume() error { return s.cmd.Process.Signal(syscall.SIGCONT) }
