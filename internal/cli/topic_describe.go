package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/leatstream/leat/internal/admin"
)

// describedTopic is an element of the output of topic describe.
type describedTopic struct {
	Topic      string               `json:"topic"`
	ID         string               `json:"id"`
	Internal   bool                 `json:"internal,omitempty"`
	Configs    map[string]string    `json:"configs"` // those that are set on the topic
	Compacted  bool                 `json:"compacted,omitempty"`
	Partitions []describedPartition `json:"partitions"`
}

type describedPartition struct {
	Partition int32   `json:"partition"`
	Leader    int32   `json:"leader"`
	Epoch     int32   `json:"epoch"`
	Replicas  []int32 `json:"replicas"`
	InSync    []int32 `json:"in_sync"`
	Start     *int64  `json:"start"` // null: the leader has not told it, or there is none
	End       *int64  `json:"end"`
	Bytes     int64   `json:"bytes"`
}

func (a *app) newTopicDescribe() *cobra.Command {
	return &cobra.Command{
		Use: "describe TOPIC...", Short: "Show topics' partitions and configs", Args: cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeTopics(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAdmin(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				return a.describeTopics(ctx, adm, args)
			})
		},
	}
}

func (a *app) describeTopics(ctx context.Context, adm *kadm.Client, topics []string) error {
	details, missing, err := findTopics(ctx, adm, topics...)
	if err != nil {
		return err
	}
	topics = details.Names()
	offsets, failed, err := admin.KnownSpans(ctx, adm, topics...)
	if err != nil {
		return err
	}
	a.tellUnknown(details, offsets, failed)
	sizes := logSizes(ctx, adm, details)
	configs, err := adm.DescribeTopicConfigs(ctx, topics...)
	if err != nil {
		return fmt.Errorf("asking for configs: %w", err)
	}
	all := []describedTopic{}
	for _, d := range details.Sorted() {
		t := describedTopic{Topic: d.Topic, ID: topicID(d.ID), Internal: d.IsInternal, Configs: setConfigs(configs, d.Topic), Compacted: isCompacted(configs, d.Topic)}
		for _, p := range d.Partitions.Sorted() {
			part := describedPartition{
				Partition: p.Partition, Leader: p.Leader, Epoch: p.LeaderEpoch, Replicas: p.Replicas, InSync: p.ISR, Bytes: sizes[d.Topic][p.Partition],
			}
			if s, ok := offsets[d.Topic][p.Partition]; ok {
				part.Start, part.End = &s.Start, &s.End
			}
			t.Partitions = append(t.Partitions, part)
		}
		all = append(all, t)
	}
	return errors.Join(missing, a.show(all, func() string {
		parts := make([]string, len(all))
		for i, t := range all {
			parts[i] = t.String()
		}
		return strings.Join(parts, "\n")
	}))
}

// setConfigs are the configs of a topic that somebody set.
func setConfigs(all kadm.ResourceConfigs, topic string) map[string]string {
	m := map[string]string{}
	for _, rc := range all {
		if rc.Name != topic {
			continue
		}
		for _, c := range rc.Configs {
			if isSet(c) {
				m[c.Key] = c.MaybeValue()
			}
		}
	}
	return m
}

// isCompacted tells whether a topic is compacted, as it says itself or as the broker's log.cleanup.policy does.
func isCompacted(all kadm.ResourceConfigs, topic string) bool {
	for _, rc := range all {
		for _, c := range rc.Configs {
			if rc.Name == topic && c.Key == "cleanup.policy" && strings.Contains(c.MaybeValue(), "compact") {
				return true
			}
		}
	}
	return false
}

// String is the text for people.
func (d describedTopic) String() string {
	var sb strings.Builder
	fmt.Fprintf(&sb, "topic %s, id %s, %s\n", d.Topic, d.ID, formatCount(len(d.Partitions), "partition"))
	for _, k := range sortedKeys(d.Configs) {
		fmt.Fprintf(&sb, "  %s=%s\n", k, escapeLine(d.Configs[k]))
	}
	if d.Compacted {
		sb.WriteString("  it is compacted; on the machine of a node of Leat, http://127.0.0.1:8080/compaction shows how far\n")
	}
	t := columns{head: []string{">PARTITION", ">LEADER", ">EPOCH", "REPLICAS", "IN SYNC", ">START", ">END", ">SIZE"}}
	for _, p := range d.Partitions {
		leader := strconv.Itoa(int(p.Leader))
		if p.Leader < 0 {
			leader = "none"
		}
		t.addRow(strconv.Itoa(int(p.Partition)), leader, strconv.Itoa(int(p.Epoch)), formatIDs(p.Replicas), formatIDs(p.InSync),
			formatKnown(p.Start), formatKnown(p.End), formatSize(float64(p.Bytes)))
	}
	sb.WriteString(t.String())
	return sb.String()
}

// formatKnown formats a number that may be unknown.
func formatKnown(n *int64) string {
	if n == nil {
		return "-"
	}
	return formatNumber(*n)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func sortedIDs[V any](m map[int32]V) []int32 { return slices.Sorted(maps.Keys(m)) }
