//go:build linux && !portable

package node

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUnmapProgram proves that unused pages of the program's file leave the process, and that
// the program goes on.
func TestUnmapProgram(t *testing.T) {
	resident := func() (n int64) {
		b, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(line, "RssFile:"); ok {
				for _, d := range strings.Fields(rest)[0] {
					n = n*10 + int64(d-'0')
				}
			}
		}
		return n
	}
	// The whole program is mapped, as after a start that has used much of it.
	maps := programMaps()
	if len(maps) == 0 {
		t.Fatal("no part of the program's file is mapped")
	}
	for _, m := range maps {
		if _, _, e := unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_POPULATE_READ); e != 0 {
			t.Skipf("the kernel cannot map pages at will: %v", e)
		}
	}
	before := resident()
	returnMemory()
	if after := resident(); after > before/2 {
		t.Errorf("%d KiB of files are mapped, %d before", after, before)
	}
}
