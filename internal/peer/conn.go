package peer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/wire"
)

const (
	// MaxRequest bounds the body of a request. A node with little memory accepts less.
	MaxRequest = wire.LargestPeerFrame - requestHead - 1
	// MaxAnswer bounds an answer for which the caller gives no bound.
	MaxAnswer = 64 << 20

	maxQueued      = 8 << 20   // bytes of frames that wait to be written
	maxOutstanding = 1 << 10   // calls that are not answered
	writeSize      = 256 << 10 // bytes that the other end must take within the time of a write
	writeTime      = wire.PeerSilence + 2*time.Second
	partSize       = 256 << 10 // bytes of an answer that the other end must send within partTime
	partTime       = writeTime
	readSize       = 16 << 10  // bytes that are read at a time; the rest of a larger answer is read where it belongs
	keptSize       = 256 << 10 // the largest buffer that the writer uses again

	apiVersions = 18 // the API whose answers have no tagged fields in their header
)

// Conn is a connection to another node that this node has dialled. Both ends are proven.
type Conn struct {
	nc      net.Conn
	session credential.Session
	welcome credential.Welcome

	work    chan struct{} // has an element if there are frames for the writer
	ending  chan struct{} // closed when there is a reason to end
	done    chan struct{} // closed when the connection has ended, and no better reason can come
	written chan struct{} // closed when the writer has ended
	running sync.WaitGroup

	mu      sync.Mutex    // guards the fields below
	err     error         // why the connection ends; it does not change when it has ended
	frames  []byte        // that wait for the writer
	writing int           // bytes that the writer has taken and not written
	calls   []*call       // that are not answered, in the order of their frames
	room    chan struct{} // closed when there is more room; nil: nobody waits
	lastID  int32
}

// callState is the state of a call:
//
//	waiting --its answer comes--> reading --> finished
//	   '--given up--> abandoned: its answer is skipped
type callState uint8

const (
	callWaiting callState = iota
	callReading
	callFinished
	callAbandoned
)

// call is a request whose answer has not come.
type call struct {
	id       int32
	flexible bool
	most     int           // bytes of the answer
	into     []byte        // memory of the caller for the answer; nil: none
	state    callState     // guarded by Conn.mu
	done     chan struct{} // closed when it is finished; then answer and err do not change
	answer   []byte
	err      error
}

// newConn begins a connection after its handshake.
func newConn(nc net.Conn, s credential.Session, w credential.Welcome) *Conn {
	c := &Conn{
		nc: nc, session: s, welcome: w,
		work: make(chan struct{}, 1), ending: make(chan struct{}), done: make(chan struct{}), written: make(chan struct{}),
	}
	c.running.Go(c.writeFrames)
	c.running.Go(c.readAnswers)
	return c
}

// Session is the result of the handshake. Its Peer is the node at the other end.
func (c *Conn) Session() credential.Session { return c.session }

// Welcome is what the other node said of this one and of the cluster.
func (c *Conn) Welcome() credential.Welcome { return c.welcome }

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err is why the connection has ended; nil: it has not.
func (c *Conn) Err() error {
	if !c.hasEnded() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *Conn) hasEnded() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// Close ends the connection and all calls, and waits for its goroutines.
func (c *Conn) Close() {
	c.end(ErrClosed)
	c.running.Wait()
}

// Call sends a request with a private key and returns the body of its answer.
func (c *Conn) Call(ctx context.Context, key int16, body []byte) ([]byte, error) {
	return c.CallInto(ctx, key, body, nil, MaxAnswer)
}

// CallInto is Call for answers that may be large: an answer has at most so many bytes, and is read into
// the memory of into if that suffices, else into new memory, which grows as bytes come. The memory belongs to
// the connection until CallInto returns. An answer that is larger ends the connection, and so does one that
// does not go on, and a context that ends while the answer is read.
func (c *Conn) CallInto(ctx context.Context, key int16, body, into []byte, most int) ([]byte, error) {
	if !isKnown(key) || IsOneWay(key) || isHandshake(key) {
		panic("BUG: a call with the key of " + NameOf(key))
	}
	return c.await(ctx, &message{key: key, body: body}, &call{most: most, into: into})
}

// Pending is a request that was sent, and whose answer is awaited.
type Pending struct {
	c *Conn
	l *call
}

