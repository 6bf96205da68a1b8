//go:build linux && !portable

package node

import (
	"testing"
	"testing/fstest"
)

// TestMemoryLimit proves that the lowest limit of a process's control groups is found, in both
// versions of them, and that "no limit" is not read as a number.
func TestMemoryLimit(t *testing.T) {
	f := func(want int64, ok bool, files ...string) {
		t.Helper()
		root := fstest.MapFS{}
		for i := 0; i < len(files); i += 2 {
			root[files[i]] = &fstest.MapFile{Data: []byte(files[i+1])}
		}
		if got, has := memoryLimit(root); has != ok || ok && got != want {
			t.Errorf("%q: %d, %v", files, got, has)
		}
	}
	const of = "proc/self/cgroup"
	f(0, false)
	f(0, false, of, "0::/\n")
	f(0, false, of, "nonsense")
	f(1000, true, of, "0::/\n", "sys/fs/cgroup/memory.max", "1000\n")
	f(0, false, of, "0::/a\n", "sys/fs/cgroup/a/memory.max", "max\n")
	f(500, true, of, "0::/a/b\n", "sys/fs/cgroup/a/memory.max", "500\n", "sys/fs/cgroup/a/b/memory.max", "600\n")
	f(600, true, of, "0::/a/b\n", "sys/fs/cgroup/a/memory.max", "max\n", "sys/fs/cgroup/a/b/memory.max", "600\n")
	f(700, true, of, "0::/not/here\n", "sys/fs/cgroup/memory.max", "700\n")
	f(0, false, of, "4:memory:/d\n0::/\n", "sys/fs/cgroup/memory/d/memory.limit_in_bytes", "9223372036854771712\n")
	f(800, true, of, "9:cpu:/x\n4:memory:/d\n0::/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes", "800\n")
}
