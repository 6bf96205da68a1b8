package cli

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/leatstream/leat/internal/admin"
)

// offsetRange is a line of the output of topic offsets.
type offsetRange struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Start     int64  `json:"start"`
	At        *int64 `json:"at,omitempty"` // the place that was asked for
	End       int64  `json:"end"`
}

func (a *app) newTopicOffsets() *cobra.Command {
	var at string
	cmd := &cobra.Command{
		Use: "offsets TOPIC...", Short: "Show the first and last offsets of partitions, or those at a time", Args: cobra.MinimumNArgs(1),
		SuggestFor: []string{"get-offsets", "watermarks"},
		Long: `Show the first offset and the end of each partition, and with --at the offset of a place, such as a time.

PLACE is ` + admin.PositionHelp + ".",
		Example: `  leat topic offsets orders
  leat topic offsets orders --at 2026-05-17T10:05:03Z`,
		ValidArgsFunction: a.completeTopics(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			var pos *admin.Position
			if cmd.Flags().Changed("at") {
				p, err := parsePosition(at, time.Now())
				if err != nil {
					return err
				}
				pos = &p
			}
			return a.withAdmin(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				return a.showOffsets(ctx, adm, args, pos)
			})
		},
	}
	cmd.Flags().StringVar(&at, "at", "", "also show the offset of this `PLACE`")
	return cmd
}

func (a *app) showOffsets(ctx context.Context, adm *kadm.Client, topics []string, pos *admin.Position) error {
	found, missing, err := findTopics(ctx, adm, topics...)
	if err != nil {
		return err
	}
	topics = found.Names()
	all, err := admin.Spans(ctx, adm, topics...)
	if err != nil {
		return err
	}
	var places kadm.Offsets
	if pos != nil {
		if places, err = pos.Resolve(ctx, adm, topics...); err != nil {
			return err
		}
	}
	lines := []offsetRange{}
	for _, topic := range sortedKeys(all) {
		for _, p := range sortedIDs(all[topic]) {
			l := offsetRange{Topic: topic, Partition: p, Start: all[topic][p].Start, End: all[topic][p].End}
			if o, ok := places.Lookup(topic, p); ok {
				l.At = &o.At
			}
			lines = append(lines, l)
		}
	}
	return errors.Join(missing, a.show(lines, func() string {
		t := columns{head: []string{"TOPIC", ">PARTITION", ">START", ">END"}}
		if pos != nil {
			t.head = append(t.head, ">AT")
		}
		for _, l := range lines {
			cells := []string{l.Topic, strconv.Itoa(int(l.Partition)), formatNumber(l.Start), formatNumber(l.End)}
			if pos != nil {
				at := "-"
				if l.At != nil {
					at = formatNumber(*l.At)
				}
				cells = append(cells, at)
			}
			t.addRow(cells...)
		}
		return t.String()
	}))
}
