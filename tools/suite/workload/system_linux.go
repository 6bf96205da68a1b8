package workload

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// SyncDisks waits until everything that was written is on disk.
func SyncDisks() { unix.Sync() }

// TouchMemory has the system find n bytes of memory, and gives them back at once. Pages
// that a virtual machine has not used for a while cost its host several times as much as
// a broker does for the bytes in them; that would fall to the contender whose turn it is.
func TouchMemory(n int64) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return
	}
	n = min(n, int64(info.Freeram)*int64(info.Unit)/2) //nolint:gosec // fits
	b, err := unix.Mmap(-1, 0, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return // it is a matter of fairness only
	}
	// Memory that is freed in large pages is found first by the next process that needs some.
	_ = unix.Madvise(b, unix.MADV_HUGEPAGE)
	for i := 0; i < len(b); i += os.Getpagesize() {
		b[i] = 1
	}
	_ = unix.Munmap(b)
}

// dropFiles takes files out of the page cache.
func dropFiles(files []string) error {
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		if err := errors.Join(unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// readAll reads a file as fast as the disk gives it: around the page cache, several
// stretches at a time.
func readAll(name string) (int64, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return 0, err
	}
	const readers = 4
	var at, sum atomic.Int64
	var errs [readers]error
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = readStretches(int(f.Fd()), &at, &sum) })
	}
	wg.Wait()
	return sum.Load(), errors.Join(append(errs[:], f.Close())...)
}

// readStretches reads the next stretch until nothing is left.
func readStretches(fd int, at, sum *atomic.Int64) error {
	const stretch = 4 << 20
	b, err := unix.Mmap(-1, 0, stretch, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE) // aligned
	if err != nil {
		return err
	}
	n := 1
	for n > 0 && err == nil {
		if n, err = unix.Pread(fd, b, at.Add(stretch)-stretch); n > 0 {
			sum.Add(int64(n))
		}
	}
	return errors.Join(err, unix.Munmap(b))
}
