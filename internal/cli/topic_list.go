package cli

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

// listedTopic is one line of topic list.
type listedTopic struct {
	Topic      string `json:"topic"`
	ID         string `json:"id"`
	Partitions int    `json:"partitions"`
	Replicas   int    `json:"replicas"`
	Records    int64  `json:"records"` // offsets between start and end: compaction and markers make it an upper bound
	Bytes      int64  `json:"bytes"`   // of the leaders' logs; 0 where the broker does not tell
	Internal   bool   `json:"internal,omitempty"`
}

func (a *app) topicList() *cobra.Command {
	var internal bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the topics", Args: cobra.NoArgs, ValidArgsFunction: none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.admin(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				return a.listTopics(ctx, adm, internal)
			})
		},
	}
	cmd.Flags().BoolVarP(&internal, "internal", "i", false, "list the internal topics too")
	return cmd
}

func (a *app) listTopics(ctx context.Context, adm *kadm.Client, internal bool) error {
	details, err := adm.ListTopicsWithInternal(ctx)
	if err != nil {
		return fmt.Errorf("asking for topics: %w", err)
	}
	if !internal {
		details.FilterInternal()
	}
	all := []listedTopic{}
	if len(details) > 0 {
		offsets, err := spans(ctx, adm, details.Names()...)
		if err != nil {
			return err
		}
		sizes := logSizes(ctx, adm, details)
		for _, d := range details.Sorted() {
			t := listedTopic{
				Topic: d.Topic, ID: topicID(d.ID), Partitions: len(d.Partitions), Replicas: d.Partitions.NumReplicas(), Internal: d.IsInternal,
			}
			for p, s := range offsets[d.Topic] {
				t.Records += s.end - s.start
				t.Bytes += sizes[d.Topic][p]
			}
			all = append(all, t)
		}
	}
	return a.show(all, func() string {
		t := columns{head: []string{"TOPIC", ">PARTITIONS", ">REPLICAS", ">RECORDS", ">SIZE"}}
		for _, l := range all {
			t.add(l.Topic, strconv.Itoa(l.Partitions), strconv.Itoa(l.Replicas), number(l.Records), size(float64(l.Bytes)))
		}
		if len(all) == 0 {
			return "no topics: \"leat topic create NAME\" makes one\n"
		}
		return t.String()
	})
}
