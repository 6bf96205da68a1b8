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

// pipeline is how many fetches are in flight where the next offset can be foreseen.
const pipeline = 2

// ErrEmpty is returned where a topic has nothing to be consumed.
var ErrEmpty = errors.New("the topic is empty")

// Consume reads a topic from its start to its end as fast as the broker gives it.
func Consume(ctx context.Context, o Options) (*Result, error) {
	if err := o.Validate(KindConsume); err != nil {
		return nil, err
	}
	all, err := prepare(ctx, &o, kmsg.Fetch.Int16(), fetchLow, fetchHigh)
	if err != nil {
		return nil, err
	}
	all = dropRepeatedReaders(all)
	o.Connections = len(all)
	run, err := Connect(ctx, &o, addresses(all))
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
		jobs[i] = r.run
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

// dropRepeatedReaders drops connections to a partition that another one reads:
// several readers of one partition would read the same.
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
	parts   []*stretch
	buf     []byte // an answer's head, and that of its first batch
	body    []byte // an answer's records, where they are looked at
	records int64
	bytes   int64
	reqs    int64
}

// stretch is what is to be read of a partition.
type stretch struct {
	partition  int32
	start, end int64 // offsets
	ask        *fetchTemplate
}

// shape is what batches look like while they are all alike.
type shape struct{ bytes, count int }

func newReader(o *Options, l *lane, run *Run, i int) *reader {
	r := &reader{
		o: o, s: run.Sockets[i], stopped: run.Stopped, count: &run.Counters[i],
		version: l.version, head: fetchHeadLen(l.version, o.Topic),
	}
	r.buf = make([]byte, r.head+record.HeaderLen)
	for _, p := range l.partitions {
		r.parts = append(r.parts, &stretch{partition: p, ask: newFetchTemplate(l.version, o.Topic, p, o.FetchBytes)})
	}
	return r
}

// findOffsets asks where the partitions begin and end.
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

func (r *reader) run() error {
	for pass := 0; r.o.Passes == 0 || pass < r.o.Passes; pass++ {
		before := r.records
		for _, p := range r.parts {
			if err := r.read(p); err != nil {
				return fmt.Errorf("partition %d: %w", p.partition, err)
			}
		}
		if r.stopped() || r.records == before {
			break
		}
	}
	return nil
}

// read reads one partition to its end.
func (r *reader) read(p *stretch) error {
	var alike shape
	asked := make([]int64, 0, pipeline) // offsets of the fetches in flight, oldest first
	pos, next := p.start, p.start
	for pos < p.end && !r.stopped() {
		step := int64(max(1, r.o.FetchBytes/max(1, alike.bytes)) * alike.count)
		for len(asked) == 0 || step > 0 && len(asked) < pipeline && next < p.end {
			if err := r.s.WriteAll(p.ask.at(next)); err != nil {
				return err
			}
			asked = append(asked, next)
			next += step
		}
		now, end, err := r.answer(asked[0], &alike)
		if err != nil {
			return err
		}
		asked = append(asked[:0], asked[1:]...)
		if now == pos && end <= pos {
			return nil // the log was cut meanwhile
		}
		if short := now != pos+step; short {
			// Those in flight ask for the wrong offsets: read them away.
			for range asked {
				if err := r.drop(); err != nil {
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
		if err := r.drop(); err != nil {
			return err
		}
	}
	return nil
}

// answer reads one answer and returns the offset after its last whole batch (pos
// where it has none) and the end of the partition. alike is the shape that is
// expected, and set to what was found.
func (r *reader) answer(pos int64, alike *shape) (next, end int64, err error) {
	have, h, err := r.readHead()
	if err != nil || h.records == 0 {
		return pos, h.end, err
	}
	if h.records < record.HeaderLen {
		return 0, 0, ErrShort
	}
	if have, err = r.fill(r.buf, have, r.head+record.HeaderLen); err != nil {
		return 0, 0, err
	}
	if alike.matches(r.buf[r.head:], pos) && h.records >= alike.bytes {
		next, err = r.skim(h, pos, alike)
		return next, h.end, err
	}
	size := h.size - r.head
	r.body = slices.Grow(r.body[:0], size)[:size]
	copy(r.body, r.buf[r.head:have])
	if _, err := r.fill(r.body, have-r.head, size); err != nil {
		return 0, 0, err
	}
	if next, err = r.walk(r.body[:h.records], pos, alike); err != nil {
		return 0, 0, err
	}
	return next, h.end, nil
}

// matches tells whether b begins with a batch of this shape, at an offset.
func (s *shape) matches(b []byte, offset int64) bool {
	batch := record.Batch(b)
	return batch.Size() == s.bytes && int(batch.LastOffsetDelta())+1 == s.count && int64(batch.BaseOffset()) == offset
}

// skim ends an answer whose first batch, the head of which was read, looks like
// those before it. If the last whole one is where it would be if all were alike,
// they are; else nothing is known of the answer, and it must be asked for again.
func (r *reader) skim(h fetchHead, pos int64, alike *shape) (next int64, err error) {
	n := h.records / alike.bytes
	done := record.HeaderLen // of the records, read
	if n > 1 {
		if err := r.s.Discard((n-1)*alike.bytes - done); err != nil {
			return 0, err
		}
		if _, err := r.fill(r.buf[:record.HeaderLen], 0, record.HeaderLen); err != nil {
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

// walk looks at every batch.
func (r *reader) walk(b []byte, pos int64, alike *shape) (next int64, err error) {
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

// drop reads an answer that is not wanted.
func (r *reader) drop() error {
	have, h, err := r.readHead()
	if err != nil {
		return err
	}
	return r.s.Discard(h.size - have)
}

// readHead reads what stands before the records into buf, and maybe the first of
// them, but nothing of the next answer. It tells how much was read.
func (r *reader) readHead() (have int, h fetchHead, err error) {
	// An answer without records ends with its head, and one with some has at least
	// a batch's head; so asking for the former cannot take from the next answer.
	if have, err = r.fill(r.buf[:r.head], 0, 4); err != nil {
		return 0, h, err
	}
	size := 4 + int(int32(be.Uint32(r.buf)))
	if size < 4 {
		return 0, h, ErrShort
	}
	if have, err = r.fill(r.buf[:r.head], have, min(size, r.head)); err != nil {
		return 0, h, err
	}
	h, err = parseFetchHead(r.version, r.buf[:have])
	return have, h, err
}

// fill reads into b, which has the first have bytes, until it has want.
func (r *reader) fill(b []byte, have, want int) (int, error) {
	for have < want {
		n, err := r.s.Read(b[have:])
		if err != nil {
			return have, err
		}
		have += n
	}
	return have, nil
}
