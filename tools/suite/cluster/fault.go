package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/bench"
	"github.com/leatstream/leat/internal/bench/client"
	"github.com/leatstream/leat/tools/suite/server"
	"github.com/leatstream/leat/tools/suite/workload"
)

// The steps of a fault.
const (
	FaultGap    = "gap"    // the longest time between two acknowledgements, of each fault
	FaultChange = "change" // from the fault to the first change of the metadata, of each fault
)

const (
	steadyFor    = 500 * time.Millisecond // that a client works before a fault, and after it
	createWithin = time.Second            // that a node may take to make a topic before it is asked again
	noticeWithin = 2 * time.Minute        // that a client and a cluster may take to get over a fault
)

// fault is something that happens to a node, and how the node comes back.
type fault struct {
	inject func(c *server.Cluster, node int) error
	mend   func(ctx context.Context, c *server.Cluster, node int) error
}

func relaunch(ctx context.Context, c *server.Cluster, node int) error { return c.Launch(ctx, node) }

// kill is kill -9.
func kill() fault { return fault{inject: (*server.Cluster).Kill, mend: relaunch} }

// stop is a stop in order, whose end is waited for.
func stop() fault { return fault{inject: (*server.Cluster).StopNode, mend: relaunch} }

// silence makes a node stand still. Its connections stay.
func silence() fault {
	return fault{
		inject: func(c *server.Cluster, node int) error { return c.Nodes[node].Suspend() },
		mend:   func(_ context.Context, c *server.Cluster, node int) error { return c.Nodes[node].Resume() },
	}
}

// LeaderKilled kills the leader of a partition, as often as the options say, while the prober produces.
func LeaderKilled(ctx context.Context, c *server.Cluster, o workload.Options) (*workload.Result, error) {
	return measureGaps(ctx, c, o, kill(), &prober{})
}

// LeaderKilledJava is LeaderKilled with Apache Kafka's own producer.
func LeaderKilledJava(ctx context.Context, c *server.Cluster, o workload.Options) (*workload.Result, error) {
	return measureGaps(ctx, c, o, kill(), &java{})
}

// LeaderStopped stops the leader in order.
func LeaderStopped(ctx context.Context, c *server.Cluster, o workload.Options) (*workload.Result, error) {
	return measureGaps(ctx, c, o, stop(), &prober{})
}

// LeaderSilent suspends the leader.
func LeaderSilent(ctx context.Context, c *server.Cluster, o workload.Options) (*workload.Result, error) {
	return measureGaps(ctx, c, o, silence(), &prober{})
}

// measureGaps injects a fault into the leader again and again, while a witness produces.
func measureGaps(ctx context.Context, c *server.Cluster, o workload.Options, f fault, w witness) (*workload.Result, error) {
	o.Partitions = 1
	var gaps []time.Duration
	err := withTopic(ctx, c, &o, func() error {
		err := w.start(ctx, c, &o)
		if err != nil {
			return err
		}
		for err == nil && len(gaps) < o.Faults {
			var gap time.Duration
			if gap, err = measureGap(ctx, c, &o, f, w); err != nil {
				err = fmt.Errorf("fault %d of %d: %w", len(gaps)+1, o.Faults, err)
			}
			gaps = append(gaps, gap)
		}
		if err = errors.Join(err, w.end()); err != nil {
			return err
		}
		return verifyAcknowledged(ctx, c, &o, int64(len(w.times())))
	})
	if err != nil {
		return nil, err
	}
	return faultResult(&o, FaultGap, gaps), nil
}

// measureGap injects a fault into the leader, and returns when the cluster is healthy again.
func measureGap(ctx context.Context, c *server.Cluster, o *workload.Options, f fault, w witness) (time.Duration, error) {
	if err := awaitAck(ctx, w, time.Now()); err != nil {
		return 0, err
	}
	if err := pause(ctx, steadyFor); err != nil {
		return 0, err
	}
	v, err := lookAtAny(ctx, c.Brokers(), o.Topic)
	if err != nil {
		return 0, err
	}
	leader := v.leaderOf()
	node := slices.Index(c.Brokers(), leader)
	if node < 0 {
		return 0, fmt.Errorf("%w: the leader %q is none of its nodes", errUnhealthy, leader)
	}
	began := time.Now()
	if err := f.inject(c, node); err != nil {
		return 0, err
	}
	err = awaitLeader(ctx, c, o.Topic, leader)
	if err == nil {
		err = awaitAck(ctx, w, time.Now())
	}
	if err == nil {
		err = pause(ctx, steadyFor) // a client may find out later that it asks the wrong node
	}
	gap := longestGap(w.times(), began)
	if err = errors.Join(err, f.mend(ctx, c, node)); err != nil {
		return 0, err
	}
	return gap, awaitHealth(ctx, c, o.Topic)
}

// longestGap is the longest time between two times that follow one another, of which the second one is
// after from.
func longestGap(times []time.Time, from time.Time) (gap time.Duration) {
	for i := len(times) - 1; i > 0 && times[i].After(from); i-- {
		gap = max(gap, times[i].Sub(times[i-1]))
	}
	return gap
}

// awaitAck waits for an acknowledgement after a time.
func awaitAck(ctx context.Context, w witness, after time.Time) error {
	deadline := time.Now().Add(noticeWithin)
	for {
		if times := w.times(); len(times) > 0 && times[len(times)-1].After(after) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("nothing was acknowledged for %s", noticeWithin)
		}
		if err := pause(ctx, pollEvery); err != nil {
			return err
		}
	}
}

