//go:build !linux

package vfs

import "testing"

func limitHandles(t *testing.T, fsys FS) {
	t.Helper()
	if _, ok := fsys.(OS); ok {
		t.Skip("the number of open files is limited on Linux only")
	}
	limitMemHandles(t, fsys)
}
