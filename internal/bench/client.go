package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	clientID   = "leat-bench"
	maxAnswer  = 256 << 20 // bytes that an answer may announce
	callWithin = 30 * time.Second
)

// client is a connection for requests that are not timed.
type client struct {
	conn     net.Conn
	versions map[int16][2]int16 // of each API key the broker's least and largest
	format   *kmsg.RequestFormatter
	sent     int32
}

// dialAny connects to the first broker that answers.
func dialAny(ctx context.Context, addrs []string) (*client, error) {
	var errs []error
	for _, a := range addrs {
		c, err := dial(ctx, a)
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("no broker answers; is it running, and on this address? %w", errors.Join(errs...))
}

// dial connects to a broker and learns which versions it serves.
func dial(ctx context.Context, addr string) (*client, error) {
	conn, err := (&net.Dialer{Timeout: callWithin}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &client{conn: conn, format: kmsg.NewRequestFormatter(kmsg.FormatterClientID(clientID))}
	if err := c.learn(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", addr, err), conn.Close())
	}
	return c, nil
}

// learn asks which versions the broker serves.
func (c *client) learn(ctx context.Context) error {
	c.versions = nil
	answer, err := c.call(ctx, kmsg.NewPtrApiVersionsRequest()) // of version 0, which every broker answers
	if err != nil {
		return err
	}
	resp, _ := answer.(*kmsg.ApiVersionsResponse)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return err
	}
	c.versions = map[int16][2]int16{}
	for _, k := range resp.ApiKeys {
		c.versions[k.ApiKey] = [2]int16{k.MinVersion, k.MaxVersion}
	}
	return nil
}

func (c *client) close() { c.conn.Close() } //nolint:errcheck // nothing depends on it

// pick chooses the largest version of an API between low and high that the broker serves.
func (c *client) pick(key, low, high int16) (int16, error) {
	have, ok := c.versions[key]
	v := min(high, have[1])
	if !ok || v < max(low, have[0]) {
		return 0, fmt.Errorf("the broker does not serve %s in a version between %d and %d", kmsg.NameForKey(key), low, high)
	}
	return v, nil
}

// call sends a request in the largest version that both sides know, and waits for
// its answer.
func (c *client) call(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	if c.versions != nil {
		v, err := c.pick(req.Key(), 0, req.MaxVersion())
		if err != nil {
			return nil, err
		}
		req.SetVersion(v)
	}
	return c.exchange(ctx, c.format.AppendRequest(nil, req, 0), req)
}

// exchange sends a request that is encoded already, as b, and waits for its answer.
func (c *client) exchange(ctx context.Context, b []byte, req kmsg.Request) (kmsg.Response, error) {
	deadline := time.Now().Add(callWithin)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := c.conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	c.sent++
	be.PutUint32(b[4+2+2:], uint32(c.sent)) // after its size, key and version
	if _, err := c.conn.Write(b); err != nil {
		return nil, err
	}
	var head [8]byte
	if _, err := io.ReadFull(c.conn, head[:]); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	size, id := int(be.Uint32(head[:])), int32(be.Uint32(head[4:]))
	if size < 4 || size > maxAnswer || id != c.sent {
		return nil, fmt.Errorf("this is no broker: it answered %q", head)
	}
	body := make([]byte, size-4)
	if _, err := io.ReadFull(c.conn, body); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	resp := req.ResponseKind()
	if resp.IsFlexible() && req.Key() != kmsg.ApiVersions.Int16() {
		if len(body) == 0 || body[0] != 0 {
			return nil, errors.New("the answer's head has tags that nobody knows")
		}
		body = body[1:]
	}
	if err := resp.ReadFrom(body); err != nil {
		return nil, fmt.Errorf("%s: %w", kmsg.NameForKey(req.Key()), err)
	}
	return resp, nil
}

// layout is where the partitions of a topic are.
type layout struct {
	leaders []string // of each partition, its leader's address
	id      [16]byte
}

// ledWithin is how long the leaders of a topic may take: of one that was there
// before, and of one that was just made. Apache Kafka needs 10 ms for each partition.
const ledWithin, madeWithin = 2 * time.Second, 3 * time.Minute

// topic finds the topic of the options, and makes it where it is missing and may
// be made. Then it waits until all its leaders serve, which Apache Kafka names in its
// metadata before they do.
func (c *client) topic(ctx context.Context, o *Options, create bool) (*layout, error) {
	made := false
	deadline := time.Now().Add(ledWithin)
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second/2) {
		l, err := c.lookup(ctx, o.Topic)
		if err == nil && made {
			err = led(ctx, o.Topic, l)
		}
		if err == nil {
			if o.Partitions > len(l.leaders) {
				return nil, fmt.Errorf("topic %s has %d partitions, not %d: use --partitions %d, or another --topic",
					o.Topic, len(l.leaders), o.Partitions, len(l.leaders))
			}
			if o.Partitions > 0 {
				l.leaders = l.leaders[:o.Partitions]
			}
			return l, nil
		}
		switch {
		case errors.Is(err, kerr.UnknownTopicOrPartition) && !create:
			return nil, fmt.Errorf("topic %s does not exist: fill one with \"leat bench produce\" first, or name another with --topic", o.Topic)
		case errors.Is(err, kerr.UnknownTopicOrPartition) && !made:
			if err := c.atController(ctx, func(c *client) error { return c.create(ctx, o) }); err != nil {
				return nil, fmt.Errorf("make topic %s: %w", o.Topic, err)
			}
			made, deadline = true, time.Now().Add(madeWithin)
			continue
		case !kerr.IsRetriable(err) || time.Now().After(deadline):
			return nil, fmt.Errorf("topic %s: %w", o.Topic, err)
		}
		select { // its leaders are being chosen
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// led asks all leaders of a topic for something that they only know once they serve.
func led(ctx context.Context, topic string, l *layout) error {
	of := map[string][]int32{}
	for p, addr := range l.leaders {
		of[addr] = append(of[addr], int32(p))
	}
	if len(of[""]) > 0 {
		return fmt.Errorf("%s of %s: %w", plural(len(of[""]), "partition"), topic, kerr.LeaderNotAvailable)
	}
	for addr, partitions := range of {
		leader, err := dial(ctx, addr)
		if err != nil {
			return err
		}
		_, err = leader.offsets(ctx, topic, partitions, latest)
		leader.close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *client) lookup(ctx context.Context, topic string) (*layout, error) {
	req := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = &topic
	req.Topics = append(req.Topics, t)
	answer, err := c.call(ctx, req)
	if err != nil {
		return nil, err
	}
	resp, _ := answer.(*kmsg.MetadataResponse)
	if len(resp.Topics) != 1 {
		return nil, errors.New("the broker did not answer for the topic")
	}
	if err := kerr.ErrorForCode(resp.Topics[0].ErrorCode); err != nil {
		return nil, err
	}
	brokers := map[int32]string{}
	for _, b := range resp.Brokers {
		brokers[b.NodeID] = net.JoinHostPort(b.Host, fmt.Sprint(b.Port))
	}
	l := &layout{id: resp.Topics[0].TopicID}
	partitions := resp.Topics[0].Partitions
	slices.SortFunc(partitions, func(a, b kmsg.MetadataResponseTopicPartition) int { return int(a.Partition - b.Partition) })
	for _, p := range partitions {
		if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
			return nil, err
		}
		l.leaders = append(l.leaders, brokers[p.Leader])
	}
	return l, nil
}

// atController does what only the controller may do: here, or where this broker
// says that the controller is.
func (c *client) atController(ctx context.Context, do func(c *client) error) error {
	err := do(c)
	if !errors.Is(err, kerr.NotController) {
		return err
	}
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{} // none, not all
	answer, err := c.call(ctx, req)
	if err != nil {
		return err
	}
	resp, _ := answer.(*kmsg.MetadataResponse)
	i := slices.IndexFunc(resp.Brokers, func(b kmsg.MetadataResponseBroker) bool { return b.NodeID == resp.ControllerID })
	if i < 0 {
		return errors.New("the cluster has no controller at the moment")
	}
	controller, err := dial(ctx, net.JoinHostPort(resp.Brokers[i].Host, fmt.Sprint(resp.Brokers[i].Port)))
	if err != nil {
		return err
	}
	defer controller.close()
	return do(controller)
}

func (c *client) create(ctx context.Context, o *Options) error {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = int32(callWithin.Milliseconds())
	req.Topics = append(req.Topics, c.newTopic(o))
	answer, err := c.call(ctx, req)
	if err != nil {
		return err
	}
	resp, _ := answer.(*kmsg.CreateTopicsResponse)
	for i := range resp.Topics {
		if err := createError(&resp.Topics[i]); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return err
		}
	}
	return nil
}

// remove deletes a topic; one that is not there is fine.
func (c *client) remove(ctx context.Context, topic string) error {
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.TimeoutMillis = int32(callWithin.Milliseconds())
	req.TopicNames = []string{topic}
	t := kmsg.NewDeleteTopicsRequestTopic()
	t.Topic = &topic
	req.Topics = append(req.Topics, t)
	answer, err := c.call(ctx, req)
	if err != nil {
		return err
	}
	resp, _ := answer.(*kmsg.DeleteTopicsResponse)
	for _, t := range resp.Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition) {
			return fmt.Errorf("delete topic %s: %w", topic, err)
		}
	}
	return nil
}

const (
	earliest = -2
	latest   = -1
)

// offset asks a partition's leader for its first or next offset.
func (c *client) offset(ctx context.Context, topic string, partition int32, when int64) (int64, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = topic
	p := kmsg.NewListOffsetsRequestTopicPartition()
	p.Partition, p.Timestamp = partition, when
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	if have := c.versions[req.Key()]; have[1] < 1 {
		return 0, errors.New("the broker is older than Kafka 0.10.1")
	}
	answer, err := c.call(ctx, req)
	if err != nil {
		return 0, err
	}
	resp, _ := answer.(*kmsg.ListOffsetsResponse)
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return 0, errors.New("the broker did not answer for the partition")
	}
	got := resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(got.ErrorCode); err != nil {
		return 0, fmt.Errorf("offsets of %s-%d: %w", topic, partition, err)
	}
	return got.Offset, nil
}
