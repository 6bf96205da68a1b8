package broker

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/wire"
)

// DeleteRecords, key 21, versions 0 to 2 (KIP-107).
//
// 2: flexible. An offset of -1 stands for the high watermark. The answer waits until the replicas that are in
// sync, and all others that are alive, have deleted the records, at most as long as the request says. It does
// not wait for replicas that are down: such a one deletes the records before it is in sync again. While fewer
// replicas than min.insync.replicas are in sync, another one may be elected, so the answer waits for that, too.

func (s *session) deleteRecords(r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.DeleteRecordsRequest)
	resp := kmsg.NewPtrDeleteRecordsResponse()
	trimmed := 0
	var pending []trim
	by := s.access()
	for _, t := range req.Topics {
		allowed := by.mayTopic(meta.DeleteOperation, t.Topic)
		rt := kmsg.NewDeleteRecordsResponseTopic()
		rt.Topic = t.Topic
		for _, q := range t.Partitions {
			rp := kmsg.NewDeleteRecordsResponseTopicPartition()
			rp.Partition = q.Partition
			if !allowed {
				rp.LowWatermark, rp.ErrorCode = -1, kerr.TopicAuthorizationFailed.Code
				rt.Partitions = append(rt.Partitions, rp)
				continue
			}
			p, start, err := s.b.trimPartition(t.Topic, q.Partition, record.Offset(q.Offset))
			rp.LowWatermark, rp.ErrorCode = int64(start), codeOf(err)
			if err == nil {
				pending = append(pending, trim{p, start, len(resp.Topics), len(rt.Partitions)})
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
	s.b.awaitTrims(resp, pending, req.TimeoutMillis)
	r.Reply(resp)
	return nil
}

// trim is a partition whose start was moved, and its place in the answer.
type trim struct {
	p           *replica.Partition
	start       record.Offset
	topic, part int
}

// awaitTrims waits until the replicas of the partitions have deleted the records.
func (b *Broker) awaitTrims(resp *kmsg.DeleteRecordsResponse, pending []trim, timeoutMillis int32) {
	type end struct {
		trim
		err error
	}
	pending = slices.DeleteFunc(pending, func(t trim) bool { return t.p.LowWatermark() >= t.start })
	if len(pending) == 0 {
		return
	}
	ctx, cancel := b.withTimeout(timeoutMillis)
	defer cancel()
	ends := make(chan end, len(pending))
	for _, t := range pending {
		rp := &resp.Topics[t.topic].Partitions[t.part]
		rp.LowWatermark, rp.ErrorCode = int64(t.p.LowWatermark()), kerr.RequestTimedOut.Code
		t.p.AwaitTrim(t.start, config.Millis(int64(max(timeoutMillis, 1))), func(err error) { ends <- end{t, err} })
	}
	for range pending {
		select {
		case e := <-ends:
			rp := &resp.Topics[e.topic].Partitions[e.part]
			if rp.ErrorCode = codeOf(e.err); e.err == nil {
				rp.LowWatermark = int64(e.start)
			}
		case <-ctx.Done():
			return
		}
	}
}

// maxLoggedTrims is how many partitions of one request have log lines of their own.
const maxLoggedTrims = 10

// trimPartition moves a partition's start to an offset, and returns the partition and the new start.
func (b *Broker) trimPartition(topic string, n int32, to record.Offset) (*replica.Partition, record.Offset, error) {
	p, code := b.findPartition([]byte(topic), [16]byte{}, n, false)
	if p == nil {
		return nil, -1, kerr.ErrorForCode(code)
	}
	if meta.InternalTopic(topic) {
		return nil, -1, kerr.InvalidTopicException
	}
	if err := p.CheckLeader(record.NoEpoch); err != nil {
		return nil, -1, err
	}
	if set := p.Topic().Settings(); set.Compact && !set.Delete { // with an empty cleanup.policy, which keeps everything, Apache Kafka deletes them, too
		return nil, -1, kerr.PolicyViolation
	}
	start, err := p.Trim(to)
	return p, start, err
}
