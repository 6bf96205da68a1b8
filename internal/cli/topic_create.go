package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/admin"
	"github.com/leatstream/leat/internal/cli/phrase"
	"github.com/leatstream/leat/internal/config"
)

// createdTopic is an element of the output of topic create.
type createdTopic struct {
	Topic       string `json:"topic"`
	ID          string `json:"id,omitempty"`
	Created     bool   `json:"created"` // false: it existed
	Partitions  int32  `json:"partitions,omitempty"`
	Replication int16  `json:"replication,omitempty"`
	Note        string `json:"note,omitempty"` // which of the configs have no effect on this broker
}

func (a *app) newTopicCreate() *cobra.Command {
	var n admin.NewTopics
	var configs []string
	var ifNotExists bool
	cmd := &cobra.Command{
		Use: "create TOPIC...", Short: "Create topics", Args: cobra.MinimumNArgs(1), ValidArgsFunction: completeNothing,
		Example: "  leat topic create orders --partitions 3 --config retention.ms=86400000",
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if n.Configs, err = parsePairs("--config ", configs); err != nil {
				return err
			}
			n.Names = args
			return a.withClient(cmd.Context(), func(ctx context.Context, cl *kgo.Client) error {
				return a.createTopics(ctx, cl, n, ifNotExists)
			})
		},
	}
	f := cmd.Flags()
	f.Int32VarP(&n.Partitions, "partitions", "p", -1, "number of partitions (-1: the broker's default)")
	f.Int16VarP(&n.Replication, "replication", "r", -1, "number of replicas (-1: the broker's default)")
	f.StringArrayVarP(&configs, "config", "c", nil, "a topic config, as name=value; may be repeated")
	f.BoolVar(&ifNotExists, "if-not-exists", false, "succeed if a topic exists already")
	a.completeFlag(cmd, "config", completeConfigNames(config.Topic, "="))
	return cmd
}

func (a *app) createTopics(ctx context.Context, cl *kgo.Client, n admin.NewTopics, ifNotExists bool) error {
	outcomes, err := admin.CreateTopics(ctx, cl, n)
	if err != nil {
		return err
	}
	var failed []error
	all := []createdTopic{}
	for _, name := range n.Names {
		o := outcomes[name]
		switch {
		case o.Refused == nil:
			a.writeNote("topic "+name, o.Note)
			all = append(all, createdTopic{
				Topic: name, ID: topicID(o.ID), Created: true, Partitions: max(o.Partitions, 0), Replication: max(o.Replication, 0), Note: o.Note,
			})
		case errors.Is(o.Refused, kerr.TopicAlreadyExists) && ifNotExists:
			all = append(all, createdTopic{Topic: name})
		default:
			failed = append(failed, explainCreate(name, sortedKeys(n.Configs), o.Refused))
		}
	}
	err = a.show(all, func() string {
		var sb strings.Builder
		for _, c := range all {
			switch {
			case !c.Created:
				fmt.Fprintf(&sb, "topic %s exists already\n", c.Topic)
			case c.Partitions > 0:
				fmt.Fprintf(&sb, "created topic %s with %s and %s\n", c.Topic, formatCount(int(c.Partitions), "partition"), formatCount(int(c.Replication), "replica"))
			default:
				fmt.Fprintf(&sb, "created topic %s\n", c.Topic)
			}
		}
		return sb.String()
	})
	return errors.Join(append(failed, err)...)
}

// explainCreate says why a topic was not created. The reason may be a config that does not exist.
func explainCreate(topic string, configs []string, refused *admin.RefusedError) error {
	if errors.Is(refused, kerr.InvalidConfig) {
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
	return explainRefusal(refused)
}
