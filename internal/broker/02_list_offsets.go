package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/wire"
)

// ListOffsets, key 2, versions 1 to 11.
//
// 2: isolation level. 4: leader epoch (KIP-320). 6: flexible. 7: the largest
// timestamp (KIP-734). 8: earliest local (KIP-405). 9: latest tiered (KIP-1005).
// 10: time-out for tiers (KIP-1075). 11: earliest pending upload (KIP-1023).
//
// There is no tiered storage yet: the earliest local offset is the earliest one, and no
// segment was uploaded or is waiting for it.

// The timestamps that stand for an offset instead of a time.
const (
	latestOffset          = -1
	earliestOffset        = -2
	maxTimestampOffset    = -3
	earliestLocalOffset   = -4
	latestTieredOffset    = -5
	earliestPendingOffset = -6
)

// versionOfSpecial is the version that introduced a special timestamp, or 0 if there is none
// of that value.
func versionOfSpecial(timestamp int64) int16 {
	switch timestamp {
	case latestOffset, earliestOffset:
		return 1
	case maxTimestampOffset:
		return 7
	case earliestLocalOffset:
		return 8
	case latestTieredOffset:
		return 9
	case earliestPendingOffset:
		return 11
	}
	return 0
}

func (s *session) listOffsets(r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.ListOffsetsRequest)
	// Each partition is answered once, and topics in the order in which they are first
	// named. A partition that is named more than once gets an error.
	type asked struct {
		kmsg.ListOffsetsRequestTopicPartition
		times int
	}
	type named struct {
		name  string
		parts []*asked
		index map[int32]*asked
	}
	var topics []*named
	byName := make(map[string]*named, len(req.Topics))
	for _, t := range req.Topics {
		n := byName[t.Topic]
		if n == nil {
			n = &named{name: t.Topic, index: make(map[int32]*asked, len(t.Partitions))}
			topics, byName[t.Topic] = append(topics, n), n
		}
		for _, q := range t.Partitions {
			a := n.index[q.Partition]
			if a == nil {
				a = &asked{ListOffsetsRequestTopicPartition: q}
				n.parts, n.index[q.Partition] = append(n.parts, a), a
			}
			a.times++
		}
	}
	resp := kmsg.NewPtrListOffsetsResponse()
	by := s.access()
	for _, n := range topics {
		allowed := by.mayTopic(meta.Describe, n.name)
		rt := kmsg.NewListOffsetsResponseTopic()
		rt.Topic = n.name
		for _, a := range n.parts {
			rp := kmsg.NewListOffsetsResponseTopicPartition()
			rp.Partition = a.Partition
			rp.Offset, rp.Timestamp, rp.LeaderEpoch = -1, -1, -1
			switch {
			case !allowed:
				rp.ErrorCode = kerr.TopicAuthorizationFailed.Code
			case a.times > 1:
				rp.ErrorCode = kerr.InvalidRequest.Code
			default:
				s.b.listOffset(r.Conn.Context(), n.name, &a.ListOffsetsRequestTopicPartition, r.Version, isolationOf(req.IsolationLevel), &rp)
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	r.Reply(resp)
	return nil
}

func (b *Broker) listOffset(ctx context.Context, topic string, q *kmsg.ListOffsetsRequestTopicPartition, version int16, isolation replica.Isolation, rp *kmsg.ListOffsetsResponseTopicPartition) {
	if since := versionOfSpecial(q.Timestamp); q.Timestamp < 0 && (since == 0 || version < since) {
		rp.ErrorCode = kerr.UnsupportedVersion.Code
		return
	}
	p, code := b.findPartition([]byte(topic), [16]byte{}, q.Partition, false)
	if p == nil {
		rp.ErrorCode = code
		return
	}
	at, err := findOffset(ctx, p, q, isolation)
	if err != nil {
		rp.ErrorCode = codeOf(err)
		return
	}
	rp.Offset, rp.Timestamp, rp.LeaderEpoch = int64(at.Offset), at.Time, int32(at.Epoch)
}

func findOffset(ctx context.Context, p *replica.Partition, q *kmsg.ListOffsetsRequestTopicPartition, i replica.Isolation) (replica.Position, error) {
	epoch := record.Epoch(q.CurrentLeaderEpoch)
	switch q.Timestamp {
	case latestOffset:
		return p.FindEnd(epoch, i)
	case earliestOffset, earliestLocalOffset:
		return p.FindStart(epoch)
	case latestTieredOffset, earliestPendingOffset:
		return replica.Nowhere(), p.CheckLeader(epoch)
	case maxTimestampOffset:
		return p.FindNewest(ctx, epoch, i)
	}
	return p.FindTime(ctx, epoch, i, q.Timestamp)
}
