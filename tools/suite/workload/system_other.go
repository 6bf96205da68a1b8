//go:build !linux

package workload

import "errors"

var errLinux = errors.New("files can be dropped from memory on Linux only")

// SyncDisks does nothing: the suite needs Linux.
func SyncDisks() {}

// TouchMemory does nothing.
func TouchMemory(int64) {}

func dropFiles([]string) error { return errLinux }

func readAll(string) (int64, error) { return 0, errLinux }
