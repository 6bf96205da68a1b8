package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/bench/client"
	"github.com/leatstream/leat/internal/bench/socket"
	"github.com/leatstream/leat/internal/record"
)

// WarmUp is the time at the beginning of a timed run that is not measured. LostAfter is the
// time after the last record was due at which a run gives up the records that are missing.
const (
	WarmUp    = time.Second
	LostAfter = 10 * time.Second
)

const (
	stampSize  = 16 // bytes at the beginning of a value: the run's mark and the record's number
	maxSamples = 50_000_000
)

// ErrBehind says that sent records have not come back in time: they are lost, or the broker
// is slower than the rate.
var ErrBehind = errors.New("records have not come back")

// Latency sends records to a topic's first partition at a fixed rate, each in a request
// of its own, and times their acknowledgement and their arrival at a consumer. Times
// count from the moment at which a record was due, not from the one at which it could
// be sent, so that a stall of the broker shows in every record that it delays.
func Latency(ctx context.Context, o Options) (*Result, error) {
	o.Partitions, o.Connections, o.Batch, o.InFlight = 1, 1, 1, 1
	if err := o.Validate(KindLatency); err != nil {
		return nil, err
	}
	warm, total := int(float64(o.Rate)*WarmUp.Seconds()), o.countTimed()
	all, err := planRun(ctx, &o, kmsg.Produce.Int16(), ProduceLow, ProduceHigh)
	if err != nil {
		return nil, err
	}
	leader := all[0].addr
	p, err := newPacer(ctx, &o, all[0], total)
	if err != nil {
		return nil, err
	}
	run, err := Connect(ctx, &o, []string{leader, leader})
	if err != nil {
		return nil, err
	}
	p.producer, p.consumer, p.count = run.Sockets[0], run.Sockets[1], &run.Counters[0]
	jobs := []func() error{p.sendRecords, p.consumeRecords}
	if p.acks != 0 {
		jobs = append(jobs, p.readAcks)
	}
	// A run must end even if a record never comes.
	giveUp := time.AfterFunc(WarmUp+o.Duration+LostAfter, func() {
		run.Fail(fmt.Errorf("%d of %d %w within %s: the broker is slower than --rate, or has lost them",
			total-int(p.got.Load()), total, ErrBehind, LostAfter))
	})
	defer giveUp.Stop()
	r := &Result{Kind: KindLatency, Options: o}
	untimed := o
	untimed.Duration = 0
	if err := run.Work(ctx, &untimed, r, jobs); err != nil {
		return nil, err
	}
	r.EndToEnd = NewQuantiles(p.arrived[warm:])
	r.SenderLate = NewQuantiles(p.late[warm:])
	if p.acks != 0 {
		r.Ack = NewQuantiles(p.acked[warm:])
	}
	return r, nil
}

// countTimed is the number of records that a timed run sends.
func (o *Options) countTimed() int {
	return int(float64(o.Rate) * (WarmUp + o.Duration).Seconds())
}

// pacer sends records when they are due, on one connection, and reads them on
// another. Record i is due at begin + i*gap.
type pacer struct {
	o       *Options
	acks    int16
	version int16
	gap     time.Duration
	total   int

	begin    atomic.Pointer[time.Time] // set by sendRecords before it sends anything
	producer *socket.Socket            // written by sendRecords, read by readAcks
	consumer *socket.Socket
	count    *Counter
	got      atomic.Int64 // records that have arrived

	request []byte
	batch   record.Batch // in request
	value   []byte       // in request
	mark    uint64       // at the beginning of each value of this run
	fetch   *fetchTemplate
	fetchV  int16
	from    int64 // offset to consume from

	// How long after it was due each record was sent, acknowledged and received. sendRecords,
	// readAcks and consumeRecords have one each.
	late, acked, arrived []time.Duration
}

