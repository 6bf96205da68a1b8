package cli

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/leatstream/leat/internal/admin"
)

// listedTopic is a line of the output of topic list.
type listedTopic struct {
	Topic      string `json:"topic"`
	ID         string `json:"id"`
	Partitions int    `json:"partitions"`
	Replicas   int    `json:"replicas"`
	Records    int64  `json:"records"` // offsets between start and end; there may be fewer records, because of compaction and markers; without partitions that do not tell
	Bytes      int64  `json:"bytes"`   // of the leaders' logs; 0 if the broker does not report them
	Internal   bool   `json:"internal,omitempty"`
}

// topicFilter says which topics to list, and how.
type topicFilter struct {
	names    []string // empty: all
	match    string   // a regular expression; empty: all
	internal bool
	quiet    bool // names only
}

func (a *app) newTopicList() *cobra.Command {
	var f topicFilter
	cmd := &cobra.Command{
		Use: "list [TOPIC...]", Short: "List topics: all of them, or those that are named", ValidArgsFunction: a.completeTopics(0),
		Example: `  leat topic list
  leat topic list --match '^orders' -q`,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.names = args
			pattern, err := regexp.Compile(f.match)
			if err != nil {
				return usagef("--match %s: it is not a regular expression", f.match)
			}
			return a.withAdmin(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				details, missing, err := f.findTopics(ctx, adm, pattern)
				if err != nil {
					return err
				}
				if f.quiet {
					names := append([]string{}, details.Names()...)
					slices.Sort(names)
					return errors.Join(missing, showEach(a, names, func(i int) string { return names[i] }))
				}
				return errors.Join(missing, a.listTopics(ctx, adm, details))
			})
		},
	}
	cmd.Flags().StringVarP(&f.match, "match", "m", "", "only topics whose name matches this regular expression")
	cmd.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "only the names, one per line")
	cmd.Flags().BoolVarP(&f.internal, "internal", "i", false, "list internal topics too")
	return cmd
}

// findTopics asks for the topics that pass the filter. An internal topic that is named is found, too.
func (f topicFilter) findTopics(ctx context.Context, adm *kadm.Client, pattern *regexp.Regexp) (details kadm.TopicDetails, missing, err error) {
	if details, missing, err = findTopics(ctx, adm, f.names...); err != nil {
		return nil, nil, err
	}
	if !f.internal && len(f.names) == 0 {
		details.FilterInternal()
	}
	for name := range details {
		if !pattern.MatchString(name) {
			delete(details, name)
		}
	}
	return details, missing, nil
}

func (a *app) listTopics(ctx context.Context, adm *kadm.Client, details kadm.TopicDetails) error {
	all := []listedTopic{}
	if len(details) > 0 {
		offsets, failed, err := admin.KnownSpans(ctx, adm, details.Names()...)
		if err != nil {
			return err
		}
		a.tellUnknown(details, offsets, failed)
		sizes := logSizes(ctx, adm, details)
		for _, d := range details.Sorted() {
			t := listedTopic{
				Topic: d.Topic, ID: topicID(d.ID), Partitions: len(d.Partitions), Replicas: d.Partitions.NumReplicas(), Internal: d.IsInternal,
			}
			for p, s := range offsets[d.Topic] {
				t.Records += s.End - s.Start
				t.Bytes += sizes[d.Topic][p]
			}
			all = append(all, t)
		}
	}
	return a.show(all, func() string {
		t := columns{head: []string{"TOPIC", ">PARTITIONS", ">REPLICAS", ">RECORDS", ">SIZE"}}
		for _, l := range all {
			t.addRow(l.Topic, strconv.Itoa(l.Partitions), strconv.Itoa(l.Replicas), formatNumber(l.Records), formatSize(float64(l.Bytes)))
		}
		if len(all) == 0 {
			return "no topics\n"
		}
		return t.String()
	})
}
