package main

import (
	"bytes"
	"errors"
	"hash/crc32"
	"io"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sys/unix"
)

const (
	maxParts     = 1024      // batches that one write takes (UIO_MAXIOV)
	sendfileFrom = 256 << 10 // bytes of an answer from which on sendfile is cheaper than pread
)

var errShort = errors.New("a request is cut short")

// conn is a connection. All requests that one read brought are handled together:
// one write a partition, one sync, one write of all answers.
type conn struct {
	s    *server
	sock socket
	in   []byte
	a, b int // in[a:b] is not handled yet
	out  []byte

	index   int32        // of target
	target  *part        // where batches go; nil: none was asked for since the last flush
	batches []unix.Iovec // into in
	dirty   []*part
	waiting *waiter // a fetch without an answer; later requests wait for it
}

// socket is how a connection is read and written.
type socket interface {
	io.ReadWriter
	// sendfile sends n bytes of a file from an offset on.
	sendfile(fd int, off, n int64) error
}

func (c *conn) loop() error {
	c.in = make([]byte, c.s.cfg.buffer<<10)
	defer c.settle(true)
	for {
		n, err := c.sock.Read(c.in[c.b:])
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
				return nil
			}
			return err
		}
		c.b += n
		for c.b-c.a >= 4 {
			size := int(be.Uint32(c.in[c.a:]))
			if c.b-c.a < 4+size {
				break
			}
			req := c.in[c.a+4 : c.a+4+size]
			c.a += 4 + size
			if err := c.handle(req); err != nil {
				return err
			}
		}
		if err := c.flush(); err != nil {
			return err
		}
		c.makeRoom()
	}
}

// makeRoom moves the begin of a request to the front, into a buffer that holds all of it.
func (c *conn) makeRoom() {
	if c.b-c.a >= 4 {
		if need := 4 + int(be.Uint32(c.in[c.a:])); need > len(c.in) {
			in := make([]byte, need+c.s.cfg.buffer<<10)
			c.b = copy(in, c.in[c.a:c.b])
			c.a, c.in = 0, in
			return
		}
	}
	if c.a == c.b {
		c.a, c.b = 0, 0
	} else if c.b == len(c.in) || c.a > len(c.in)/2 {
		c.b = copy(c.in, c.in[c.a:c.b])
		c.a = 0
	}
}

func (c *conn) handle(req []byte) error {
	c.settle(false)
	if len(req) < 10 {
		return errShort
	}
	key, version, id := int16(be.Uint16(req)), int16(be.Uint16(req[2:])), be.Uint32(req[4:])
	body := 10 + max(0, int(int16(be.Uint16(req[8:]))))
	if len(req) < body {
		return errShort
	}
	at := len(c.out)
	c.out = be.AppendUint32(append(c.out, 0, 0, 0, 0), id)
	switch {
	case key == kmsg.Produce.Int16() && version >= produceLow && version <= produceHigh:
		answered, err := c.produce(req[body:])
		if err != nil {
			return err
		}
		if !answered {
			c.out = c.out[:at]
			return nil
		}
	case key == kmsg.Fetch.Int16() && version == fetchVersion:
		return c.fetch(at, id, req[body:])
	default:
		resp, err := c.s.other(key, version, req[body:])
		if err != nil {
			return err
		}
		c.out = resp.AppendTo(c.out)
	}
	be.PutUint32(c.out[at:], uint32(len(c.out)-at-4))
	return nil
}

// cursor reads fields; beyond the end it panics, and the program ends: only
// well-formed requests are expected.
type cursor struct{ b []byte }

func (c *cursor) i16() int16 { v := int16(be.Uint16(c.b)); c.b = c.b[2:]; return v }
func (c *cursor) i32() int32 { v := int32(be.Uint32(c.b)); c.b = c.b[4:]; return v }
func (c *cursor) i64() int64 { v := int64(be.Uint64(c.b)); c.b = c.b[8:]; return v }
func (c *cursor) bytes(n int) []byte {
	v := c.b[:n]
	c.b = c.b[n:]
	return v
}

