package workload

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/bench"
	"github.com/leatstream/leat/internal/bench/socket"
)

// pulse sends a request on each of many connections once in an interval, the
// connections one after another with equal distance, and times the answers from
// the moment at which each request was due. Each of 1,000 clients that commit
// every 100 ms is such a connection.
type pulse struct {
	beats    []*beat
	sockets  []*socket.Socket
	interval time.Duration
	rounds   int
	begin    atomic.Pointer[time.Time]
	count    *bench.Counter
}

// beat is one connection's request.
type beat struct {
	request []byte
	check   func(answer []byte) error // given without its size field
	in      []byte
	have    int
	answers int
	took    []time.Duration // of each round
}

// pulsate runs for the options' interval and duration, on one connection for each
// request to a broker at addr.
func pulsate(ctx context.Context, o *Options, addr string, beats []*beat) (*bench.Result, error) {
	addrs := make([]string, len(beats))
	for i := range addrs {
		addrs[i] = addr
	}
	run, err := bench.Connect(ctx, &o.Options, addrs)
	if err != nil {
		return nil, err
	}
	p := &pulse{beats: beats, sockets: run.Sockets, interval: o.Interval, count: &run.Counters[0]}
	p.rounds = max(1, int(o.Duration/o.Interval))
	for _, b := range beats {
		b.in, b.took = make([]byte, 1<<10), make([]time.Duration, p.rounds)
	}
	limit := o.Duration + bench.LostAfter
	giveUp := time.AfterFunc(limit, func() {
		run.Fail(fmt.Errorf("%d of %d answers %w within %s", len(beats)*p.rounds-int(p.count.Requests.Load()),
			len(beats)*p.rounds, bench.ErrBehind, bench.LostAfter))
	})
	defer giveUp.Stop()
	untimed := o.Options
	untimed.Duration = 0
	r := &bench.Result{Kind: KindGroups, Options: o.Options}
	if err := run.Work(ctx, &untimed, r, []func() error{p.send, p.collect}); err != nil {
		return nil, err
	}
	var all []time.Duration
	for _, b := range beats {
		all = append(all, b.took...)
	}
	r.Ack = bench.NewQuantiles(all)
	return r, nil
}

// due is when connection i's request of a round is due.
func (p *pulse) due(i, round int) time.Time {
	gap := p.interval / time.Duration(len(p.beats))
	return p.begin.Load().Add(time.Duration(round)*p.interval + time.Duration(i)*gap)
}

func (p *pulse) send() error {
	socket.SharpenTimers()
	begin := time.Now().Add(10 * time.Millisecond)
	p.begin.Store(&begin)
	for round := range p.rounds {
		for i, b := range p.beats {
			socket.SleepUntil(p.due(i, round))
			if err := p.sockets[i].WriteAll(b.request); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *pulse) collect() error {
	return socket.Watch(p.sockets, len(p.sockets), func(i int) (bool, error) {
		b := p.beats[i]
		n, err := p.sockets[i].ReadAvailable(b.in[b.have:])
		if err != nil {
			return false, err
		}
		b.have += n
		for b.have >= 4 {
			size := int(int32(binary.BigEndian.Uint32(b.in)))
			if size < 4 || size > len(b.in)-4 || b.answers == p.rounds {
				return false, bench.ErrShort
			}
			if b.have < 4+size {
				break
			}
			if err := b.check(b.in[4 : 4+size]); err != nil {
				return false, err
			}
			b.took[b.answers] = time.Since(p.due(i, b.answers))
			b.answers++
			p.count.Requests.Add(1)
			p.count.Records.Add(1)
			b.have = copy(b.in, b.in[4+size:b.have])
		}
		return b.answers == p.rounds, nil
	})
}
