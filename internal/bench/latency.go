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

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/record"
)

const (
	stampSize  = 16               // of a value's begin: the run's mark and the record's number
	warmUp     = time.Second      // not measured
	lostAfter  = 10 * time.Second // the last record was due so long ago
	maxSamples = 50_000_000
)

// errBehind is returned where records that were sent have not come back in time:
// they are lost, or the broker is slower than the rate.
var errBehind = errors.New("records have not come back")

func latencyCommand() *cobra.Command {
	o := defaults()
	o.Size, o.Batch, o.InFlight = 100, 1, 1
	cmd := &cobra.Command{
		Use:   "latency",
		Short: "Send records at a fixed rate and time their acknowledgement and their arrival at a consumer",
		Long: `Send records at a fixed rate, each in a request of its own, and time their acknowledgement and their arrival at a consumer.

Times count from the moment at which a record was due, not from the one at which it could be sent: a stall of the broker is seen
in every record that it delays. The first second is not counted.`,
		Example: `  leat bench latency --rate 1000 --size 100
  leat bench latency --rate 5000 --size 1024 --acks 1 --duration 30s`,
	}
	f := cmd.Flags()
	f.DurationVarP(&o.Duration, "duration", "d", o.Duration, "how long to run")
	f.IntVar(&o.Rate, "rate", o.Rate, "records a second")
	f.IntVar(&o.Size, "size", o.Size, "bytes of a record's value, at least 16")
	f.StringVar(&o.Acks, "acks", o.Acks, "0, 1 or all")
	bindTopic(cmd, &o)
	return bind(cmd, &o, Latency)
}

// Latency measures times at a fixed rate.
func Latency(ctx context.Context, o Options) (*Result, error) {
	warm, total := int(float64(o.Rate)*warmUp.Seconds()), int(float64(o.Rate)*(warmUp+o.Duration).Seconds())
	switch {
	case o.Size < stampSize:
		return nil, fmt.Errorf("--size %d is too small: at least %d", o.Size, stampSize)
	case o.Duration <= 0:
		return nil, errors.New("it would never end: use --duration")
	case total > maxSamples:
		return nil, fmt.Errorf("%d records are too many to time: use a lower --rate or --duration", total)
	}
	c, all, err := prepare(ctx, &o, true, kmsg.Produce.Int16(), produceLow, produceHigh)
	if err != nil {
		return nil, err
	}
	defer c.close()
	leader := all[0].addr
	p, err := newPacer(ctx, &o, all[0], total)
	if err != nil {
		return nil, err
	}
	crew, err := connect(ctx, &o, []string{leader, leader})
	if err != nil {
		return nil, err
	}
	p.producer, p.consumer, p.count = crew.sockets[0], crew.sockets[1], &crew.counters[0]
	jobs := []func() error{p.send, p.consume}
	if p.acks != 0 {
		jobs = append(jobs, p.confirm)
	}
	// A record that never comes must not keep the run for ever.
	limit := (warmUp + o.Duration + lostAfter)
	watch := time.AfterFunc(limit, func() {
		crew.fail(fmt.Errorf("%d of %d %w within %s: the broker is slower than --rate, or has lost them",
			total-int(p.got.Load()), total, errBehind, lostAfter))
	})
	defer watch.Stop()
	r := &Result{Kind: "latency", Options: o}
	untimed := o
	untimed.Duration = 0
	if err := crew.work(ctx, &untimed, r, jobs); err != nil {
		return nil, err
	}
	r.EndToEnd = quantiles(p.arrived[warm:])
	r.SenderLate = quantiles(p.late[warm:])
	if p.acks != 0 {
		r.Ack = quantiles(p.acked[warm:])
	}
	return r, nil
}

// pacer sends records when they are due, on one connection, and reads them on
// another. Record i is due at begin + i*gap.
type pacer struct {
	o       *Options
	acks    int16
	version int16
	gap     time.Duration
	total   int

	begin    atomic.Pointer[time.Time] // set by send; nothing is answered before
	producer *socket                   // written by send, read by confirm
	consumer *socket
	count    *counter
	got      atomic.Int64

	request []byte
	batch   record.Batch // in request
	value   []byte       // in request
	mark    uint64
	fetch   *fetchTemplate
	fetchV  int16
	from    int64 // offset to consume from

	late, acked, arrived []time.Duration // of each record; send's, confirm's, consume's
}

