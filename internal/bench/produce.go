package bench

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/record"
)

func produceCommand() *cobra.Command {
	o := defaults()
	cmd := &cobra.Command{
		Use:   "produce",
		Short: "Produce as fast as the broker takes it",
		Example: `  leat bench produce --size 1024 --batch 16 --in-flight 32
  leat bench produce --partitions 64 --acks 1 --duration 30s --pid $(pidof leat)`,
	}
	f := cmd.Flags()
	f.DurationVarP(&o.Duration, "duration", "d", o.Duration, "how long to run")
	f.Int64Var(&o.Records, "records", 0, "end after so many records (0: by --duration only)")
	f.IntVar(&o.Size, "size", o.Size, "bytes of a record's value")
	f.IntVar(&o.Batch, "batch", o.Batch, "records in a batch; a batch is a request")
	f.IntVar(&o.InFlight, "in-flight", o.InFlight, "requests in flight on each connection")
	f.IntVar(&o.Connections, "connections", 0, "connections (0: one for each partition)")
	f.IntVar(&o.PerRequest, "per-request", 1, "partitions in one request, a batch for each")
	f.IntVar(&o.Threads, "threads", 0, "threads of this program that send (0: one for each of a few connections, two for many)")
	f.StringVar(&o.Congestion, "congestion", "", "TCP congestion control of this side's sockets, say reno (Linux; default: the system's)")
	f.StringVar(&o.Acks, "acks", o.Acks, "0, 1 or all")
	f.StringVar(&o.Compression, "compression", o.Compression, "none, gzip, snappy, lz4 or zstd; done once, before the clock starts")
	f.IntVar(&o.WriteBytes, "write-bytes", o.WriteBytes, "requests sent by one write, in bytes (0: each request by itself, as ordinary clients do)")
	bindTopic(cmd, &o)
	return bind(cmd, &o, Produce)
}

// Produce runs the load generator that produces.
func Produce(ctx context.Context, o Options) (*Result, error) {
	if o.Duration == 0 && o.Records == 0 {
		return nil, errors.New("it would never end: use --duration or --records")
	}
	c, all, err := prepare(ctx, &o, true, kmsg.Produce.Int16(), produceLow, produceHigh)
	if err != nil {
		return nil, err
	}
	c.close()
	requests := (o.Records + int64(o.Batch) - 1) / int64(o.Batch)
	if o.Records > 0 && o.PerRequest > 1 {
		each := int64(o.PerRequest)
		requests = (requests + each - 1) / each
	}
	limits := make([]int64, len(all))
	for i := range limits {
		if n := int64(len(all)); requests > 0 { // else there is no limit
			if limits[i] = requests*int64(i+1)/n - requests*int64(i)/n; limits[i] == 0 {
				limits[i] = -1
			}
		}
	}
	r := &Result{Kind: "produce", Options: o}
	return r, produce(ctx, &o, all, limits, r)
}

// produce sends on all lanes until each has sent as many requests as it may (0: no
// limit; less: none), or the duration is over.
func produce(ctx context.Context, o *Options, all []*lane, limits []int64, r *Result) error {
	crew, err := connect(ctx, o, addresses(all))
	if err != nil {
		return err
	}
	producers := make([]*producer, len(all))
	for i, l := range all {
		if producers[i], err = newProducer(o, l, crew, i); err != nil {
			crew.close()
			return err
		}
		producers[i].limit = limits[i]
	}
	var jobs []func() error
	n := threads(o, len(all))
	for i := range n {
		mine := producers[i*len(all)/n : (i+1)*len(all)/n]
		if len(mine) == 1 {
			jobs = append(jobs, mine[0].run)
			continue
		}
		jobs = append(jobs, func() error { return serve(mine) })
	}
	return crew.work(ctx, o, r, jobs)
}

// producer sends a ring of requests again and again on one connection.
type producer struct {
	o       *Options
	s       *socket
	stop    func() bool
	count   *counter
	version int16

	ring    []byte  // requests, one after another
	starts  []int   // of each request in ring, and the ring's length
	records []int64 // in all requests before each one, and in all
	bytes   []int64 // likewise, of batches
	write   int     // requests sent by one call
	limit   int64   // requests to send; 0: no limit, less: none
	answer  int     // bytes, at least
	acks    int16

	ended       bool // nothing more is sent
	at          int  // request in ring that is next
	sent, acked int64
	in          []byte
	have        int // bytes of in that are not read yet
}

