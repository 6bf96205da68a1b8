package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/bench/client"
	"github.com/leatstream/leat/internal/bench/socket"
	"github.com/leatstream/leat/internal/record"
)

// pipeline is the number of fetches in flight while the next offset can be predicted.
const pipeline = 2

// ErrEmpty says that a topic has no records to consume.
var ErrEmpty = errors.New("the topic is empty")

// Consume reads a topic from its start to its end as fast as the broker sends it.
func Consume(ctx context.Context, o Options) (*Result, error) {
	if err := o.Validate(KindConsume); err != nil {
		return nil, err
	}
	all, err := planRun(ctx, &o, kmsg.Fetch.Int16(), fetchLow, fetchHigh)
	if err != nil {
		return nil, err
	}
	all = dropRepeatedReaders(all)
	o.Connections = len(all)
	run, err := Connect(ctx, &o, addressesOf(all))
	if err != nil {
		return nil, err
	}
	jobs := make([]func() error, len(all))
	for i, l := range all {
		r := newReader(&o, l, run, i)
		if err := r.findOffsets(ctx, l.addr); err != nil {
			run.Close()
			return nil, err
		}
		jobs[i] = r.readPasses
	}
	r := &Result{Kind: KindConsume, Options: o}
	if err := run.Work(ctx, &o, r, jobs); err != nil {
		return nil, err
	}
	if r.Records == 0 {
		return nil, fmt.Errorf("topic %s: %w", o.Topic, ErrEmpty)
	}
	return r, nil
}

// dropRepeatedReaders drops connections whose partition another connection reads, since both
// would read the same records.
func dropRepeatedReaders(all []*lane) (out []*lane) {
	seen := map[int32]bool{}
	for _, l := range all {
		if !seen[l.partitions[0]] {
			out = append(out, l)
		}
		for _, p := range l.partitions {
			seen[p] = true
		}
	}
	return out
}

// reader reads partitions, one after another, on one connection.
type reader struct {
	o       *Options
	s       *socket.Socket
	stopped func() bool
	count   *Counter
	version int16
	head    int // bytes before the records of an answer
	parts   []*partitionRange
	buf     []byte // an answer's head, and that of its first batch
	body    []byte // an answer's records, if all batches are read
	records int64
	bytes   int64
	reqs    int64
}

// partitionRange is the part of a partition that is to be read.
type partitionRange struct {
	partition  int32
	start, end int64 // offsets
	request    *fetchTemplate
}

// shape is the length and the number of records that all recent batches have. The zero shape
// says that they differ.
type shape struct{ bytes, count int }

func newReader(o *Options, l *lane, run *Run, i int) *reader {
	r := &reader{
		o: o, s: run.Sockets[i], stopped: run.Stopped, count: &run.Counters[i],
		version: l.version, head: fetchHeadLen(l.version, o.Topic),
	}
	r.buf = make([]byte, r.head+record.HeaderLen)
	for _, p := range l.partitions {
		r.parts = append(r.parts, &partitionRange{partition: p, request: newFetchTemplate(l.version, o.Topic, p, o.FetchBytes)})
	}
	return r
}

// findOffsets asks the leader for the partitions' start and end offsets.
func (r *reader) findOffsets(ctx context.Context, addr string) error {
	c, err := client.Dial(ctx, addr)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, p := range r.parts {
		if p.start, err = c.Offset(ctx, r.o.Topic, p.partition, client.Earliest); err != nil {
			return err
		}
		if p.end, err = c.Offset(ctx, r.o.Topic, p.partition, client.Latest); err != nil {
			return err
		}
	}
	return nil
}

// readPasses reads all partitions as often as the options say, or until the run is stopped.
func (r *reader) readPasses() error {
	for pass := 0; r.o.Passes == 0 || pass < r.o.Passes; pass++ {
		before := r.records
		for _, p := range r.parts {
			if err := r.readPartition(p); err != nil {
				return fmt.Errorf("partition %d: %w", p.partition, err)
			}
		}
		if r.stopped() || r.records == before {
			break
		}
	}
	return nil
}

// readPartition reads one partition to its end. While batches are alike it predicts the offset
// after an answer, and sends the fetch of that offset before the answer comes.
func (r *reader) readPartition(p *partitionRange) error {
	var alike shape
	asked := make([]int64, 0, pipeline) // offsets of the fetches in flight, oldest first
	pos, next := p.start, p.start
	for pos < p.end && !r.stopped() {
		step := int64(max(1, r.o.FetchBytes/max(1, alike.bytes)) * alike.count)
		for len(asked) == 0 || step > 0 && len(asked) < pipeline && next < p.end {
			if err := r.s.WriteAll(p.request.at(next)); err != nil {
				return err
			}
			asked = append(asked, next)
			next += step
		}
		now, end, err := r.readAnswer(asked[0], &alike)
		if err != nil {
			return err
		}
		asked = append(asked[:0], asked[1:]...)
		if now == pos && end <= pos {
			return nil // the partition's end has moved back meanwhile
		}
		if mispredicted := now != pos+step; mispredicted {
			// The fetches in flight have wrong offsets: their answers are not wanted.
			for range asked {
				if err := r.discardAnswer(); err != nil {
					return err
				}
			}
			asked, next = asked[:0], now
		}
		r.records += now - pos
		r.reqs++
		r.count.Records.Store(r.records)
		r.count.Bytes.Store(r.bytes)
		r.count.Requests.Store(r.reqs)
		pos = now
	}
	for range asked { // the next partition's answers come after these
		if err := r.discardAnswer(); err != nil {
			return err
		}
	}
	return nil
}

