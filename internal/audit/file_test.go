package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/vfs"
)

func readLog(t *testing.T, dir string) (lines [][]byte) {
	t.Helper()
	for i := 20; i >= 0; i-- {
		b, err := os.ReadFile(OlderFile(filepath.Join(dir, "audit.log"), i))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, bytes.Split(bytes.TrimSuffix(b, []byte("\n")), []byte("\n"))...)
	}
	return lines
}

// TestFileRotates proves that a file is for its owner alone, gets another name when it is full, that the oldest one is deleted, and that the log is
// whole where it was not cut.
func TestFileRotates(t *testing.T) {
	dir := t.TempDir()
	f := NewFile(FileConfig{FS: vfs.OS{}, Path: filepath.ToSlash(filepath.Join(dir, "audit.log")), Bytes: 4096, Files: 3})
	c := NewChain("c", 1, "s1")
	for i := range 100 {
		if i%10 == 5 {
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
		e := created(fmt.Sprint("topic", i))
		if err := f.Append(t.Context(), [][]byte{c.Append(&e)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	all, err := os.ReadDir(dir)
	if err != nil || len(all) != 3 {
		t.Fatalf("%v, %v, want three files", all, err)
	}
	for _, entry := range all {
		info, err := entry.Info()
		if err != nil || info.Size() > 4096 || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has %d bytes and mode %v, %v", entry.Name(), info.Size(), info.Mode(), err)
		}
	}
	report, faults := verify(t, readLog(t, dir))
	if len(faults) > 0 || report.CutAt == 0 || report.Head.Sequence != 100 {
		t.Errorf("%q, %+v", faults, report)
	}
}

// TestFileIsCutOff proves that a line without an end, which a kill leaves, is cut off, and that a file that cannot be written is whole when it can be again.
func TestFileIsCutOff(t *testing.T) {
	dir := t.TempDir()
	name := filepath.ToSlash(filepath.Join(dir, "audit.log"))
	var failed vfs.Op
	fails := false
	errFull := errors.New("full")
	fsys := vfs.NewFaulty(vfs.OS{}, func(op vfs.Op, _ string) error {
		switch {
		case !fails || op != failed:
			return nil
		case op == vfs.OpWrite:
			return &vfs.ShortWriteError{N: 50, Err: errFull}
		}
		return errFull
	})
	f := NewFile(FileConfig{FS: fsys, Path: name, Bytes: 1 << 20, Files: 3})
	c := NewChain("c", 1, "s1")
	write := func(topic string) ([]byte, error) {
		e := created(topic)
		line := c.Append(&e)
		return line, f.Append(t.Context(), [][]byte{line})
	}
	if _, err := write("a"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	torn := append(bytes.Clone(whole), bytes.Repeat([]byte("x"), 200<<10)...)
	if err := os.WriteFile(name, torn, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := write("b"); err != nil {
		t.Fatal(err)
	}
	if _, faults := verify(t, readLog(t, dir)); len(faults) > 0 {
		t.Errorf("%q", faults)
	}
	for _, failed = range []vfs.Op{vfs.OpWrite, vfs.OpSync, vfs.OpTruncate, vfs.OpOpen} {
		e := created(failed.String())
		line := c.Append(&e)
		fails = true
		if failed == vfs.OpOpen || failed == vfs.OpTruncate {
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Append(t.Context(), [][]byte{line}); !errors.Is(err, errFull) {
			t.Errorf("%v: %v, want that it fails", failed, err)
		}
		fails = false
		if err := f.Append(t.Context(), [][]byte{line}); err != nil {
			t.Errorf("%v: %v, want that the file is written again", failed, err)
		}
		if report, faults := verify(t, readLog(t, dir)); len(faults) > 0 || report.Head.Sequence != c.seq {
			t.Errorf("%v: %q, %+v", failed, faults, report)
		}
	}
	missing := NewFile(FileConfig{FS: vfs.OS{}, Path: name + "/x/audit.log", Bytes: 1 << 20, Files: 3})
	if err := missing.Append(t.Context(), [][]byte{[]byte("x")}); err == nil || !strings.Contains(err.Error(), "opening the audit log") {
		t.Errorf("%v, want that the file cannot be opened", err)
	}
}
