package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/wire"
)

// DescribeProducers, key 61, version 0 (KIP-664).

func (s *session) describeProducers(r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.DescribeProducersRequest)
	resp := kmsg.NewPtrDescribeProducersResponse()
	for _, t := range req.Topics {
		rt := kmsg.NewDescribeProducersResponseTopic()
		rt.Topic = t.Topic
		for _, n := range t.Partitions {
			rt.Partitions = append(rt.Partitions, s.b.describeProducersOf(t.Topic, n))
		}
		resp.Topics = append(resp.Topics, rt)
	}
	r.Reply(resp)
	return nil
}

func (b *Broker) describeProducersOf(topic string, n int32) kmsg.DescribeProducersResponseTopicPartition {
	rp := kmsg.NewDescribeProducersResponseTopicPartition()
	rp.Partition = n
	p, code := b.findPartition([]byte(topic), [16]byte{}, n, false)
	if p == nil {
		rp.ErrorCode = code
		if b.cfg.Image().Topic(topic) == nil {
			rp.ErrorMessage = new("This server does not host this topic-partition.")
		}
		return rp
	}
	active, err := p.Producers()
	rp.ErrorCode = codeOf(err)
	for _, a := range active {
		ap := kmsg.NewDescribeProducersResponseTopicPartitionActiveProducer()
		ap.ProducerID, ap.ProducerEpoch = a.ID, int32(a.Epoch)
		ap.LastSequence, ap.LastTimestamp = a.LastSequence, a.LastTime
		ap.CoordinatorEpoch, ap.CurrentTxnStartOffset = -1, -1 // there are no transactions yet
		rp.ActiveProducers = append(rp.ActiveProducers, ap)
	}
	return rp
}
