//go:build !linux || portable

package node

import "io/fs"

// memoryLimit would be how much memory the system lets this process have.
func memoryLimit(fs.FS) (limit int64, ok bool) { return 0, false }

// machineMemory would be how much memory the machine has.
func machineMemory(fs.FS) (total int64, ok bool) { return 0, false }
