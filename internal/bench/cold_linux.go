package bench

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

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

// readStretches reads what is next until nothing is left.
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
