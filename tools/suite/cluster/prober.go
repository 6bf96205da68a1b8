package cluster

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/bench"
	"github.com/leatstream/leat/internal/bench/client"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/tools/suite/server"
	"github.com/leatstream/leat/tools/suite/workload"
)

// The prober sends a record each probeEvery. It gives up an answer after probeWithin, and asks another
// node for the leader; after a failure it waits for probeAgain.
const (
	probeEvery  = 2 * time.Millisecond
	probeWithin = 250 * time.Millisecond
	probeAgain  = 5 * time.Millisecond
)

// acksAll makes a produce request wait until its records are safe.
const acksAll = -1

// witness is a client that produces all the time to a topic's first partition.
type witness interface {
	// start has it produce until end is called or the context ends.
	start(ctx context.Context, c *server.Cluster, o *workload.Options) error
	// times are those of the acknowledgements so far, in order.
	times() []time.Time
	// end ends the client. It returns an error if the client has failed.
	end() error
}

// ackTimes collects the times of acknowledgements.
type ackTimes struct {
	mu  sync.Mutex
	all []time.Time // guarded by mu: in order
}

func (a *ackTimes) add(t time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = append(a.all, t)
}

// times returns a slice that does not change.
func (a *ackTimes) times() []time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clip(a.all)
}

// prober is a witness that waits for nothing when its leader is gone: it asks the nodes in turn
// until one names another leader.
type prober struct {
	ackTimes

	seeds  []string
	topic  string
	batch  record.Batch
	cancel context.CancelFunc
	ended  chan struct{} // closed when its goroutine has ended

	// The goroutine's own:
	conn  *client.Conn // to the leader; nil: it is not known
	bytes []byte       // the request
	req   *kmsg.ProduceRequest
	next  int // place in seeds of the node that is asked next
}

func (p *prober) start(ctx context.Context, c *server.Cluster, o *workload.Options) (err error) {
	if p.batch, err = bench.MakeBatch(record.None, 1, o.Size, time.Now().UnixMilli(), 1); err != nil {
		return err
	}
	ctx, p.cancel = context.WithCancel(ctx)
	p.seeds, p.topic, p.ended = c.Brokers(), o.Topic, make(chan struct{})
	go p.run(ctx)
	return nil
}

func (p *prober) end() error {
	p.cancel()
	<-p.ended
	return nil
}

func (p *prober) run(ctx context.Context) {
	defer close(p.ended)
	defer p.forgetLeader()
	for ctx.Err() == nil {
		wait := probeEvery
		if err := p.sendOne(ctx); err != nil {
			p.forgetLeader()
			wait = probeAgain
		} else {
			p.add(time.Now())
		}
		_ = pause(ctx, wait) // the loop sees the end
	}
}

// sendOne sends a record to the leader, which is looked up if it is not known.
func (p *prober) sendOne(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeWithin)
	defer cancel()
	if p.conn == nil {
		if err := p.findLeader(ctx); err != nil {
			return err
		}
	}
	answer, err := p.conn.Exchange(ctx, p.bytes, p.req)
	if err != nil {
		return err
	}
	return firstError(answer)
}

// firstError is the first error in the answer to a produce request.
func firstError(answer kmsg.Response) error {
	resp, _ := answer.(*kmsg.ProduceResponse)
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return err
			}
		}
	}
	return nil
}

// findLeader asks the next node for the leader, and connects to it.
func (p *prober) findLeader(ctx context.Context) error {
	seed := p.seeds[p.next]
	p.next = (p.next + 1) % len(p.seeds)
	conn, err := client.Dial(ctx, seed)
	if err != nil {
		return err
	}
	defer conn.Close()
	v, err := look(ctx, conn, []string{p.topic})
	if err != nil {
		return err
	}
	leader := v.leaderOf()
	if leader == "" {
		return errors.New("the partition has no leader")
	}
	to, err := client.Dial(ctx, leader)
	if err != nil {
		return err
	}
	version, err := to.PickVersion(kmsg.Produce.Int16(), bench.ProduceLow, bench.ProduceHigh)
	if err != nil {
		to.Close()
		return err
	}
	p.conn, p.req = to, kmsg.NewPtrProduceRequest()
	p.req.SetVersion(version)
	p.bytes = bench.EncodeProduce(version, acksAll, p.topic, []int32{0}, []record.Batch{p.batch})
	return nil
}

func (p *prober) forgetLeader() {
	if p.conn != nil {
		p.conn.Close()
		p.conn = nil
	}
}
