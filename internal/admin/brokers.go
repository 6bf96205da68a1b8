package admin

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/config"
)

// ErrNotServed is returned when a broker does not serve a request that is needed.
var ErrNotServed = errors.New("the broker does not serve this request")

// Logger is a logger of a broker and how much it logs.
type Logger struct {
	Broker int32  `json:"broker"`
	Logger string `json:"logger"`
	Level  string `json:"level"`
}

// DescribeLoggers asks a broker for the levels of its loggers.
func DescribeLoggers(ctx context.Context, cl *kgo.Client, broker int32) ([]Logger, error) {
	req := kmsg.NewPtrDescribeConfigsRequest()
	res := kmsg.NewDescribeConfigsRequestResource()
	of := loggersOf(broker)
	res.ResourceType, res.ResourceName = of.Type, of.Name
	req.Resources = append(req.Resources, res)
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return nil, fmt.Errorf("asking for log levels: %w", err)
	}
	all := []Logger{}
	for _, r := range resp.Resources {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			return nil, &RefusedError{Of: of.String(), Err: err, Message: textOrEmpty(r.ErrorMessage)}
		}
		for _, c := range r.Configs {
			all = append(all, Logger{Broker: broker, Logger: c.Name, Level: textOrEmpty(c.Value)})
		}
	}
	slices.SortFunc(all, func(a, b Logger) int { return strings.Compare(a.Logger, b.Logger) })
	return all, nil
}

// SetLogLevels sets levels of a broker's loggers by their names. They last until the broker stops.
func SetLogLevels(ctx context.Context, cl *kgo.Client, broker int32, levels map[string]*string) error {
	var changes []ConfigChange
	for _, name := range sortedKeys(levels) {
		upper := strings.ToUpper(*levels[name])
		changes = append(changes, ConfigChange{Name: name, Value: &upper})
	}
	_, err := AlterConfigs(ctx, cl, loggersOf(broker), changes, false)
	return err
}

// loggersOf are a broker's loggers as a resource. Their levels are its configs.
func loggersOf(broker int32) Resource {
	return Resource{Type: kmsg.ConfigResourceTypeBrokerLogger, Name: strconv.Itoa(int(broker))}
}

// textOrEmpty is a text, or "" if it is missing.
func textOrEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// Quorum is the state of the nodes that keep the metadata.
type Quorum struct {
	Leader        int32           `json:"leader"`
	Epoch         int32           `json:"epoch"`
	HighWatermark int64           `json:"high_watermark"`
	Replicas      []QuorumReplica `json:"replicas"`
	// WantedVoters is how many voters the cluster is to have; 0: it has them, or does not tell.
	WantedVoters int `json:"wanted_voters,omitempty"`
	// Note is what the leader says beyond all this, in sentences.
	Note string `json:"note,omitempty"`
}

// roleObserver is the role of a node that follows the metadata, and does not vote.
const roleObserver = "observer"

// QuorumReplica is a node that keeps the metadata.
type QuorumReplica struct {
	ID   int32  `json:"id"`
	Role string `json:"role"` // leader, voter or observer
	End  int64  `json:"end"`  // -1: the cluster does not tell
	Lag  int64  `json:"lag"`  // entries behind the leader; -1: the cluster does not tell

	address string // of the node, if the cluster tells it
}

// DescribeQuorum asks for the quorum. It returns ErrNotServed if the broker does not serve such requests.
func DescribeQuorum(ctx context.Context, cl *kgo.Client) (*Quorum, error) {
	served, err := servesAPI(ctx, cl, kmsg.DescribeQuorum.Int16())
	if err != nil {
		return nil, err
	}
	if !served {
		return nil, ErrNotServed
	}
	return askQuorum(ctx, cl)
}

// askQuorum asks a broker that serves the request for the quorum.
func askQuorum(ctx context.Context, from kmsg.Requestor) (*Quorum, error) {
	req := kmsg.NewPtrDescribeQuorumRequest()
	topic, partition := kmsg.NewDescribeQuorumRequestTopic(), kmsg.NewDescribeQuorumRequestTopicPartition()
	topic.Topic = "__cluster_metadata"
	topic.Partitions = append(topic.Partitions, partition)
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(ctx, from)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return nil, &RefusedError{Of: "the quorum", Err: err}
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return nil, fmt.Errorf("the quorum: the broker described %d topics instead of one", len(resp.Topics))
	}
	p := resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
		return nil, &RefusedError{Of: "the quorum", Err: err}
	}
	info := &Quorum{Leader: p.LeaderID, Epoch: p.LeaderEpoch, HighWatermark: p.HighWatermark, Replicas: []QuorumReplica{}, WantedVoters: readWantedVoters(&resp.UnknownTags), Note: readNote(&resp.UnknownTags)}
	var leaderEnd int64
	for _, v := range p.CurrentVoters {
		leaderEnd = max(leaderEnd, v.LogEndOffset)
	}
	addresses := map[int32]string{}
	for _, n := range resp.Nodes {
		for _, l := range n.Listeners {
			addresses[n.NodeID] = net.JoinHostPort(l.Host, strconv.Itoa(int(l.Port)))
		}
	}
	add := func(role string, list []kmsg.DescribeQuorumResponseTopicPartitionReplicaState) {
		for _, r := range list {
			replica := QuorumReplica{ID: r.ReplicaID, Role: role, End: r.LogEndOffset, Lag: max(0, leaderEnd-r.LogEndOffset), address: addresses[r.ReplicaID]}
			if r.LogEndOffset < 0 {
				replica.Lag = unknown
			}
			if r.ReplicaID == p.LeaderID && role == "voter" {
				replica.Role = "leader"
			}
			info.Replicas = append(info.Replicas, replica)
		}
	}
	add("voter", p.CurrentVoters)
	add(roleObserver, p.Observers)
	return info, nil
}

// readWantedVoters finds how many voters the cluster is to have; 0: it has them, or does not tell.
func readWantedVoters(tags *kmsg.Tags) (wanted int) {
	tags.Each(func(key uint32, value []byte) {
		if n, size := binary.Uvarint(value); key == config.VotersTag && size > 0 && n <= math.MaxInt16 {
			wanted = int(n)
		}
	})
	return wanted
}

// servesAPI tells whether a broker serves a request.
func servesAPI(ctx context.Context, cl *kgo.Client, key int16) (bool, error) {
	served, err := askAPIs(ctx, cl.Request)
	if err != nil {
		return false, fmt.Errorf("asking for API versions: %w", err)
	}
	return highestVersion(served, key) >= 0, nil
}

// CountVoters counts the nodes that vote.
func (q *Quorum) CountVoters() (count int) {
	for _, r := range q.Replicas {
		if r.Role != roleObserver {
			count++
		}
	}
	return count
}
