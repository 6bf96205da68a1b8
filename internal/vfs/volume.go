package vfs

import "errors"

// ErrNoVolume is returned by Volume if the system cannot sync a whole file system, or
// would not report that this failed.
var ErrNoVolume = errors.New("this file system cannot be synced as a whole")

// Volumer is a file system that can make all its files and names durable at once. OS (on
// Linux), Mem and Faulty implement it.
type Volumer interface {
	// Volume returns the volume that a directory is on, or ErrNoVolume.
	Volume(dir string) (*Volume, error)
}

// Volume is a whole file system of the operating system, such as a mounted disk. Safe
// for concurrent use, except Close.
type Volume struct {
	sync  func() error
	close func() error
}

// Sync makes all earlier changes durable. It fails if any write to the disk has failed
// since Volume was called. The Sync of the file that was concerned fails, too.
func (v *Volume) Sync() error { return v.sync() }

// Close ends the use of the volume.
func (v *Volume) Close() error { return v.close() }