// readAnswer reads one answer and returns the offset after its last whole batch (pos if it has
// none) and the end of the partition. alike is the expected shape, and is set to the one that
// the batches have.
func (r *reader) readAnswer(pos int64, alike *shape) (next, end int64, err error) {
	have, h, err := r.readHead()
	if err != nil || h.records == 0 {
		return pos, h.end, err
	}
	if h.records < record.HeaderLen {
		return 0, 0, ErrShort
	}
	if have, err = r.readUntil(r.buf, have, r.head+record.HeaderLen); err != nil {
		return 0, 0, err
	}
	if alike.matches(r.buf[r.head:], pos) && h.records >= alike.bytes {
		next, err = r.skipAlike(h, pos, alike)
		return next, h.end, err
	}
	size := h.size - r.head
	r.body = slices.Grow(r.body[:0], size)[:size]
	copy(r.body, r.buf[r.head:have])
	if _, err := r.readUntil(r.body, have-r.head, size); err != nil {
		return 0, 0, err
	}
	if next, err = r.countBatches(r.body[:h.records], pos, alike); err != nil {
		return 0, 0, err
	}
	return next, h.end, nil
}

// matches tells whether b begins with a batch of this shape, at an offset.
func (s *shape) matches(b []byte, offset int64) bool {
	batch := record.Batch(b)
	return batch.Size() == s.bytes && int(batch.LastOffsetDelta())+1 == s.count && int64(batch.BaseOffset()) == offset
}

// skipAlike discards the rest of an answer whose first batch has the expected shape. If the
// last whole batch is at the place that it has if all are alike, they are, and it counts them.
// If not, it returns pos, so that the answer is fetched again, and read by countBatches.
func (r *reader) skipAlike(h fetchHead, pos int64, alike *shape) (next int64, err error) {
	n := h.records / alike.bytes
	done := record.HeaderLen // bytes of the records that are read
	if n > 1 {
		if err := r.s.Discard((n-1)*alike.bytes - done); err != nil {
			return 0, err
		}
		if _, err := r.readUntil(r.buf[:record.HeaderLen], 0, record.HeaderLen); err != nil {
			return 0, err
		}
		done = (n-1)*alike.bytes + record.HeaderLen
		if !alike.matches(r.buf, pos+int64((n-1)*alike.count)) {
			*alike = shape{}
		}
	}
	if err := r.s.Discard(h.size - r.head - done); err != nil || alike.count == 0 {
		return pos, err
	}
	r.bytes += int64(n * alike.bytes)
	return pos + int64(n*alike.count), nil
}

// countBatches counts all whole batches in b, which begins at offset pos, returns the offset
// after the last, and sets alike.
func (r *reader) countBatches(b []byte, pos int64, alike *shape) (next int64, err error) {
	next, *alike = pos, shape{}
	same := true
	for len(b) >= record.HeaderLen {
		batch := record.Batch(b)
		size := batch.Size()
		if size < record.HeaderLen || batch.Magic() != 2 {
			return 0, errors.New("the topic has record batches of an old format, or none")
		}
		if size > len(b) {
			break
		}
		s := shape{bytes: size, count: int(batch.LastOffsetDelta()) + 1}
		same = same && (next == pos || s == *alike) && int64(batch.BaseOffset()) == next
		*alike = s
		next = int64(batch.NextOffset())
		r.bytes += int64(size)
		b = b[size:]
	}
	if next == pos {
		return 0, errors.New("a batch is larger than --fetch-bytes: use a larger one")
	}
	if !same {
		*alike = shape{}
	}
	return next, nil
}

// discardAnswer reads an answer that is not wanted.
func (r *reader) discardAnswer() error {
	have, h, err := r.readHead()
	if err != nil {
		return err
	}
	return r.s.Discard(h.size - have)
}

// readHead reads an answer's bytes before the records into buf, but nothing of the next
// answer. It returns how many bytes it has read.
func (r *reader) readHead() (have int, h fetchHead, err error) {
	// Only a refusal, which ends the run, is shorter than r.head. So a read of at most r.head
	// bytes takes nothing of the next answer.
	if have, err = r.readUntil(r.buf[:r.head], 0, 4); err != nil {
		return 0, h, err
	}
	size := 4 + int(int32(be.Uint32(r.buf)))
	if size < 4 {
		return 0, h, ErrShort
	}
	if have, err = r.readUntil(r.buf[:r.head], have, min(size, r.head)); err != nil {
		return 0, h, err
	}
	h, err = parseFetchHead(r.version, r.buf[:have])
	return have, h, err
}

// readUntil reads into b, which has have bytes already, until it has at least want, and returns
// how many it has.
func (r *reader) readUntil(b []byte, have, want int) (int, error) {
	for have < want {
		n, err := r.s.Read(b[have:])
		if err != nil {
			return have, err
		}
		have += n
	}
	return have, nil
}
