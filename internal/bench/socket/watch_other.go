//go:build !linux || portable

package socket

import (
	"errors"
	"sync"
)

// SharesThreads tells that one thread can serve many connections.
const SharesThreads = false

// Watch calls ready(i) whenever sockets[i] may have something to take, each in a
// goroutine of its own, until it is done.
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
					s.Shutdown() // nobody waits for the others for ever
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
