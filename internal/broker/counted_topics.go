package broker

import (
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// Topics that a Metadata request makes count against the client's quota of changes of partitions (KIP-599), as in Kafka 4: the node that the client
// has asked sends the active controller a CreateTopics request of that client. A topic for which the quota has no room is not made, and the client is
// told UNKNOWN_TOPIC_OR_PARTITION, without a throttle time, and asks again. Clients without such a quota share requests (cluster.EnsureTopics).

const (
	// countedVersion is the version of the CreateTopics requests: it has defaults, and knows THROTTLING_QUOTA_EXCEEDED.
	countedVersion = 7
	// countedAtOnce is how many topics such a request has at most.
	countedAtOnce = 1000
	createKey     = 19
)

// unmade says why a topic was not made.
type unmade struct {
	code    int16
	message string
}

// countedTopics makes topics for a client that has a quota of changes, and keeps why some were not made.
type countedTopics struct {
	b       *Broker
	s       *session
	r       *wire.Request
	refused map[string]unmade
}

// ensure makes the topics of some names, which are no internal ones.
func (c *countedTopics) ensure(ctx context.Context, m *meta.Image, names []string) error {
	most := controller.MaxNewPartitions / max(1, int(meta.ServerSettings(m, c.b.cfg.Static).NumPartitions))
	for part := range slices.Chunk(names, max(1, min(most, countedAtOnce))) {
		here := func(ctx context.Context) error { return c.createHere(ctx, part) }
		if c.b.cfg.Cluster == nil {
			if err := here(ctx); err != nil {
				return err
			}
		} else if err := c.forward(ctx, part, here); err != nil {
			return err
		}
	}
	return nil
}

// createHere has the controller of this node make topics.
func (c *countedTopics) createHere(ctx context.Context, names []string) error {
	var permit controller.Permit
	if changes := c.b.mutationsOf(c.s.principal, c.r.ClientID, true); changes != nil {
		permit = changes.permit
	}
	m := c.b.cfg.Image()
	var topics []controller.NewTopic
	for _, name := range names {
		topics = append(topics, controller.Auto(m, c.b.cfg.Static, name))
	}
	made, err := controller.Limited{Controller: c.b.cfg.Controller, Permit: permit}.CreateTopics(ctx, topics, false)
	if err != nil {
		return err
	}
	for i := range made {
		if made[i].Err != nil {
			c.noteError(made[i].Name, made[i].Err)
		}
	}
	return nil
}

// forward has the active controller, wherever it is, make topics.
func (c *countedTopics) forward(ctx context.Context, names []string, here func(ctx context.Context) error) error {
	b := c.b
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Version = countedVersion
	for _, name := range names {
		t := kmsg.NewCreateTopicsRequestTopic()
		t.Topic, t.NumPartitions, t.ReplicationFactor = name, -1, -1
		req.Topics = append(req.Topics, t)
	}
	n := b.forwarding.Add(1)
	defer b.forwarding.Add(-1)
	most := b.answerMemory(req)
	if n > mostWaiting || most > b.cfg.Work.Most(peerAnswers) {
		return fmt.Errorf("%w: %d requests wait for the active controller", context.DeadlineExceeded, n)
	}
	memory, err := c.r.Reserve(peerAnswers, most)
	if err != nil {
		return err
	}
	defer memory.Release()
	answer, err := b.cfg.Cluster.Forward(ctx, &wire.Carried{
		Principal: c.s.principal.String(), Groups: c.s.groups, Key: createKey, Version: countedVersion, ClientID: c.r.ClientID,
		Address: c.r.Conn.RemoteAddr().String(), Listener: c.r.Conn.ListenerName(), Most: int(most), Body: req.AppendTo(nil),
	}, here)
	if err != nil || answer == nil { // it was done here
		return err
	}
	resp := kmsg.NewPtrCreateTopicsResponse()
	resp.Version = countedVersion
	if err := resp.ReadFrom(answer); err != nil {
		return fmt.Errorf("the answer of the active controller's node: %w", err)
	}
	for i := range resp.Topics {
		t, message := &resp.Topics[i], ""
		if t.ErrorMessage != nil {
			message = *t.ErrorMessage
		}
		c.note(t.Topic, t.ErrorCode, message)
	}
	return nil
}

// noteError keeps why the active controller did not make a topic.
func (c *countedTopics) noteError(name string, e *controller.Error) {
	code, _ := outcomeOf(e, nil)
	c.note(name, code, e.Error())
}

// note keeps why a topic was not made. One that is there is made.
func (c *countedTopics) note(name string, code int16, message string) {
	if code != none && code != kerr.TopicAlreadyExists.Code {
		c.refused[name] = unmade{code, message}
	}
}
