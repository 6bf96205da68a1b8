package tunnel

import "github.com/leatstream/leat/internal/wire"

// nodeEnd is the node's end of the bytes of one connection, which it sends as answers to the agent's requests.
type nodeEnd struct {
	pipe

	// The fields below are guarded by pipe.mu.

	waiting []waitingRequest // that are not answered, the oldest first
	came    int64            // bytes that have come
	used    int64            // those of them that were read
}

// waitingRequest is a request that is not answered.
type waitingRequest struct {
	r   *wire.Request
	end int64 // the place behind its bytes
}

// answer is an answer that is to be sent.
type answer struct {
	r    *wire.Request
	body []byte
}

func newNodeEnd() *nodeEnd {
	e := &nodeEnd{}
	e.init()
	return e
}

// receive takes a request of the agent. After an error the connection is to be ended, and the request is not answered.
func (e *nodeEnd) receive(r *wire.Request) error {
	body := append([]byte(nil), r.Body()...)
	e.mu.Lock()
	switch {
	case e.err != nil:
		e.mu.Unlock()
		return e.err
	case len(e.waiting) >= mostRequests || len(body) > mostBytes:
		e.mu.Unlock()
		return errFlood
	}
	e.came += int64(len(body))
	e.waiting = append(e.waiting, waitingRequest{r, e.came})
	e.takeLocked(body)
	ready := e.answerLocked()
	e.mu.Unlock()
	send(ready)
	return nil
}

// answerLocked takes the requests that are to be answered now: the oldest ones whose bytes were read, as far as there are bytes for them, or more requests wait than have to.
func (e *nodeEnd) answerLocked() (ready []answer) {
	for len(e.waiting) > 0 && e.waiting[0].end <= e.used && (len(e.out) > 0 || len(e.waiting) > parkedRequests) {
		ready = append(ready, answer{e.waiting[0].r, e.nextLocked()})
		e.waiting = e.waiting[1:]
	}
	return ready
}

// send sends answers. The connection sends them in the order of their requests, whoever sends them.
func send(ready []answer) {
	for _, a := range ready {
		p := a.r.Begin()
		p.B = append(p.B, a.body...)
		a.r.Send(p)
	}
}

// Read reads bytes of the agent.
func (e *nodeEnd) Read(b []byte) (n int, err error) {
	n, err = e.read(b)
	e.mu.Lock()
	e.used += int64(n)
	ready := e.answerLocked()
	e.mu.Unlock()
	send(ready)
	return n, err
}

// Write sends bytes to the agent.
func (e *nodeEnd) Write(b []byte) (n int, err error) {
	for n < len(b) {
		some, err := e.put(b[n:])
		if err != nil {
			return n, err
		}
		n += some
		e.mu.Lock()
		ready := e.answerLocked()
		e.mu.Unlock()
		send(ready)
	}
	return n, nil
}

// Close ends it. The requests that wait are not answered: their connection ends, too.
func (e *nodeEnd) Close() error {
	e.end(errEnded)
	e.mu.Lock()
	left := e.waiting
	e.waiting = nil
	e.mu.Unlock()
	for _, w := range left {
		w.r.NoReply()
	}
	return nil
}