// awaitLeader waits until a node names a leader that is not the one before.
func awaitLeader(ctx context.Context, c *server.Cluster, topic, before string) error {
	others := slices.DeleteFunc(c.Brokers(), func(addr string) bool { return addr == before })
	deadline := time.Now().Add(noticeWithin)
	for {
		v, err := lookAtAny(ctx, others, topic)
		if err == nil && v.leaderOf() != "" && v.leaderOf() != before {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("no other node has become the leader within %s", noticeWithin), err)
		}
		if err := pause(ctx, pollEvery); err != nil {
			return err
		}
	}
}

// verifyAcknowledged makes a run void unless the leader has as many records as were acknowledged at
// least. Those whose acknowledgement was lost may be there as well.
func verifyAcknowledged(ctx context.Context, c *server.Cluster, o *workload.Options, acknowledged int64) error {
	v, err := lookAtAny(ctx, c.Brokers(), o.Topic)
	if err != nil {
		return err
	}
	have, err := askOffset(ctx, v.leaderOf(), o.Topic, 0)
	if err != nil {
		return err
	}
	if have < acknowledged {
		return fmt.Errorf("%w: %d records were acknowledged, but the leader has %d", workload.ErrVoid, acknowledged, have)
	}
	return nil
}

// faultResult is the result of faults with the time that each took.
func faultResult(o *workload.Options, step string, took []time.Duration) *workload.Result {
	r := &workload.Result{Result: bench.Result{Kind: KindFault, Options: o.Options, Started: time.Now().Truncate(time.Second)}}
	s := workload.Step{Name: step, Requests: int64(len(took))}
	for _, d := range took {
		s.Seconds += d.Seconds()
	}
	s.Ack = bench.NewQuantiles(took)
	r.Steps = append(r.Steps, s)
	r.AddSteps()
	return r
}

// ControllerKilled kills the active controller, as often as the options say, and measures how long the
// cluster then takes to make a topic.
func ControllerKilled(ctx context.Context, c *server.Cluster, o workload.Options) (*workload.Result, error) {
	var took []time.Duration
	for i := range o.Faults {
		d, err := measureChange(ctx, c, fmt.Sprintf("%s-%d", o.Topic, i))
		if err != nil {
			return nil, fmt.Errorf("fault %d of %d: %w", i+1, o.Faults, err)
		}
		took = append(took, d)
	}
	return faultResult(&o, FaultChange, took), nil
}

func measureChange(ctx context.Context, c *server.Cluster, topic string) (time.Duration, error) {
	if err := awaitHealth(ctx, c); err != nil {
		return 0, err
	}
	if err := pause(ctx, steadyFor); err != nil {
		return 0, err
	}
	node, err := findController(ctx, c)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := c.Kill(node); err != nil {
		return 0, err
	}
	err = createAtAny(ctx, c.Running(), topic)
	took := time.Since(began)
	if err = errors.Join(err, c.Launch(ctx, node)); err != nil {
		return 0, err
	}
	if err := awaitHealth(ctx, c, topic); err != nil {
		return 0, err
	}
	return took, bench.DeleteTopic(ctx, &bench.Options{Brokers: c.Brokers(), Topic: topic})
}

// createAtAny asks all nodes at the same time to make a topic, again and again, until one has made it.
func createAtAny(ctx context.Context, addrs []string, topic string) error {
	ctx, cancel := context.WithTimeout(ctx, noticeWithin)
	defer cancel()
	made := make(chan error, len(addrs))
	for _, addr := range addrs {
		go func() { made <- createUntilMade(ctx, addr, topic) }()
	}
	first := <-made
	if first == nil {
		cancel() // the others need not go on
	}
	for range len(addrs) - 1 {
		if err := <-made; err == nil {
			first = nil
		}
	}
	return first
}

// createUntilMade asks a node to make a topic until the topic is there.
func createUntilMade(ctx context.Context, addr, topic string) error {
	for {
		err := createOnce(ctx, addr, topic)
		if err == nil || errors.Is(err, kerr.TopicAlreadyExists) {
			return nil
		}
		if pause(ctx, probeAgain) != nil {
			return fmt.Errorf("%s does not make a topic: %w", addr, err)
		}
	}
}

func createOnce(ctx context.Context, addr, topic string) error {
	ctx, cancel := context.WithTimeout(ctx, createWithin)
	defer cancel()
	conn, err := client.Dial(ctx, addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.AtController(ctx, func(at *client.Conn) error {
		return createTopics(ctx, at, []kmsg.CreateTopicsRequestTopic{at.NewTopic(client.Topic{Name: topic, Partitions: 1, Replication: 1})})
	})
}

// createTopics makes topics with one request.
func createTopics(ctx context.Context, conn *client.Conn, topics []kmsg.CreateTopicsRequestTopic) error {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = int32(client.CallWithin.Milliseconds())
	req.Topics = topics
	answer, err := conn.Call(ctx, req)
	if err != nil {
		return err
	}
	resp, _ := answer.(*kmsg.CreateTopicsResponse)
	for i := range resp.Topics {
		if err := client.CreateError(&resp.Topics[i]); err != nil {
			return fmt.Errorf("make topic %s: %w", resp.Topics[i].Topic, err)
		}
	}
	return nil
}
