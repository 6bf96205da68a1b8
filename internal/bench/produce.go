package bench

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kmsg"
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
	crew, err := connect(ctx, addresses(all))
	if err != nil {
		return nil, err
	}
	jobs := make([]func() error, len(all))
	for i, l := range all {
		p, err := newProducer(&o, l, crew, i)
		if err != nil {
			crew.close()
			return nil, err
		}
		if requests := (o.Records + int64(o.Batch) - 1) / int64(o.Batch); requests > 0 {
			n := int64(len(all))
			p.limit = requests*int64(i+1)/n - requests*int64(i)/n
			if p.limit == 0 {
				jobs[i] = func() error { return nil }
				continue
			}
		}
		jobs[i] = p.run
	}
	r := &Result{Kind: "produce", Options: o}
	return r, crew.work(ctx, &o, r, jobs)
}

// producer sends a ring of requests again and again on one connection.
type producer struct {
	o     *Options
	s     *socket
	stop  func() bool
	count *counter

	ring   []byte  // requests, one after another
	starts []int   // of each request in ring, and the ring's length
	bytes  float64 // of a batch, on average
	write  int     // requests sent by one call
	limit  int64   // requests to send; 0: no limit
	answer int     // bytes
	acks   int16

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
	p := &producer{
		o: o, s: c.sockets[i], stop: c.stop.Load, count: &c.counters[i],
		answer: produceAnswer(l.version, o.Topic), acks: acks, in: make([]byte, 64<<10), write: 1,
	}
	now := time.Now().UnixMilli()
	total := 0
	for n := 0; n == 0 || n < max(p.write, len(l.partitions)); n++ {
		batch, err := makeBatch(codec, o.Batch, o.Size, now, uint64(i)<<32|uint64(n))
		if err != nil {
			return nil, err
		}
		total += len(batch)
		p.starts = append(p.starts, len(p.ring))
		p.ring = append(p.ring, produceRequest(l.version, acks, o.Topic, l.partitions[n%len(l.partitions)], batch)...)
		if n == 0 {
			p.write = max(1, min(o.WriteBytes/len(p.ring), o.InFlight))
		}
	}
	p.bytes = float64(total) / float64(len(p.starts))
	p.starts = append(p.starts, len(p.ring))
	return p, nil
}

func (p *producer) run() error {
	// One wake-up brings the answers of one write, but it never waits for more
	// than must be outstanding when the reader waits.
	if err := p.s.setLow(p.answer * min(p.write, p.o.InFlight-p.write+1)); err != nil {
		return err
	}
	ended, at := false, 0
	for !ended || p.acked < p.sent {
		if ended || p.acks != 0 && p.sent-p.acked+int64(p.write) > int64(p.o.InFlight) {
			if err := p.reap(); err != nil {
				return err
			}
			continue
		}
		n := min(p.write, len(p.starts)-1-at)
		if p.limit > 0 {
			n = int(min(int64(n), p.limit-p.sent))
		}
		if n == 0 || p.stop() {
			ended = true
			if err := p.s.setLow(1); err != nil {
				return err
			}
			continue
		}
		if err := p.s.write(p.ring[p.starts[at]:p.starts[at+n]]); err != nil {
			return err
		}
		p.sent += int64(n)
		if at += n; at == len(p.starts)-1 {
			at = 0
		}
		if p.acks == 0 {
			p.acked = p.sent
			p.note()
		}
	}
	return nil
}

// reap reads answers.
func (p *producer) reap() error {
	n, err := p.s.read(p.in[p.have:])
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
		if err := produceError(p.in[at+4 : at+4+size]); err != nil {
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
	p.count.requests.Store(p.acked)
	p.count.records.Store(p.acked * int64(p.o.Batch))
	p.count.bytes.Store(int64(float64(p.acked) * p.bytes))
}