func (c *cursor) str() []byte { return c.bytes(max(0, int(c.i16()))) }

// produce takes the batches of a request and appends its answer.
func (c *conn) produce(body []byte) (answered bool, err error) {
	r := cursor{body}
	r.str() // transactional id
	acks := r.i16()
	r.i32() // timeout
	topics := r.i32()
	c.out = be.AppendUint32(c.out, uint32(topics))
	for range topics {
		name := r.str()
		c.out = append(be.AppendUint16(c.out, uint16(len(name))), name...)
		parts := r.i32()
		c.out = be.AppendUint32(c.out, uint32(parts))
		for range parts {
			i := r.i32()
			batch := r.bytes(int(r.i32()))
			base, code, err := c.take(i, batch)
			if err != nil {
				return false, err
			}
			c.out = be.AppendUint32(c.out, uint32(i))
			c.out = be.AppendUint16(c.out, uint16(code))
			c.out = be.AppendUint64(c.out, uint64(base))
			c.out = be.AppendUint64(c.out, ^uint64(0)) // no append time
			c.out = be.AppendUint64(c.out, 0)          // the log's start
		}
	}
	c.out = be.AppendUint32(c.out, 0) // throttled
	return acks != 0, nil
}

func (c *conn) take(i int32, batch []byte) (base int64, code int16, err error) {
	if i != c.index || c.target == nil || len(c.batches) == maxParts {
		if err := c.write(); err != nil {
			return -1, 0, err
		}
		c.index, c.target = i, c.s.part(i)
	}
	switch {
	case c.target == nil:
		return -1, 3, nil // unknown partition
	case len(batch) < batchHead || crc32.Checksum(batch[atAttributes:], crc32.MakeTable(crc32.Castagnoli)) != be.Uint32(batch[atCRC:]):
		return -1, 2, nil // corrupt
	}
	v := unix.Iovec{Base: &batch[0]}
	v.SetLen(len(batch))
	c.batches = append(c.batches, v)
	return c.target.take(batch), 0, nil
}

// write writes the batches that were taken.
func (c *conn) write() error {
	if len(c.batches) == 0 {
		return nil
	}
	if len(c.dirty) == 0 || c.dirty[len(c.dirty)-1] != c.target {
		c.dirty = append(c.dirty, c.target)
	}
	err := c.target.append(c.batches)
	if j := c.s.journal; j != nil {
		j.add(c.index, c.batches)
	}
	c.batches = c.batches[:0]
	return err
}

// flush ends what one read brought. Readers get it before the producer is answered
// where that does not have to wait for the disk, and else afterwards.
func (c *conn) flush() error {
	if err := c.write(); err != nil {
		return err
	}
	sync := c.s.cfg.sync || c.s.journal != nil
	if c.s.journal != nil && len(c.dirty) > 0 {
		if err := c.s.journal.commit(); err != nil {
			return err
		}
	}
	for _, p := range c.dirty {
		switch {
		case !sync:
			p.wake()
		case c.s.journal == nil:
			if err := p.commit(); err != nil {
				return err
			}
		}
	}
	if err := c.send(); err != nil {
		return err
	}
	if sync {
		for _, p := range c.dirty {
			p.wake()
		}
	}
	c.dirty, c.target = c.dirty[:0], nil
	return nil
}

func (c *conn) send() error {
	if len(c.out) == 0 {
		return nil
	}
	_, err := c.sock.Write(c.out)
	c.out = c.out[:0]
	return err
}

// ask is a fetch from one partition.
type ask struct {
	id         uint32
	topic      []byte
	index      int32
	off, limit int64
	part       *part
}