// Begin sends a request with a private key, as Call does, and does not wait for its answer, which has at most so many bytes. Requests are sent in the order of the calls of
// Begin by one goroutine, and answered in that order. Wait must be called.
func (c *Conn) Begin(ctx context.Context, key int16, body []byte, most int) (Pending, error) {
	if !isKnown(key) || IsOneWay(key) || isHandshake(key) {
		panic("BUG: a call with the key of " + NameOf(key))
	}
	l := &call{most: most}
	return Pending{c, l}, c.begin(ctx, &message{key: key, body: body}, l)
}

// Wait waits for the answer, and returns its body.
func (p Pending) Wait(ctx context.Context) ([]byte, error) { return p.c.finish(ctx, p.l) }

// Request sends a request of Kafka's protocol in its version, which the other node must know, and
// returns the answer.
func (c *Conn) Request(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	body, err := c.RequestInto(ctx, req, nil, MaxAnswer)
	if err != nil {
		return nil, err
	}
	resp := req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	if err := resp.ReadFrom(body); err != nil {
		return nil, fmt.Errorf("%w: the answer to %s: %w", ErrProtocol, kmsg.NameForKey(req.Key()), err)
	}
	return resp, nil
}

// RequestInto is Request for answers that may be large and are not decoded by kmsg: it returns the
// answer behind its header, as CallInto does.
func (c *Conn) RequestInto(ctx context.Context, req kmsg.Request, into []byte, most int) ([]byte, error) {
	m := &message{key: req.Key(), version: req.GetVersion(), flexible: req.IsFlexible(), body: req.AppendTo(nil)}
	return c.await(ctx, m, &call{flexible: m.flexible && m.key != apiVersions, most: most, into: into})
}

// Send sends a message with a private key that is not answered. It never waits: if too much waits to
// be sent already, the message is dropped and Send returns ErrQueueFull.
func (c *Conn) Send(key int16, body []byte) error {
	if !IsOneWay(key) {
		panic("BUG: a message with the key of " + NameOf(key))
	}
	m := &message{key: key, body: body}
	if len(body) > MaxRequest {
		return fmt.Errorf("%w: %s with %d bytes", ErrTooLarge, NameOf(key), len(body))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return c.err
	case !c.hasRoomLocked(m):
		return ErrQueueFull
	}
	c.queueLocked(m)
	return nil
}

// await sends a request and waits for its answer.
func (c *Conn) await(ctx context.Context, m *message, l *call) ([]byte, error) {
	if err := c.begin(ctx, m, l); err != nil {
		return nil, err
	}
	return c.finish(ctx, l)
}

// begin sends a request.
func (c *Conn) begin(ctx context.Context, m *message, l *call) error {
	if len(m.body) > MaxRequest {
		return fmt.Errorf("%w: a request of %d bytes", ErrTooLarge, len(m.body))
	}
	l.done = make(chan struct{})
	return c.queueCall(ctx, m, l)
}

// finish waits for the answer to a request that was sent.
func (c *Conn) finish(ctx context.Context, l *call) ([]byte, error) {
	select {
	case <-l.done:
		return l.answer, l.err
	case <-ctx.Done():
	}
	if !c.abandon(l) { // the answer is being read into the caller's memory
		c.end(fmt.Errorf("%w while it sent an answer that is not awaited any more: %w", ErrClosed, ctx.Err()))
		<-l.done
	}
	return nil, ctx.Err()
}

// queueCall puts a call into the queue, and waits until there is room for it.
func (c *Conn) queueCall(ctx context.Context, m *message, l *call) error {
	for {
		room, err := c.tryQueueCall(m, l)
		if room == nil {
			return err
		}
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// tryQueueCall puts a call into the queue if there is room for it, and otherwise returns a channel that
// is closed when there may be some, or the connection has ended.
func (c *Conn) tryQueueCall(m *message, l *call) (room <-chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil && !c.hasEnded():
		return c.done, nil
	case c.err != nil:
		return nil, c.err
	case len(c.calls) < maxOutstanding && c.hasRoomLocked(m):
		l.id = c.queueLocked(m)
		c.calls = append(c.calls, l)
		return nil, nil
	}
	if c.room == nil {
		c.room = make(chan struct{})
	}
	return c.room, nil
}

// hasRoomLocked tells whether a frame fits into the queue. Any frame fits into an empty one.
func (c *Conn) hasRoomLocked(m *message) bool {
	queued := len(c.frames) + c.writing
	return queued == 0 || queued+m.size() <= maxQueued
}

// queueLocked queues a frame, and returns its correlation id.
func (c *Conn) queueLocked(m *message) (id int32) {
	c.lastID++
	c.frames = m.appendFrame(c.frames, c.lastID)
	select {
	case c.work <- struct{}{}:
	default:
	}
	return c.lastID
}

// announceRoomLocked wakes the calls that wait for room.
func (c *Conn) announceRoomLocked() {
	if c.room != nil {
		close(c.room)
		c.room = nil
	}
}

// abandon gives a call up. It returns false if its answer is being read into the caller's memory.
func (c *Conn) abandon(l *call) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.state == callWaiting {
		l.state = callAbandoned
	}
	return l.state != callReading || l.into == nil
}