func newPacer(ctx context.Context, o *Options, l *lane, total int) (*pacer, error) {
	acks, err := o.acks()
	if err != nil {
		return nil, err
	}
	c, err := dial(ctx, l.addr)
	if err != nil {
		return nil, err
	}
	defer c.close()
	p := &pacer{
		o: o, acks: acks, version: l.version, gap: time.Second / time.Duration(o.Rate), total: total,
		mark: rand.Uint64(), late: make([]time.Duration, total), acked: make([]time.Duration, total),
		arrived: make([]time.Duration, total),
	}
	if p.fetchV, err = c.pick(kmsg.Fetch.Int16(), fetchLow, fetchHigh); err != nil {
		return nil, err
	}
	if p.from, err = c.offset(ctx, o.Topic, 0, latest); err != nil {
		return nil, err
	}
	p.fetch = newFetchTemplate(p.fetchV, o.Topic, 0, 1<<20)
	batch, err := makeBatch(record.None, 1, o.Size, time.Now().UnixMilli(), p.mark)
	if err != nil {
		return nil, err
	}
	p.request = produceRequest(l.version, acks, o.Topic, []int32{0}, []record.Batch{batch})
	p.batch = record.Batch(p.request[len(p.request)-len(batch):])
	p.value = p.batch[len(batch)-1-o.Size:] // before the count of headers, one byte
	return p, nil
}

func (p *pacer) send() error {
	sharpTimers()
	begin := time.Now().Add(50 * time.Millisecond)
	p.begin.Store(&begin)
	for i := range p.total {
		due := begin.Add(time.Duration(i) * p.gap)
		preciseSleep(due)
		p.late[i] = time.Since(due)
		be.PutUint64(p.value, p.mark)
		be.PutUint64(p.value[8:], uint64(i))
		stamp(p.batch, time.Now().UnixMilli())
		if err := p.producer.write(p.request); err != nil {
			return err
		}
	}
	return nil
}

// stamp sets the time of a batch of one record, and its checksum.
func stamp(b record.Batch, ms int64) {
	const crc, baseTime, maxTime = 17, 27, 35 // places in the batch's head
	be.PutUint64(b[baseTime:], uint64(ms))
	be.PutUint64(b[maxTime:], uint64(ms))
	be.PutUint32(b[crc:], b.Checksum())
}

// since is the time that has passed since record i was due.
func (p *pacer) since(i int) time.Duration {
	return time.Since(p.begin.Load().Add(time.Duration(i) * p.gap))
}

// confirm reads acknowledgements.
func (p *pacer) confirm() error {
	in := make([]byte, 64<<10)
	have := 0
	for i := 0; i < p.total; {
		n, err := p.producer.read(in[have:])
		if err != nil {
			return err
		}
		have += n
		at := 0
		for have-at >= 4 {
			size := int(int32(be.Uint32(in[at:])))
			if size < 0 || size > len(in)-4 || i == p.total {
				return errShort
			}
			if have-at < 4+size {
				break
			}
			if err := produceError(p.version, in[at+4:at+4+size]); err != nil {
				return err
			}
			p.acked[i] = p.since(i)
			i++
			at += 4 + size
		}
		have = copy(in, in[at:have])
	}
	return nil
}

// consume reads the records back.
func (p *pacer) consume() error {
	r := &reader{
		o: p.o, s: p.consumer, version: p.fetchV, head: fetchHeadLen(p.fetchV, p.o.Topic),
	}
	r.buf = make([]byte, r.head)
	body := make([]byte, 1<<20)
	pos := p.from
	for i := 0; i < p.total; {
		if err := p.consumer.write(p.fetch.at(pos)); err != nil {
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
		if _, err := r.fill(body[:rest], 0, rest); err != nil {
			return err
		}
		if i, pos, err = p.match(body[:h.records], i, pos); err != nil {
			return err
		}
	}
	return nil
}

// match finds the run's records among those that came; number i is expected next.
func (p *pacer) match(b []byte, i int, pos int64) (int, int64, error) {
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
		value := b[max(0, size-1-p.o.Size):size] // where the record of a batch of this run has it
		b = b[size:]
		if size != len(p.batch) || be.Uint64(value) != p.mark {
			continue // somebody else's
		}
		if n := be.Uint64(value[8:]); n != uint64(i) {
			return 0, 0, fmt.Errorf("record %d came where record %d was due: the broker has lost, repeated or reordered some", n, i)
		}
		p.arrived[i] = p.since(i)
		i++
		p.got.Store(int64(i))
		p.count.records.Add(1)
		p.count.requests.Add(1)
		p.count.bytes.Add(int64(size))
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

// quantiles sorts d.
func quantiles(d []time.Duration) *Quantiles {
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