// fetch answers from the first partition that is asked for. The answer's begin is
// at c.out[at:] already; it waits for no earlier answer.
func (c *conn) fetch(at int, id uint32, body []byte) error {
	c.out = c.out[:at]
	if err := c.write(); err != nil {
		return err
	}
	r := cursor{body}
	r.i32() // replica
	patience := time.Duration(r.i32()) * time.Millisecond
	r.bytes(4 + 4 + 1 + 4 + 4 + 4) // least and most bytes, isolation, session, topics
	a := ask{id: id, topic: r.str()}
	r.i32()
	a.index = r.i32()
	r.i32() // epoch
	a.off = r.i64()
	r.i64()
	a.limit = int64(r.i32())
	if a.part = c.s.part(a.index); a.part == nil {
		return errors.New("fetch from a partition that is not there")
	}
	found := a.part.find(a.off, a.limit, nil)
	if found.size == 0 && patience > 0 {
		if err := c.flush(); err != nil {
			return err
		}
		w := &waiter{ask: a, c: c, done: make(chan struct{})}
		w.topic = bytes.Clone(a.topic) // what was read makes room meanwhile
		c.waiting = w
		w.timer = time.AfterFunc(patience, w.expire)
		if found = a.part.find(a.off, a.limit, w); found.size == 0 {
			return nil
		}
		w.timer.Stop()
		c.waiting = nil
	}
	c.out = a.head(c.out, found)
	if found.size == 0 {
		return nil
	}
	var err error
	c.out, err = c.records(c.out, found)
	return err
}

// head appends the begin of an answer, up to its records.
func (a *ask) head(out []byte, found stretch) []byte {
	at := len(out)
	out = be.AppendUint32(append(out, 0, 0, 0, 0), a.id)
	out = be.AppendUint32(out, 0) // throttled
	out = be.AppendUint16(out, 0)
	out = be.AppendUint32(out, 0) // session
	out = be.AppendUint32(out, 1)
	out = append(be.AppendUint16(out, uint16(len(a.topic))), a.topic...)
	out = be.AppendUint32(out, 1)
	out = be.AppendUint32(out, uint32(a.index))
	out = be.AppendUint16(out, 0)
	out = be.AppendUint64(out, uint64(found.end))
	out = be.AppendUint64(out, uint64(found.end))
	out = be.AppendUint64(out, 0)
	out = be.AppendUint32(out, ^uint32(0)) // no aborted transactions
	out = be.AppendUint32(out, ^uint32(0)) // no preferred replica
	out = be.AppendUint32(out, uint32(found.size))
	be.PutUint32(out[at:], uint32(len(out)-at-4+int(found.size)))
	return out
}

// records sends out and what was found behind it. It returns out empty.
func (c *conn) records(out []byte, found stretch) ([]byte, error) {
	if serve := c.s.cfg.serve; serve == "sendfile" || serve == "auto" && found.size >= sendfileFrom {
		if _, err := c.sock.Write(out); err != nil {
			return nil, err
		}
		return out[:0], c.sock.sendfile(found.fd, found.at, found.size)
	}
	n := len(out)
	if cap(out) < n+int(found.size) {
		out = append(make([]byte, 0, n+int(found.size)+4096), out...)
	}
	out = out[:n+int(found.size)]
	if k, err := unix.Pread(found.fd, out[n:], found.at); err != nil || k != int(found.size) {
		return nil, errors.Join(err, errShort)
	}
	_, err := c.sock.Write(out)
	return out[:0], err
}

// waiter is a fetch that found nothing. Whoever takes it out of its partition
// answers it: the thread that appends next, so that no other has to be woken in
// between (it was a third of the time in "bench latency --rate 2000"), or the timer.
type waiter struct {
	ask
	c     *conn
	timer *time.Timer
	done  chan struct{} // closed when it is answered
}

func (w *waiter) answer() {
	defer close(w.done)
	w.timer.Stop()
	found := w.part.find(w.off, w.limit, nil)
	out := w.head(nil, found)
	var err error
	if found.size > 0 {
		_, err = w.c.records(out, found)
	} else {
		_, err = w.c.sock.Write(out)
	}
	_ = err // the connection's own goroutine finds out
}

func (w *waiter) expire() {
	if w.part.forget(w) {
		w.answer()
	}
}

// settle waits until the fetch that waits, if any, is answered, or ends it.
func (c *conn) settle(end bool) {
	w := c.waiting
	if w == nil {
		return
	}
	if c.waiting = nil; end && w.part.forget(w) {
		w.timer.Stop()
		return
	}
	<-w.done
}
