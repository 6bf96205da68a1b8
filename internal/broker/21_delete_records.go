package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/wire"
)

// DeleteRecords, key 21, versions 0 to 2 (KIP-107).
//
// 2: flexible. An offset of -1 stands for the high watermark.

func (s *session) deleteRecords(r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.DeleteRecordsRequest)
	resp := kmsg.NewPtrDeleteRecordsResponse()
	trimmed := 0
	for _, t := range req.Topics {
		rt := kmsg.NewDeleteRecordsResponseTopic()
		rt.Topic = t.Topic
		for _, q := range t.Partitions {
			rp := kmsg.NewDeleteRecordsResponseTopicPartition()
			rp.Partition = q.Partition
			start, err := s.b.trimPartition(t.Topic, q.Partition, record.Offset(q.Offset))
			rp.LowWatermark, rp.ErrorCode = int64(start), codeOf(err)
			if err == nil {
				if trimmed++; trimmed <= maxLoggedTrims {
					s.b.cfg.Logger.Info("records were deleted by a client", "topic", t.Topic, "partition", q.Partition, "below", int64(start))
				}
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	if trimmed > maxLoggedTrims {
		s.b.cfg.Logger.Info("records of more partitions were deleted by a client", "partitions", trimmed-maxLoggedTrims)
	}
	r.Reply(resp)
	return nil
}

// maxLoggedTrims is how many partitions of one request have log lines of their own.
const maxLoggedTrims = 10

// trimPartition moves a partition's start to an offset, and returns the new start.
func (b *Broker) trimPartition(topic string, n int32, to record.Offset) (record.Offset, error) {
	p, code := b.findPartition([]byte(topic), [16]byte{}, n, false)
	if p == nil {
		return -1, kerr.ErrorForCode(code)
	}
	if meta.InternalTopic(topic) {
		return -1, kerr.InvalidTopicException
	}
	if err := p.CheckLeader(record.NoEpoch); err != nil {
		return -1, err
	}
	if !p.Topic().Settings().Delete {
		return -1, kerr.PolicyViolation
	}
	return p.Trim(to)
}
