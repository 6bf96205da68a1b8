package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatstream/leat/internal/cli/phrase"
	"github.com/leatstream/leat/internal/config"
)

// createdTopic is what topic create tells.
type createdTopic struct {
	Topic       string `json:"topic"`
	ID          string `json:"id,omitempty"`
	Created     bool   `json:"created"` // false: it was there
	Partitions  int32  `json:"partitions,omitempty"`
	Replication int16  `json:"replication,omitempty"`
}

func (a *app) topicCreate() *cobra.Command {
	var (
		partitions  int32
		replication int16
		configs     []string
		ifNotExists bool
	)
	cmd := &cobra.Command{
		Use: "create TOPIC...", Short: "Create topics", Args: cobra.MinimumNArgs(1), ValidArgsFunction: none,
		Example: "  leat topic create orders --partitions 3 --config retention.ms=86400000",
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := pairs("--config ", configs)
			if err != nil {
				return err
			}
			return a.admin(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				res, err := adm.CreateTopics(ctx, partitions, replication, m, args...)
				if err != nil {
					return fmt.Errorf("creating topics: %w", err)
				}
				return a.showCreated(res, args, sortedKeys(m), ifNotExists)
			})
		},
	}
	f := cmd.Flags()
	f.Int32VarP(&partitions, "partitions", "p", -1, "number of partitions (-1: the broker's default)")
	f.Int16VarP(&replication, "replication", "r", -1, "number of replicas (-1: the broker's default)")
	f.StringArrayVarP(&configs, "config", "c", nil, "a topic config, as name=value; may be repeated")
	f.BoolVar(&ifNotExists, "if-not-exists", false, "be content with a topic that exists")
	a.complete(cmd, "config", configNames(config.Topic, "="))
	return cmd
}

func (a *app) showCreated(res kadm.CreateTopicResponses, topics, configs []string, ifNotExists bool) error {
	var failed []error
	all := []createdTopic{}
	for _, name := range topics {
		r := res[name]
		there := errors.Is(r.Err, kerr.TopicAlreadyExists) && ifNotExists
		if r.Err != nil && !there {
			failed = append(failed, explainCreate(name, configs, r))
			continue
		}
		c := createdTopic{Topic: name, Created: !there}
		if !there {
			c.ID, c.Partitions, c.Replication = topicID(r.ID), max(r.NumPartitions, 0), max(r.ReplicationFactor, 0)
		}
		all = append(all, c)
	}
	err := a.show(all, func() string {
		var sb strings.Builder
		for _, c := range all {
			switch {
			case !c.Created:
				fmt.Fprintf(&sb, "topic %s exists already\n", c.Topic)
			case c.Partitions > 0:
				fmt.Fprintf(&sb, "created topic %s with %s and %s\n", c.Topic, count(int(c.Partitions), "partition"), count(int(c.Replication), "replica"))
			default:
				fmt.Fprintf(&sb, "created topic %s\n", c.Topic)
			}
		}
		return sb.String()
	})
	return errors.Join(append(failed, err)...)
}

// explainCreate says why a topic was not created, perhaps since a config does not exist.
func explainCreate(topic string, configs []string, r kadm.CreateTopicResponse) error {
	if errors.Is(r.Err, kerr.InvalidConfig) {
		var known []string
		for _, d := range config.Defs(config.Topic) {
			known = append(known, d.Name)
		}
		for _, name := range configs {
			if !slices.Contains(known, name) {
				return notFoundf("topic %s: there is no config %s%s", topic, name, phrase.DidYouMean(name, known))
			}
		}
	}
	return about("topic "+topic, r.Err, r.ErrMessage)
}
