//go:build linux && !portable

package node

import (
	"io/fs"
	"math"
	"path"
	"strconv"
	"strings"
)

// memoryLimit is the lowest memory limit of the process's control group and of the groups that
// contain it. ok is false if none has a limit.
func memoryLimit(root fs.FS) (limit int64, ok bool) {
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0, false
	}
	limit = math.MaxInt64
	for line := range strings.Lines(string(groups)) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, group, _ := strings.Cut(rest, ":")
		switch controllers {
		case "":
			limit = min(limit, lowestLimit(root, "sys/fs/cgroup", group, "memory.max"))
		case "memory":
			limit = min(limit, lowestLimit(root, "sys/fs/cgroup/memory", group, "memory.limit_in_bytes"))
		}
	}
	const none = 1 << 60 // version 1 of control groups has a larger number for "no limit"
	return limit, limit < none
}

// lowestLimit is the lowest limit of a control group and of those above it. In a container the
// group's path may not exist; then the mount's root is the container's group.
func lowestLimit(root fs.FS, mount, group, file string) int64 {
	least := int64(math.MaxInt64)
	for at := path.Join("/", group); ; at = path.Dir(at) {
		if b, err := fs.ReadFile(root, path.Join(mount, at, file)); err == nil {
			if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil {
				least = min(least, n)
			}
		}
		if at == "/" {
			return least
		}
	}
}

// machineMemory is the size of the machine's memory.
func machineMemory(root fs.FS) (total int64, ok bool) {
	b, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		if rest, found := strings.CutPrefix(line, "MemTotal:"); found {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return n << 10, err == nil
		}
	}
	return 0, false
}
