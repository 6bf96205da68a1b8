package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/bench/client"
	"github.com/leatstream/leat/tools/suite/server"
)

// askWithin is how long a node may take to answer before another one is asked.
const askWithin = 5 * time.Second

// pollEvery is the time between two looks at something that is awaited, and pollPartition what each
// partition that is looked at adds to it, since it costs the nodes something.
const (
	pollEvery     = 20 * time.Millisecond
	pollPartition = 20 * time.Microsecond
)

// healWithin is how long a cluster may take until all replicas are in sync again, besides the time
// for each partition: Apache Kafka needs 10 ms for each, and twice that on a busy machine.
const (
	healWithin    = 2 * time.Minute
	healPartition = 20 * time.Millisecond
)

// errUnhealthy says that a cluster is not yet as it should be.
var errUnhealthy = errors.New("the cluster is not healthy")

// view is what a node tells of a cluster.
type view struct {
	brokers map[int32]string // address by id
	topics  []kmsg.MetadataResponseTopic
}

// look asks a node for topics.
func look(ctx context.Context, conn *client.Conn, topics []string) (*view, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{} // none, not all
	for _, name := range topics {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = &name
		req.Topics = append(req.Topics, t)
	}
	answer, err := conn.Call(ctx, req)
	if err != nil {
		return nil, err
	}
	resp, _ := answer.(*kmsg.MetadataResponse)
	v := &view{brokers: map[int32]string{}, topics: resp.Topics}
	for _, b := range resp.Brokers {
		v.brokers[b.NodeID] = net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))
	}
	for i := range v.topics {
		if err := kerr.ErrorForCode(v.topics[i].ErrorCode); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// lookAt asks a node for topics, on a connection that is made for it.
func lookAt(ctx context.Context, addr string, topics ...string) (*view, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	conn, err := client.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return look(ctx, conn, topics)
}

// lookAtAny asks the nodes one after another until one answers.
func lookAtAny(ctx context.Context, addrs []string, topics ...string) (v *view, err error) {
	err = client.ErrNoBroker
	for _, addr := range addrs {
		if v, err = lookAt(ctx, addr, topics...); err == nil {
			return v, nil
		}
	}
	return nil, err
}

// leader is the address of a partition's leader; "": it has none that runs.
func (v *view) leader(p *kmsg.MetadataResponseTopicPartition) string {
	if p.ErrorCode != 0 && !errors.Is(kerr.ErrorForCode(p.ErrorCode), kerr.ReplicaNotAvailable) {
		return ""
	}
	return v.brokers[p.Leader]
}

// leaderOf is the address of the leader of the only topic's first partition.
func (v *view) leaderOf() string {
	for _, t := range v.topics {
		for i := range t.Partitions {
			if t.Partitions[i].Partition == 0 {
				return v.leader(&t.Partitions[i])
			}
		}
	}
	return ""
}

// checkHealth returns an error unless all nodes are there, and all replicas in sync.
func (v *view) checkHealth(nodes int) error {
	if len(v.brokers) != nodes {
		return fmt.Errorf("%w: it has %d brokers of %d", errUnhealthy, len(v.brokers), nodes)
	}
	for _, t := range v.topics {
		for i := range t.Partitions {
			p := &t.Partitions[i]
			if v.leader(p) == "" || len(p.ISR) != len(p.Replicas) || len(p.Replicas) == 0 {
				return fmt.Errorf("%w: %s-%d has leader %d, and in sync are %d of %d replicas", errUnhealthy,
					*t.Topic, p.Partition, p.Leader, len(p.ISR), len(p.Replicas))
			}
		}
	}
	return nil
}

// countPartitions counts the partitions of all topics.
func (v *view) countPartitions() (n int) {
	for _, t := range v.topics {
		n += len(t.Partitions)
	}
	return n
}

// awaitHealth waits until every node says that all nodes are there and all replicas of the topics
// are in sync, and until all nodes keep the metadata, so that the cluster survives any of them.
func awaitHealth(ctx context.Context, c *server.Cluster, topics ...string) error {
	began, partitions := time.Now(), 0
	for {
		seen, err := checkAll(ctx, c, topics)
		if err == nil {
			return nil
		}
		partitions = max(partitions, seen)
		if within := healWithin + time.Duration(partitions)*healPartition; time.Since(began) > within {
			return fmt.Errorf("after %s: %w", within, err)
		}
		if err := pause(ctx, pollEvery+time.Duration(partitions)*pollPartition); err != nil {
			return err
		}
	}
}

// checkAll returns an error unless each node says that the cluster is healthy, and how many partitions it
// has looked at.
func checkAll(ctx context.Context, c *server.Cluster, topics []string) (partitions int, err error) {
	for _, addr := range c.Brokers() {
		v, err := lookAt(ctx, addr, topics...)
		if err != nil {
			return partitions, fmt.Errorf("%s: %w", addr, err)
		}
		partitions = v.countPartitions()
		if err := v.checkHealth(len(c.Places)); err != nil {
			return partitions, fmt.Errorf("%s: %w", addr, err)
		}
	}
	voters, _, err := askQuorum(ctx, c.Brokers())
	if err == nil && voters != len(c.Places) {
		err = fmt.Errorf("%w: %d of %d nodes keep the metadata", errUnhealthy, voters, len(c.Places))
	}
	return partitions, err
}

// findController is the number of the node that is the active controller.
func findController(ctx context.Context, c *server.Cluster) (int, error) {
	_, id, err := askQuorum(ctx, c.Running())
	if err != nil {
		return 0, err
	}
	v, err := lookAtAny(ctx, c.Running())
	if err != nil {
		return 0, err
	}
	i := slices.Index(c.Brokers(), v.brokers[id])
	if i < 0 {
		return 0, fmt.Errorf("%w: no node has the id %d of the controller", errUnhealthy, id)
	}
	return i, nil
}

// askQuorum asks how many nodes keep the metadata, and which of them is the active controller.
func askQuorum(ctx context.Context, addrs []string) (voters int, leader int32, err error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	conn, err := client.DialAny(ctx, addrs)
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close()
	req := kmsg.NewPtrDescribeQuorumRequest()
	t := kmsg.NewDescribeQuorumRequestTopic()
	t.Topic = "__cluster_metadata"
	t.Partitions = append(t.Partitions, kmsg.NewDescribeQuorumRequestTopicPartition())
	req.Topics = append(req.Topics, t)
	answer, err := conn.Call(ctx, req)
	if err != nil {
		return 0, 0, err
	}
	resp, _ := answer.(*kmsg.DescribeQuorumResponse)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return 0, 0, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return 0, 0, errors.New("the node does not tell of the quorum")
	}
	p := resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
		return 0, 0, err
	}
	if p.LeaderID < 0 {
		return 0, 0, fmt.Errorf("%w: it has no controller", errUnhealthy)
	}
	return len(p.CurrentVoters), p.LeaderID, nil
}

// pause waits, unless the run ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
