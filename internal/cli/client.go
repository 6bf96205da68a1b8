package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// How long to wait for brokers.
const (
	dialTimeout    = 3 * time.Second
	reachTimeout   = 5 * time.Second
	requestTimeout = 30 * time.Second
)

// connect makes a client and sees to it that a broker answers. The caller closes it.
func (a *app) connect(ctx context.Context, opts ...kgo.Opt) (*kgo.Client, error) {
	var seeds []string
	for s := range strings.SplitSeq(a.bootstrap, ",") {
		if s = strings.TrimSpace(s); s != "" {
			seeds = append(seeds, s)
		}
	}
	if len(seeds) == 0 {
		return nil, usagef("--bootstrap is empty: name a broker as HOST:PORT")
	}
	opts = append([]kgo.Opt{
		kgo.SeedBrokers(seeds...), kgo.ClientID("leat"), kgo.DialTimeout(dialTimeout), kgo.RetryTimeout(requestTimeout),
	}, opts...)
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, usagef("%s", strings.TrimPrefix(err.Error(), "invalid "))
	}
	reach, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	if err := cl.Ping(reach); err != nil {
		cl.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, a.unreachable(err)
	}
	return cl, nil
}

// admin runs fn with an administrator's client.
func (a *app) admin(ctx context.Context, fn func(ctx context.Context, adm *kadm.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, 2*requestTimeout)
	defer cancel()
	cl, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	return fn(ctx, kadm.NewClient(cl))
}

// topicDetails looks topics up and fails with a sentence where one is missing.
func topicDetails(ctx context.Context, adm *kadm.Client, topics ...string) (kadm.TopicDetails, error) {
	details, err := adm.ListTopicsWithInternal(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("asking for topics: %w", err)
	}
	for _, t := range topics {
		d, ok := details[t]
		if !ok {
			return nil, noTopic(ctx, adm, t)
		}
		if d.Err != nil {
			return nil, aboutTopic(ctx, adm, t, d.Err, "")
		}
	}
	return details, nil
}

// aboutTopic wraps what a broker said on a topic. Where the topic does not exist it names
// the one that may have been meant.
func aboutTopic(ctx context.Context, adm *kadm.Client, topic string, err error, message string) error {
	if errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID) {
		return noTopic(ctx, adm, topic)
	}
	return about("topic "+topic, err, message)
}

// noTopic says that a topic does not exist, and which one may have been meant.
func noTopic(ctx context.Context, adm *kadm.Client, topic string) error {
	list, err := adm.ListTopicsWithInternal(ctx)
	if hint := didYouMean(topic, list.Names()); err == nil && hint != "" {
		return notFoundf("topic %s does not exist%s", topic, hint)
	}
	return notFoundf("topic %s does not exist: \"leat topic list\" shows what there is", topic)
}

// pairs reads name=value arguments; flag is for the complaint.
func pairs(flag string, args []string) (map[string]*string, error) {
	m := make(map[string]*string, len(args))
	for _, kv := range args {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || name == "" {
			return nil, usagef("%s%q: write it as name=value", flag, kv)
		}
		m[name] = &value
	}
	return m, nil
}
