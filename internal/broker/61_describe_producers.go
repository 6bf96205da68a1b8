package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/wire"
)

// DescribeProducers, key 61, version 0 (KIP-664).
//
// A partition that is named many times is described once. Partitions whose producers do not
// fit into one answer any more are refused, with a message that says so.

const (
	// describedProducerMemory is about how much memory a producer takes while an answer is
	// made: in the list of its partition, as a structure and in encoded form.
	describedProducerMemory = 192
	// describedPartitionMemory is the same for a partition without producers, with a message.
	describedPartitionMemory = 384
)

// producersOf is a partition of which the producers are described.
type producersOf struct {
	topic     string
	n         int32
	partition *replica.Partition // nil: there is none, see code
	code      int16
	producers int // so many are described
}

func (s *session) describeProducers(r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.DescribeProducersRequest)
	b := s.b
	by := s.access()
	asked, err := b.findProducers(&by, req)
	if err != nil {
		return err
	}
	memory, most := int64(0), b.cfg.Work.Most(budget.Data)
	for i := range asked {
		p := &asked[i]
		n := describedPartitionMemory + int64(len(p.topic)) + describedProducerMemory*int64(p.producers)
		if memory+n > most && p.producers > 0 {
			p.partition, p.code = nil, kerr.PolicyViolation.Code
			n = describedPartitionMemory + int64(len(p.topic))
		}
		memory += n
	}
	empty := topicsWithoutPartitions(req)
	for i := range empty {
		memory += describedPartitionMemory + int64(len(empty[i].Topic))
	}
	held, err := r.Reserve(budget.Data, memory)
	if err != nil {
		return err // it names more partitions than fit into any answer
	}
	resp := kmsg.NewPtrDescribeProducersResponse()
	b.inTurns(len(asked), func(i int) {
		if i == 0 || asked[i-1].topic != asked[i].topic {
			rt := kmsg.NewDescribeProducersResponseTopic()
			rt.Topic = asked[i].topic
			resp.Topics = append(resp.Topics, rt)
		}
		rt := &resp.Topics[len(resp.Topics)-1]
		rt.Partitions = append(rt.Partitions, b.describeEmpty(&asked[i]))
	})
	resp.Topics = append(resp.Topics, empty...)
	i := 0
	for t := range resp.Topics {
		for p := range resp.Topics[t].Partitions {
			if asked[i].partition != nil {
				b.describeProducersOf(&asked[i], &resp.Topics[t].Partitions[p])
			}
			i++
		}
	}
	b.replyHeld(r, resp, &held)
	return nil
}

// findProducers finds the partitions that are asked for, each once. It stops with an error where they are more than fit into any
// answer, before they have taken more memory than that.
func (b *Broker) findProducers(by *access, req *kmsg.DescribeProducersRequest) (asked []producersOf, err error) {
	type name struct {
		topic string
		n     int32
	}
	seen := map[name]bool{}
	most := int(b.cfg.Work.Most(budget.Data) / describedPartitionMemory)
	for _, t := range req.Topics {
		allowed := by.mayTopic(auth.DescribeProducers, t.Topic)
		b.inTurns(len(t.Partitions), func(i int) {
			n := t.Partitions[i]
			if seen[name{t.Topic, n}] {
				return
			}
			if len(asked) >= most {
				err = budget.ErrTooLarge
				return
			}
			seen[name{t.Topic, n}] = true
			p := producersOf{topic: t.Topic, n: n}
			if !allowed {
				p.code = kerr.TopicAuthorizationFailed.Code
				asked = append(asked, p)
				return
			}
			if p.partition, p.code = b.findPartition([]byte(t.Topic), [16]byte{}, n, false); p.partition != nil {
				if len(t.Partitions) > stretch && !p.partition.IsOpen() {
					b.openWithoutTurn(p.partition)
				}
				p.producers, _ = replica.CountProducers(p.partition) // an error is told when they are listed
			}
			asked = append(asked, p)
		})
		if err != nil {
			return nil, err
		}
	}
	return asked, nil
}

// topicsWithoutPartitions are the topics of which no partition is asked for.
func topicsWithoutPartitions(req *kmsg.DescribeProducersRequest) (topics []kmsg.DescribeProducersResponseTopic) {
	for _, t := range req.Topics {
		if len(t.Partitions) == 0 {
			rt := kmsg.NewDescribeProducersResponseTopic()
			rt.Topic = t.Topic
			topics = append(topics, rt)
		}
	}
	return topics
}

// describeEmpty makes a partition's element without producers.
func (b *Broker) describeEmpty(p *producersOf) kmsg.DescribeProducersResponseTopicPartition {
	rp := kmsg.NewDescribeProducersResponseTopicPartition()
	rp.Partition, rp.ErrorCode = p.n, p.code
	switch {
	case p.partition != nil:
	case p.code == kerr.TopicAuthorizationFailed.Code:
		rp.ErrorMessage = new(deniedText(kerr.TopicAuthorizationFailed))
	case p.code == kerr.PolicyViolation.Code:
		rp.ErrorMessage = new("The producers of so many partitions do not fit into one answer: ask for fewer partitions.")
	case b.cfg.Image().Topic(p.topic) == nil:
		rp.ErrorMessage = new("This server does not host this topic-partition.")
	}
	return rp
}

// describeProducersOf puts the producers of a partition into its element, at most as many as
// there were when their memory was reserved. Listing them may wait for the partition's log, so
// it has no processor meanwhile.
func (b *Broker) describeProducersOf(p *producersOf, rp *kmsg.DescribeProducersResponseTopicPartition) {
	active, err := p.partition.Producers(p.producers)
	rp.ErrorCode = codeOf(err)
	rp.ActiveProducers = make([]kmsg.DescribeProducersResponseTopicPartitionActiveProducer, 0, len(active))
	b.inTurns(len(active), func(i int) {
		a := &active[i]
		ap := kmsg.NewDescribeProducersResponseTopicPartitionActiveProducer()
		ap.ProducerID, ap.ProducerEpoch = a.ID, int32(a.Epoch)
		ap.LastSequence, ap.LastTimestamp = a.LastSequence, a.LastTime
		ap.CoordinatorEpoch, ap.CurrentTxnStartOffset = a.CoordinatorEpoch, int64(a.TransactionStart)
		rp.ActiveProducers = append(rp.ActiveProducers, ap)
	})
}