// end begins the end of the connection. The first reason counts, but for one case: when the system gives a silent node up,
// it says so to the writer or to the reader, and to the other of them that the connection is closed.
func (c *Conn) end(reason error) {
	c.mu.Lock()
	first := c.err == nil
	if first || errors.Is(c.err, ErrClosedByPeer) && errors.Is(reason, ErrSilent) {
		c.err = reason
	}
	if first {
		c.frames = nil
		close(c.ending)
		c.announceRoomLocked()
	}
	c.mu.Unlock()
	if first {
		_ = c.nc.Close() // an error would have no effect
	}
}

// writeFrames writes what is queued until the connection ends.
func (c *Conn) writeFrames() {
	defer close(c.written)
	var free []byte
	for {
		select {
		case <-c.work:
		case <-c.ending:
			return
		}
		for {
			frames := c.takeFrames(free)
			if len(frames) == 0 {
				break
			}
			if err := c.write(frames); err != nil {
				c.end(classify(err))
				return
			}
			if free = frames; cap(free) > keptSize {
				free = nil
			}
		}
	}
}

// takeFrames takes the frames that wait, which the writer writes next, and leaves the memory of free
// for more. Those that it took before are written.
func (c *Conn) takeFrames(free []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writing = 0
	c.announceRoomLocked()
	if len(c.frames) == 0 {
		return nil
	}
	frames := c.frames
	c.frames, c.writing = free[:0], len(frames)
	return frames
}

// write writes bytes, and gives up if the other end takes too long for a part of them.
func (c *Conn) write(b []byte) error {
	for part := range slices.Chunk(b, writeSize) {
		if err := c.nc.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
			return err
		}
		if _, err := c.nc.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// readAnswers reads answers until the connection ends, and then ends all calls.
func (c *Conn) readAnswers() {
	r := bufio.NewReaderSize(c.nc, readSize)
	var err error
	for err == nil {
		err = c.readAnswer(r)
	}
	c.end(classify(err))
	<-c.written
	c.mu.Lock()
	calls, reason := c.calls, c.err
	c.calls = nil
	close(c.done)
	c.mu.Unlock()
	for _, l := range calls {
		l.err = reason
		close(l.done)
	}
}

// readAnswer reads one answer for the oldest call.
func (c *Conn) readAnswer(r *bufio.Reader) error {
	id, left, err := readHead(r)
	if err != nil {
		return err
	}
	a := &answerReader{r: r, nc: c.nc, left: left}
	l, err := c.beginAnswer(id)
	switch {
	case err != nil:
		return err
	case l.state == callAbandoned:
		err = a.discard(a.left)
	default:
		err = l.readAnswer(a)
	}
	if err == nil {
		err = a.endTime()
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	l.state = callFinished
	c.calls[0] = nil
	if c.calls = c.calls[1:]; len(c.calls) == 0 {
		c.calls = nil
	}
	c.announceRoomLocked()
	c.mu.Unlock()
	close(l.done)
	return nil
}

// beginAnswer returns the call that an answer is for. From here on its state does not change until the
// reader is done with it.
func (c *Conn) beginAnswer(id int32) (*call, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.calls) == 0 || c.calls[0].id != id {
		return nil, fmt.Errorf("%w: an answer with the correlation id %d, which is not the next one", ErrProtocol, id)
	}
	l := c.calls[0]
	if l.state == callWaiting {
		l.state = callReading
	}
	return l, nil
}

func (l *call) readAnswer(a *answerReader) (err error) {
	if l.flexible {
		if err := a.skipTags(); err != nil {
			return err
		}
	}
	l.answer, err = a.readBody(l.into, l.most)
	return err
}
