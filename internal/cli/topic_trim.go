package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

// trimmed is one line of what topic trim tells.
type trimmed struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Start     int64  `json:"start"` // the first offset now
}

func (a *app) topicTrim() *cobra.Command {
	var before string
	var partitions []int32
	cmd := &cobra.Command{
		Use: "trim TOPIC --before PLACE", Short: "Delete a topic's oldest records", Args: cobra.ExactArgs(1),
		SuggestFor: []string{"trim-prefix", "delete-records", "truncate"},
		Long: `Delete the records that stand before a place in each partition.

PLACE is ` + positionHelp + ".",
		Example: `  leat topic trim orders --before -24h
  leat topic trim orders --before 1000 --partition 2`,
		ValidArgsFunction: a.topics(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			pos, err := parsePosition(before, time.Now())
			if err != nil {
				return err
			}
			return a.admin(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				return a.trim(ctx, adm, args[0], pos, partitions)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&before, "before", "", "the place before which records go")
	f.Int32SliceVarP(&partitions, "partition", "p", nil, "only these partitions, with commas between")
	if err := cmd.MarkFlagRequired("before"); err != nil {
		panic("BUG: " + err.Error())
	}
	return cmd
}

func (a *app) trim(ctx context.Context, adm *kadm.Client, topic string, pos position, partitions []int32) error {
	offsets, err := placesIn(ctx, adm, topic, pos, partitions)
	if err != nil {
		return err
	}
	res, err := adm.DeleteRecords(ctx, offsets)
	if err != nil {
		return fmt.Errorf("trimming %s: %w", topic, err)
	}
	var failed []error
	all := []trimmed{}
	for _, r := range res.Sorted() {
		if r.Err != nil {
			failed = append(failed, about(fmt.Sprintf("%s, partition %d", r.Topic, r.Partition), r.Err, ""))
			continue
		}
		all = append(all, trimmed{Topic: r.Topic, Partition: r.Partition, Start: r.LowWatermark})
	}
	err = a.show(all, func() string {
		t := columns{head: []string{">PARTITION", ">START"}}
		for _, l := range all {
			t.add(strconv.Itoa(int(l.Partition)), number(l.Start))
		}
		return t.String()
	})
	return errors.Join(append(failed, err)...)
}

// placesIn resolves a position in a topic's partitions, or in some of them.
func placesIn(ctx context.Context, adm *kadm.Client, topic string, pos position, partitions []int32) (kadm.Offsets, error) {
	details, err := topicDetails(ctx, adm, topic)
	if err != nil {
		return nil, err
	}
	offsets, err := pos.resolve(ctx, adm, topic)
	if err != nil || len(partitions) == 0 {
		return offsets, err
	}
	wanted := map[int32]bool{}
	for _, p := range partitions {
		if _, ok := details[topic].Partitions[p]; !ok {
			return nil, notFoundf("topic %s has no partition %d: it has %d, from 0 on", topic, p, len(details[topic].Partitions))
		}
		wanted[p] = true
	}
	offsets.KeepFunc(func(o kadm.Offset) bool { return wanted[o.Partition] })
	return offsets, nil
}