func newPacer(ctx context.Context, o *Options, l *lane, total int) (*pacer, error) {
	acks, err := o.parseAcks()
	if err != nil {
		return nil, err
	}
	c, err := client.Dial(ctx, l.addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	p := &pacer{
		o: o, acks: acks, version: l.version, gap: time.Second / time.Duration(o.Rate), total: total,
		mark: rand.Uint64(), late: make([]time.Duration, total), acked: make([]time.Duration, total),
		arrived: make([]time.Duration, total),
	}
	if p.fetchV, err = c.PickVersion(kmsg.Fetch.Int16(), fetchLow, fetchHigh); err != nil {
		return nil, err
	}
	if p.from, err = c.Offset(ctx, o.Topic, 0, client.Latest); err != nil {
		return nil, err
	}
	p.fetch = newFetchTemplate(p.fetchV, o.Topic, 0, 1<<20)
	batch, err := MakeBatch(record.None, 1, o.Size, time.Now().UnixMilli(), p.mark)
	if err != nil {
		return nil, err
	}
	p.request = EncodeProduce(l.version, acks, o.Topic, []int32{0}, []record.Batch{batch})
	p.batch = record.Batch(p.request[len(p.request)-len(batch):])
	p.value = p.batch[len(batch)-1-o.Size:] // one byte follows it, the number of headers
	return p, nil
}

// sendRecords sends each record when it is due.
func (p *pacer) sendRecords() error {
	socket.SharpenTimers()
	begin := time.Now().Add(50 * time.Millisecond)
	p.begin.Store(&begin)
	for i := range p.total {
		due := begin.Add(time.Duration(i) * p.gap)
		socket.SleepUntil(due)
		p.late[i] = time.Since(due)
		be.PutUint64(p.value, p.mark)
		be.PutUint64(p.value[8:], uint64(i))
		setTime(p.batch, time.Now().UnixMilli())
		if err := p.producer.WriteAll(p.request); err != nil {
			return err
		}
	}
	return nil
}

// setTime sets the time of a batch of one record, and its checksum.
func setTime(b record.Batch, ms int64) {
	const crc, baseTime, maxTime = 17, 27, 35 // places in the batch's head
	be.PutUint64(b[baseTime:], uint64(ms))
	be.PutUint64(b[maxTime:], uint64(ms))
	be.PutUint32(b[crc:], b.Checksum())
}

// sinceDue is the time that has passed since record i was due.
func (p *pacer) sinceDue(i int) time.Duration {
	return time.Since(p.begin.Load().Add(time.Duration(i) * p.gap))
}

// readAcks reads the acknowledgements.
func (p *pacer) readAcks() error {
	in := make([]byte, 64<<10)
	have := 0
	for i := 0; i < p.total; {
		n, err := p.producer.Read(in[have:])
		if err != nil {
			return err
		}
		have += n
		at := 0
		for have-at >= 4 {
			size := int(int32(be.Uint32(in[at:])))
			if size < 0 || size > len(in)-4 || i == p.total {
				return ErrShort
			}
			if have-at < 4+size {
				break
			}
			if err := ProduceError(p.version, in[at+4:at+4+size]); err != nil {
				return err
			}
			p.acked[i] = p.sinceDue(i)
			i++
			at += 4 + size
		}
		have = copy(in, in[at:have])
	}
	return nil
}

// consumeRecords reads the records from the topic.
func (p *pacer) consumeRecords() error {
	r := &reader{
		o: p.o, s: p.consumer, version: p.fetchV, head: fetchHeadLen(p.fetchV, p.o.Topic),
	}
	r.buf = make([]byte, r.head)
	body := make([]byte, 1<<20)
	pos := p.from
	for i := 0; i < p.total; {
		if err := p.consumer.WriteAll(p.fetch.at(pos)); err != nil {
			return err
		}
		_, h, err := r.readHead()
		if err != nil {
			return err
		}
		rest := h.size - r.head
		if rest > len(body) {
			body = make([]byte, rest)
		}
		if _, err := r.readUntil(body[:rest], 0, rest); err != nil {
			return err
		}
		if i, pos, err = p.matchRecords(body[:h.records], i, pos); err != nil {
			return err
		}
	}
	return nil
}

// matchRecords finds the run's records in the batches of b; number i is expected next. It
// returns the number that is expected then, and the offset after the last whole batch.
func (p *pacer) matchRecords(b []byte, i int, pos int64) (int, int64, error) {
	for len(b) >= record.HeaderLen {
		batch := record.Batch(b)
		size := batch.Size()
		if size < record.HeaderLen || batch.Magic() != 2 {
			return 0, 0, errors.New("the topic has record batches of an old format, or none")
		}
		if size > len(b) {
			break
		}
		pos = int64(batch.NextOffset())
		value := b[max(0, size-1-p.o.Size):size] // if it is a batch of this run
		b = b[size:]
		if size != len(p.batch) || be.Uint64(value) != p.mark {
			continue // of another run
		}
		if n := be.Uint64(value[8:]); n != uint64(i) {
			return 0, 0, fmt.Errorf("record %d came where record %d was due: the broker has lost, repeated or reordered some", n, i)
		}
		p.arrived[i] = p.sinceDue(i)
		i++
		p.got.Store(int64(i))
		p.count.Records.Add(1)
		p.count.Requests.Add(1)
		p.count.Bytes.Add(int64(size))
	}
	return i, pos, nil
}

// Quantiles describe times in microseconds.
type Quantiles struct {
	Count int     `json:"count"`
	P50   float64 `json:"p50_us"`
	P90   float64 `json:"p90_us"`
	P99   float64 `json:"p99_us"`
	P999  float64 `json:"p999_us"`
	Max   float64 `json:"max_us"`
}

// NewQuantiles sorts d and returns its quantiles; nil if d is empty.
func NewQuantiles(d []time.Duration) *Quantiles {
	if len(d) == 0 {
		return nil
	}
	slices.Sort(d)
	at := func(q float64) float64 {
		i := max(0, int(math.Ceil(q*float64(len(d))))-1)
		return float64(d[i].Nanoseconds()) / 1e3
	}
	return &Quantiles{Count: len(d), P50: at(.5), P90: at(.9), P99: at(.99), P999: at(.999), Max: at(1)}
}
