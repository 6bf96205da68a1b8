package bench

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/bench/socket"
	"github.com/leatstream/leat/internal/record"
)

// manyConnections is the number of connections from which on a thread serves more than one,
// which saves CPU of the client (compare "bench produce --partitions 64 --in-flight 5" with
// --threads 2 and --threads 64).
const manyConnections = 5

// countThreads is the number of threads that serve n connections.
func countThreads(o *Options, n int) int {
	switch {
	case !socket.SharesThreads || o.Acks == "0": // a producer without answers sends without a pause
		return n
	case o.Threads > 0:
		return min(o.Threads, n)
	case n >= manyConnections:
		return 2
	default:
		return n
	}
}

// Produce sends records to a topic as fast as the broker accepts them.
func Produce(ctx context.Context, o Options) (*Result, error) {
	if err := o.Validate(KindProduce); err != nil {
		return nil, err
	}
	all, err := planRun(ctx, &o, kmsg.Produce.Int16(), ProduceLow, ProduceHigh)
	if err != nil {
		return nil, err
	}
	run, err := Connect(ctx, &o, addressesOf(all))
	if err != nil {
		return nil, err
	}
	limits := shareRequests(&o, all)
	producers := make([]*producer, len(all))
	for i, l := range all {
		if producers[i], err = newProducer(&o, l, run, i); err != nil {
			run.Close()
			return nil, err
		}
		producers[i].limit = limits[i]
	}
	var jobs []func() error
	n := countThreads(&o, len(all))
	for i := range n {
		mine := producers[i*len(all)/n : (i+1)*len(all)/n]
		if len(mine) == 1 {
			jobs = append(jobs, mine[0].produceAlone)
			continue
		}
		jobs = append(jobs, func() error { return produceByTurns(mine) })
	}
	r := &Result{Kind: KindProduce, Options: o}
	return r, run.Work(ctx, &o, r, jobs)
}

// unlimited is the limit of a producer that sends until the run is stopped.
const unlimited = math.MaxInt64

// shareRequests is the number of requests that each lane sends, so that all together send the
// options' records. A remainder goes to the first lanes, which planLanes has given a partition
// more.
func shareRequests(o *Options, all []*lane) []int64 {
	n := len(all)
	limits := slices.Repeat([]int64{unlimited}, n)
	if o.Records == 0 {
		return limits
	}
	each := int64(o.Batch) * int64(max(1, min(o.PerRequest, len(all[0].partitions))))
	requests := (o.Records + each - 1) / each
	for i := range limits {
		limits[i] = requests / int64(n)
		if int64(i) < requests%int64(n) {
			limits[i]++
		}
	}
	return limits
}

// producer sends a ring of requests again and again on one connection.
type producer struct {
	o       *Options
	s       *socket.Socket
	stop    func() bool
	count   *Counter
	version int16

	ring    []byte  // requests, one after another
	starts  []int   // of each request in ring, and the ring's length
	records []int64 // element i: in the ring's first i requests
	bytes   []int64 // element i: of batches in the ring's first i requests
	write   int     // requests in one write
	limit   int64   // requests to send
	answer  int     // the least length of an answer in bytes
	acks    int16

	ended       bool  // no more requests are sent
	at          int   // index in the ring of the next request
	sent, acked int64 // requests
	in          []byte
	have        int // bytes of in that are filled
}

