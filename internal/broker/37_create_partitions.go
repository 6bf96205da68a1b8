package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// CreatePartitions, key 37, versions 0 to 3.

func (b *Broker) createPartitions(d *decision, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.CreatePartitionsRequest)
	resp := kmsg.NewPtrCreatePartitionsResponse()
	times := make(map[string]int, len(req.Topics))
	for i := range req.Topics {
		times[req.Topics[i].Topic]++
	}
	var asked []controller.MorePartitions
	for i := range req.Topics {
		t := &req.Topics[i]
		switch n := times[t.Topic]; {
		case n == 1 && !d.by.mayTopic(meta.Alter, t.Topic):
			resp.Topics = append(resp.Topics, morePartitionsAnswer(t.Topic, kerr.TopicAuthorizationFailed.Code, nil))
		case n == 1:
			asked = append(asked, toMorePartitions(t))
		case n > 1:
			times[t.Topic] = 0 // the next ones get no answer
			duplicate := "Duplicate topic name."
			resp.Topics = append(resp.Topics, morePartitionsAnswer(t.Topic, kerr.InvalidRequest.Code, &duplicate))
		}
	}
	ctx, cancel := d.withTimeout(req.TimeoutMillis)
	defer cancel()
	errs, err := d.CreatePartitions(ctx, asked, req.ValidateOnly)
	if d.isElsewhere(err) {
		return err
	}
	for i := range asked {
		var refused *controller.Error
		if err == nil {
			refused = errs[i]
		}
		code, message := outcomeOf(refused, err)
		if refused != nil && refused.Message == "" {
			message = nil
		}
		resp.Topics = append(resp.Topics, morePartitionsAnswer(asked[i].Topic, code, message))
	}
	resp.ThrottleMillis = b.throttled(d, r)
	r.Reply(resp)
	return nil
}

func toMorePartitions(t *kmsg.CreatePartitionsRequestTopic) controller.MorePartitions {
	m := controller.MorePartitions{Topic: t.Topic, Count: t.Count}
	if t.Assignment != nil {
		m.Assignments = make([][]int32, len(t.Assignment))
	}
	for i := range t.Assignment {
		m.Assignments[i] = t.Assignment[i].Replicas
	}
	return m
}

func morePartitionsAnswer(topic string, code int16, message *string) kmsg.CreatePartitionsResponseTopic {
	rt := kmsg.NewCreatePartitionsResponseTopic()
	rt.Topic, rt.ErrorCode, rt.ErrorMessage = topic, code, message
	return rt
}
