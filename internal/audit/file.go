package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/leatstream/leat/internal/vfs"
)

// FileConfig is what a File works with. The configs of the same meaning say how large and how many files there are.
type FileConfig struct {
	FS    vfs.FS
	Path  string // slash-separated
	Bytes int64  // when the file has so many, the next batch goes into another one
	Files int    // how many there are at most, with the one that is written
}

// File is a log in files: lines of JSON in Path, and older ones in Path.1, Path.2 and so on, the oldest of which is deleted when there
// are too many. Nobody but its owner may read them. A File is a Sink. One goroutine at a time may use it.
type File struct {
	cfg  FileConfig
	file vfs.File // nil: it was not opened, or must be opened anew
	size int64    // of the whole lines in it
}

// NewFile makes a File, which is opened by its first Append.
func NewFile(cfg FileConfig) *File { return &File{cfg: cfg} }

// Append appends lines, and has them durable.
func (f *File) Append(_ context.Context, lines [][]byte) error {
	if err := f.open(); err != nil {
		return err
	}
	var b bytes.Buffer
	for _, l := range lines {
		b.Write(l)
		b.WriteByte('\n')
	}
	if f.size > 0 && f.size+int64(b.Len()) > f.cfg.Bytes {
		if err := f.rotate(); err != nil {
			return err
		}
	}
	_, err := f.file.WriteAt(b.Bytes(), f.size)
	if err == nil {
		err = f.file.Sync()
	}
	if err != nil { // what was written of it is cut off when it is opened again
		return errors.Join(fmt.Errorf("writing %s: %w", f.cfg.Path, err), f.file.Truncate(f.size), f.Close())
	}
	f.size += int64(b.Len())
	return nil
}

// open opens the file, if it is not open, and cuts off a line without an end, which a kill or a full disk has left.
func (f *File) open() error {
	if f.file != nil {
		return nil
	}
	mode := vfs.Existing
	if _, err := f.cfg.FS.Stat(f.cfg.Path); errors.Is(err, vfs.ErrNotExist) {
		mode = vfs.Secret
	}
	file, err := f.cfg.FS.Open(f.cfg.Path, mode)
	if err != nil {
		return fmt.Errorf("opening the audit log: %w", err)
	}
	size, err := findLastEnd(file)
	if err == nil {
		err = file.Truncate(size)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("reading %s: %w", f.cfg.Path, err), file.Close())
	}
	f.file, f.size = file, size
	return nil
}

// findLastEnd finds the end of the last whole line.
func findLastEnd(file vfs.File) (int64, error) {
	size, err := file.Size()
	if err != nil {
		return 0, err
	}
	buf := make([]byte, 64<<10)
	for size > 0 {
		n := min(size, int64(len(buf)))
		if _, err := file.ReadAt(buf[:n], size-n); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			return size - n + int64(i) + 1, nil
		}
		size -= n
	}
	return 0, nil
}

// rotate gives the files the next names, and begins another one.
func (f *File) rotate() error {
	if err := f.Close(); err != nil {
		return fmt.Errorf("closing %s: %w", f.cfg.Path, err)
	}
	if f.cfg.Files <= 1 {
		if err := f.cfg.FS.Remove(f.cfg.Path); err != nil {
			return fmt.Errorf("deleting the audit log: %w", err)
		}
		return f.open()
	}
	if err := f.cfg.FS.Remove(OlderFile(f.cfg.Path, f.cfg.Files-1)); err != nil {
		return fmt.Errorf("deleting the oldest file of the audit log: %w", err)
	}
	for i := f.cfg.Files - 2; i >= 0; i-- {
		if _, err := f.cfg.FS.Stat(OlderFile(f.cfg.Path, i)); errors.Is(err, vfs.ErrNotExist) {
			continue
		}
		if err := f.cfg.FS.Rename(OlderFile(f.cfg.Path, i), OlderFile(f.cfg.Path, i+1)); err != nil {
			return fmt.Errorf("renaming a file of the audit log: %w", err)
		}
	}
	return f.open()
}

// OlderFile is the name of an older file of a log; 0: the one that is written.
func OlderFile(path string, n int) string {
	if n == 0 {
		return path
	}
	return fmt.Sprintf("%s.%d", path, n)
}

// Close closes the file. Append opens it again.
func (f *File) Close() error {
	if f.file == nil {
		return nil
	}
	file := f.file
	f.file = nil
	return file.Close()
}
