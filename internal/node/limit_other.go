//go:build !linux || portable

package node

import "io/fs"

// memoryLimit knows no limit on this system.
func memoryLimit(fs.FS) (limit int64, ok bool) { return 0, false }

// machineMemory does not know the size on this system.
func machineMemory(fs.FS) (total int64, ok bool) { return 0, false }
