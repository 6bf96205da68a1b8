//go:build !linux || portable

package socket

import (
	"errors"
	"sync"
)

// SharesThreads tells whether one thread can serve many connections.
const SharesThreads = false

// Watch calls ready(i) again and again, with a goroutine for each socket, until it is done.
// ready waits for bytes of its socket.
func Watch(sockets []*Socket, _ int, ready func(i int) (done bool, err error)) error {
	var wg sync.WaitGroup
	errs := make([]error, len(sockets))
	for i := range sockets {
		wg.Go(func() {
			for done := false; !done && errs[i] == nil; {
				done, errs[i] = ready(i)
			}
			if errs[i] != nil {
				for _, s := range sockets {
					s.Shutdown() // the other goroutines must not wait for ever
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
