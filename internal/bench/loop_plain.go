//go:build !linux || portable

package bench

import (
	"errors"
	"sync"
)

// sharesThreads tells that one thread can serve many connections.
const sharesThreads = false

// watch calls ready(i) whenever sockets[i] may have something to take, each in a
// goroutine of its own, until it is done.
func watch(sockets []*socket, _ int, ready func(i int) (done bool, err error)) error {
	var wg sync.WaitGroup
	errs := make([]error, len(sockets))
	for i := range sockets {
		wg.Go(func() {
			for done := false; !done && errs[i] == nil; {
				done, errs[i] = ready(i)
			}
			if errs[i] != nil {
				for _, s := range sockets {
					s.shutdown() // nobody waits for the others for ever
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
