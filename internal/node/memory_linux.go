//go:build linux && !portable

package node

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// unmapProgram unmaps the pages of the program's own file that are mapped: its code and
// constants. A start maps 15 MB of them, most because the kernel maps the neighbours of each
// page that is used. Pages that are used again are mapped again from the page cache. An error
// does no harm, so it is ignored.
func unmapProgram() {
	for _, m := range programMaps() {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED)
	}
}

// addressRange is a range of addresses.
type addressRange struct{ from, to uintptr }

// programMaps are the mapped parts of the program's file that cannot be written. Writable
// parts must stay, since their contents may exist nowhere else.
func programMaps() (maps []addressRange) {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil
	}
	b, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		var m addressRange
		var perms string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &m.from, &m.to, &perms); n < 3 || strings.Contains(perms, "w") {
			continue
		}
		if strings.HasSuffix(strings.TrimSpace(line), exe) {
			maps = append(maps, m)
		}
	}
	return maps
}
