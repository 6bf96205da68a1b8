package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/wire"
)

// OffsetForLeaderEpoch, key 23, versions 2 to 4.
//
// 2: the asker's leader epoch (KIP-320). 3: replica id. 4: flexible.

func (s *session) offsetForLeaderEpoch(r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.OffsetForLeaderEpochRequest)
	resp := kmsg.NewPtrOffsetForLeaderEpochResponse()
	by := s.access()
	mayAll := by.isEnoughOnCluster(auth.InsteadOf(23))
	for _, t := range req.Topics {
		allowed := mayAll || by.mayTopic(meta.Describe, t.Topic)
		rt := kmsg.NewOffsetForLeaderEpochResponseTopic()
		rt.Topic = t.Topic
		for _, q := range t.Partitions {
			rp := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
			rp.Partition = q.Partition
			rp.LeaderEpoch, rp.EndOffset = -1, -1
			if !allowed {
				rp.ErrorCode = kerr.TopicAuthorizationFailed.Code
				rt.Partitions = append(rt.Partitions, rp)
				continue
			}
			p, code := s.b.findPartition([]byte(t.Topic), [16]byte{}, q.Partition, false)
			rp.ErrorCode = code
			if p != nil {
				e, end, err := p.EpochEnd(record.Epoch(q.CurrentLeaderEpoch), record.Epoch(q.LeaderEpoch))
				rp.LeaderEpoch, rp.EndOffset = int32(e), int64(end)
				if err != nil {
					rp.ErrorCode, rp.LeaderEpoch, rp.EndOffset = codeOf(err), -1, -1
				}
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	r.Reply(resp)
	return nil
}