func newProducer(o *Options, l *lane, run *Run, i int) (*producer, error) {
	codec, err := o.parseCodec()
	if err != nil {
		return nil, err
	}
	acks, err := o.parseAcks()
	if err != nil {
		return nil, err
	}
	each := max(1, min(o.PerRequest, len(l.partitions)))
	p := &producer{
		o: o, s: run.Sockets[i], stop: run.Stopped, count: &run.Counters[i], version: l.version, acks: acks, write: 1,
		records: []int64{0}, bytes: []int64{0}, answer: produceAnswerLen(l.version, o.Topic, each),
	}
	p.in = make([]byte, max(64<<10, 2*p.answer))
	now := time.Now().UnixMilli()
	next, rounds := 0, 0 // the lane's next partition; how many batches each partition has at least
	for n := 0; n == 0 || n < p.write || rounds == 0; n++ {
		var partitions []int32
		var batches []record.Batch
		size := int64(0)
		for range min(each, len(l.partitions)-next) {
			batch, err := MakeBatch(codec, o.Batch, o.Size, now, uint64(i)<<32|uint64(n)<<12|uint64(len(batches)))
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
		p.ring = append(p.ring, EncodeProduce(l.version, acks, o.Topic, partitions, batches)...)
		p.records = append(p.records, p.records[n]+int64(len(batches)*o.Batch))
		p.bytes = append(p.bytes, p.bytes[n]+size)
		p.answer = min(p.answer, produceAnswerLen(l.version, o.Topic, len(batches)))
		if n == 0 {
			p.write = max(1, min(o.WriteBytes/len(p.ring), o.InFlight))
		}
	}
	p.starts = append(p.starts, len(p.ring))
	return p, nil
}

// produceAlone produces on a connection that has a thread of its own.
func (p *producer) produceAlone() error {
	for {
		if err := p.sendMore(); err != nil || p.isDone() {
			return err
		}
		if err := p.s.Wait(); err != nil {
			return err
		}
		if err := p.readAnswers(); err != nil {
			return err
		}
	}
}

// produceByTurns produces on many connections in one thread.
func produceByTurns(all []*producer) error {
	sockets, open := make([]*socket.Socket, len(all)), 0
	for i, p := range all {
		sockets[i] = p.s
		if err := p.sendMore(); err != nil {
			return err
		}
		if !p.isDone() {
			open++
		}
	}
	return socket.Watch(sockets, open, func(i int) (bool, error) {
		p := all[i]
		if err := p.readAnswers(); err != nil {
			return false, err
		}
		err := p.sendMore()
		return p.isDone(), err
	})
}

// isDone tells whether all requests are sent and acknowledged.
func (p *producer) isDone() bool { return p.ended && p.acked == p.sent }

// sendMore sends as many requests as may be in flight, and sets how many answers wake the
// thread.
func (p *producer) sendMore() error {
	for !p.ended && (p.acks == 0 || p.sent-p.acked+int64(p.write) <= int64(p.o.InFlight)) {
		n := min(p.write, len(p.starts)-1-p.at)
		n = int(min(int64(n), p.limit-p.sent))
		if n == 0 || p.stop() {
			p.ended = true
			break
		}
		if err := p.s.WriteAll(p.ring[p.starts[p.at]:p.starts[p.at+n]]); err != nil {
			return err
		}
		p.sent += int64(n)
		if p.at += n; p.at == len(p.starts)-1 {
			p.at = 0
		}
		if p.acks == 0 {
			p.acked = p.sent
			p.noteProgress()
		}
	}
	// One wake-up brings the answers of one write, but the thread never waits for more
	// answers than are outstanding. This halves the client's CPU if the broker sends each
	// answer by itself.
	return p.s.SetLowWater(p.answer*int(min(int64(p.write), p.sent-p.acked)) - p.have)
}

// readAnswers reads answers, if there are any.
func (p *producer) readAnswers() error {
	n, err := p.s.ReadAvailable(p.in[p.have:])
	if err != nil {
		return err
	}
	p.have += n
	at := 0
	for p.have-at >= 4 {
		size := int(int32(be.Uint32(p.in[at:])))
		if size < 0 || size > len(p.in)-4 {
			return ErrShort
		}
		if p.have-at < 4+size {
			break
		}
		if err := ProduceError(p.version, p.in[at+4:at+4+size]); err != nil {
			return err
		}
		at += 4 + size
		p.acked++
	}
	p.have = copy(p.in, p.in[at:p.have])
	p.noteProgress()
	return nil
}

// noteProgress stores in the run's counter how much is acknowledged.
func (p *producer) noteProgress() {
	ring := int64(len(p.starts) - 1)
	rounds, rest := p.acked/ring, p.acked%ring
	p.count.Requests.Store(p.acked)
	p.count.Records.Store(rounds*p.records[ring] + p.records[rest])
	p.count.Bytes.Store(rounds*p.bytes[ring] + p.bytes[rest])
}
