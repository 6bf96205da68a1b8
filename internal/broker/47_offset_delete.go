package broker

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// OffsetDelete, key 47, version 0 (KIP-496). Topics and partitions that do not exist are
// refused here; the coordinator gets the others.

func (b *Broker) offsetDelete(s *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.OffsetDeleteRequest)
	by := s.access()
	if !by.mayGroup(meta.DeleteOperation, req.Group) {
		resp := kmsg.NewPtrOffsetDeleteResponse()
		resp.ErrorCode = kerr.GroupAuthorizationFailed.Code
		r.Reply(resp)
		return nil
	}
	image := b.cfg.Image()
	refused := map[string][]kmsg.OffsetDeleteResponseTopicPartition{}
	for i := range req.Topics {
		t := &req.Topics[i]
		n, code := 0, kerr.UnknownTopicOrPartition.Code
		if !by.mayTopic(meta.Read, t.Topic) {
			code = kerr.TopicAuthorizationFailed.Code
		} else if topic := image.Topic(t.Topic); topic != nil {
			n = len(topic.Partitions)
		}
		t.Partitions = slices.DeleteFunc(t.Partitions, func(p kmsg.OffsetDeleteRequestTopicPartition) bool {
			if p.Partition >= 0 && int(p.Partition) < n {
				return false
			}
			refused[t.Topic] = append(refused[t.Topic], kmsg.OffsetDeleteResponseTopicPartition{
				Partition: p.Partition, ErrorCode: code,
			})
			return true
		})
	}
	b.cfg.Groups.DeleteOffsets(req, containPanics(r, func(resp *kmsg.OffsetDeleteResponse) {
		for i := range resp.Topics {
			t := &resp.Topics[i]
			t.Partitions = append(t.Partitions, refused[t.Topic]...)
			delete(refused, t.Topic)
		}
		r.Reply(resp)
	}))
	return nil
}
