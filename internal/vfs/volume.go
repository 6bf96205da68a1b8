package vfs

import "errors"

// ErrNoVolume is returned by Volume where the system cannot sync a whole file
// system, or would not tell that it failed.
var ErrNoVolume = errors.New("this file system cannot be synced as a whole")

// Volumer is a file system that can make everything on it durable at once: files
// and names. OS (on Linux), Mem and Faulty implement it.
type Volumer interface {
	// Volume is the volume that a directory lies on, or ErrNoVolume.
	Volume(dir string) (*Volume, error)
}

// Volume is what a directory lies on, with all else that is there. Safe for
// concurrent use, except Close.
type Volume struct {
	sync  func() error
	close func() error
}

// Sync makes everything durable that was done before. It tells of every failure to
// write since Volume was called; which file that was, the file's own Sync tells.
func (v *Volume) Sync() error { return v.sync() }

// Close ends the use of the volume.
func (v *Volume) Close() error { return v.close() }
