package tunnel

import (
	"errors"
	"io"
	"sync"
)

const (
	// mostBytes is how many bytes one request or answer has, mostRequests how many requests are not answered, and parkedRequests how many always wait, by which the node can send.
	mostBytes      = 64 << 10
	mostRequests   = 48
	parkedRequests = 4
	// mostUnsent is how many bytes wait to be sent, before a writer has to wait.
	mostUnsent = 2 * mostBytes
)

var (
	// errEnded is why an end whose connection has ended reads and writes nothing.
	errEnded = errors.New("the connection of the agent has ended")
	// errFlood ends the connection of an agent that has more requests under way than it may.
	errFlood = errors.New("the agent has more requests under way, or larger ones, than it may")
)

// pipe is what both ends have: the bytes that have come and were not read, and those that are to be sent. Its owner sends them.
type pipe struct {
	mu     sync.Mutex
	moved  *sync.Cond // with mu: anything of the fields below is another
	in     [][]byte   // that have come
	unread int        // bytes of in
	out    []byte     // to be sent
	err    error      // why it has ended; nil: it has not
}

func (p *pipe) init() { p.moved = sync.NewCond(&p.mu) }

// takeLocked takes bytes that have come.
func (p *pipe) takeLocked(b []byte) {
	if len(b) > 0 {
		p.in, p.unread = append(p.in, b), p.unread+len(b)
	}
	p.moved.Broadcast()
}

// nextLocked takes bytes for one request or answer out of those that are to be sent.
func (p *pipe) nextLocked() []byte {
	n := min(len(p.out), mostBytes)
	b := append([]byte(nil), p.out[:n]...)
	if p.out = p.out[n:]; len(p.out) == 0 {
		p.out = nil
	}
	p.moved.Broadcast()
	return b
}

// read waits for bytes and reads them.
func (p *pipe) read(b []byte) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.in) == 0 {
		if p.err != nil {
			return 0, io.EOF
		}
		p.moved.Wait()
	}
	n = copy(b, p.in[0])
	if p.in[0] = p.in[0][n:]; len(p.in[0]) == 0 {
		p.in[0] = nil
		p.in = p.in[1:]
	}
	p.unread -= n
	p.moved.Broadcast()
	return n, nil
}

// put waits for room and has bytes be sent, of which it returns how many it has taken.
func (p *pipe) put(b []byte) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.out) >= mostUnsent && p.err == nil {
		p.moved.Wait()
	}
	if p.err != nil {
		return 0, p.err
	}
	n = min(len(b), mostUnsent-len(p.out))
	p.out = append(p.out, b[:n]...)
	p.moved.Broadcast()
	return n, nil
}

// end ends it, for the first reason that is given.
func (p *pipe) end(why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = why
	}
	p.in, p.unread, p.out = nil, 0, nil
	p.moved.Broadcast()
}