func newProducer(o *Options, l *lane, c *crew, i int) (*producer, error) {
	codec, err := o.codec()
	if err != nil {
		return nil, err
	}
	acks, err := o.acks()
	if err != nil {
		return nil, err
	}
	each := max(1, min(o.PerRequest, len(l.partitions)))
	p := &producer{
		o: o, s: c.sockets[i], stop: c.stop.Load, count: &c.counters[i], version: l.version, acks: acks, write: 1,
		records: []int64{0}, bytes: []int64{0}, answer: produceAnswer(l.version, o.Topic, each),
	}
	p.in = make([]byte, max(64<<10, 2*p.answer))
	now := time.Now().UnixMilli()
	next, rounds := 0, 0 // partition of the lane; how often all of them have had a batch
	for n := 0; n == 0 || n < p.write || rounds == 0; n++ {
		var partitions []int32
		var batches []record.Batch
		size := int64(0)
		for range min(each, len(l.partitions)-next) {
			batch, err := makeBatch(codec, o.Batch, o.Size, now, uint64(i)<<32|uint64(n)<<12|uint64(len(batches)))
			if err != nil {
				return nil, err
			}
			size += int64(len(batch))
			batches = append(batches, batch)
			partitions = append(partitions, l.partitions[next])
			next++
		}
		if next == len(l.partitions) {
			next, rounds = 0, rounds+1
		}
		p.starts = append(p.starts, len(p.ring))
		p.ring = append(p.ring, produceRequest(l.version, acks, o.Topic, partitions, batches)...)
		p.records = append(p.records, p.records[n]+int64(len(batches)*o.Batch))
		p.bytes = append(p.bytes, p.bytes[n]+size)
		p.answer = min(p.answer, produceAnswer(l.version, o.Topic, len(batches)))
		if n == 0 {
			p.write = max(1, min(o.WriteBytes/len(p.ring), o.InFlight))
		}
	}
	p.starts = append(p.starts, len(p.ring))
	return p, nil
}

// run produces on a connection that has a thread of its own.
func (p *producer) run() error {
	for {
		if err := p.fill(); err != nil || p.done() {
			return err
		}
		if err := p.s.wait(); err != nil {
			return err
		}
		if err := p.reap(); err != nil {
			return err
		}
	}
}

// serve produces on many connections in one thread.
func serve(all []*producer) error {
	sockets, open := make([]*socket, len(all)), 0
	for i, p := range all {
		sockets[i] = p.s
		if err := p.fill(); err != nil {
			return err
		}
		if !p.done() {
			open++
		}
	}
	return watch(sockets, open, func(i int) (bool, error) {
		p := all[i]
		if err := p.reap(); err != nil {
			return false, err
		}
		err := p.fill()
		return p.done(), err
	})
}

// done tells whether all that is to be sent is sent and acknowledged.
func (p *producer) done() bool { return p.ended && p.acked == p.sent }

// fill sends as much as may be in flight, and sets how many answers wake its reader.
func (p *producer) fill() error {
	for !p.ended && (p.acks == 0 || p.sent-p.acked+int64(p.write) <= int64(p.o.InFlight)) {
		n := min(p.write, len(p.starts)-1-p.at)
		if p.limit != 0 {
			n = int(max(0, min(int64(n), p.limit-p.sent)))
		}
		if n == 0 || p.stop() {
			p.ended = true
			break
		}
		if err := p.s.write(p.ring[p.starts[p.at]:p.starts[p.at+n]]); err != nil {
			return err
		}
		p.sent += int64(n)
		if p.at += n; p.at == len(p.starts)-1 {
			p.at = 0
		}
		if p.acks == 0 {
			p.acked = p.sent
			p.note()
		}
	}
	// One wake-up brings the answers of one write, but the reader never waits for
	// more than must be on its way. It saves half of the client's CPU against a
	// broker that answers one by one.
	return p.s.setLow(p.answer*int(min(int64(p.write), p.sent-p.acked)) - p.have)
}

// reap reads answers, if there are any.
func (p *producer) reap() error {
	n, err := p.s.take(p.in[p.have:])
	if err != nil {
		return err
	}
	p.have += n
	at := 0
	for p.have-at >= 4 {
		size := int(int32(be.Uint32(p.in[at:])))
		if size < 0 || size > len(p.in)-4 {
			return errShort
		}
		if p.have-at < 4+size {
			break
		}
		if err := produceError(p.version, p.in[at+4:at+4+size]); err != nil {
			return err
		}
		at += 4 + size
		p.acked++
	}
	p.have = copy(p.in, p.in[at:p.have])
	p.note()
	return nil
}

func (p *producer) note() {
	ring := int64(len(p.starts) - 1)
	rounds, rest := p.acked/ring, p.acked%ring
	p.count.requests.Store(p.acked)
	p.count.records.Store(rounds*p.records[ring] + p.records[rest])
	p.count.bytes.Store(rounds*p.bytes[ring] + p.bytes[rest])
}
