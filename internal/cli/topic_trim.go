package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/leatstream/leat/internal/admin"
)

// trimmed is one line of what topic trim tells.
type trimmed struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Start     int64  `json:"start"`             // the first offset now, or after a trim that is only tried
	Deleted   int64  `json:"deleted"`           // offsets that are gone
	DryRun    bool   `json:"dry_run,omitempty"` // nothing was deleted
}

// trim is what topic trim is to do.
type trim struct {
	topic      string
	before     admin.Position
	partitions []int32
	dryRun     bool
}

func (a *app) topicTrim() *cobra.Command {
	var before string
	var t trim
	cmd := &cobra.Command{
		Use: "trim TOPIC --before PLACE", Short: "Delete a topic's oldest records", Args: cobra.ExactArgs(1),
		SuggestFor: []string{"trim-prefix", "delete-records", "truncate"},
		Long: `Delete the records that stand before a place in each partition.

PLACE is ` + admin.PositionHelp + `.
An offset that a partition does not have yet is refused, for all partitions.`,
		Example: `  leat topic trim orders --before -24h --dry-run
  leat topic trim orders --before 1000 --partition 2`,
		ValidArgsFunction: a.topics(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			t.topic = args[0]
			if t.before, err = parsePosition(before, time.Now()); err != nil {
				return err
			}
			return a.admin(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				return a.trimTopic(ctx, adm, t)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&before, "before", "", "the `PLACE` before which records go")
	f.Int32SliceVarP(&t.partitions, "partition", "p", nil, "only these partitions, with commas between")
	f.BoolVar(&t.dryRun, "dry-run", false, "only show what would be deleted")
	if err := cmd.MarkFlagRequired("before"); err != nil {
		panic("BUG: " + err.Error())
	}
	return cmd
}

func (a *app) trimTopic(ctx context.Context, adm *kadm.Client, t trim) error {
	offsets, err := placesIn(ctx, adm, t.topic, t.before, t.partitions)
	if err != nil {
		return err
	}
	all, err := admin.Spans(ctx, adm, t.topic)
	if err != nil {
		return err
	}
	now := all[t.topic]
	if err := t.checkEnds(offsets, now); err != nil {
		return err
	}
	var failed []error
	done := []trimmed{}
	if t.dryRun {
		for _, o := range offsets.Sorted() {
			done = append(done, trimmed{Topic: t.topic, Partition: o.Partition, Start: o.At, DryRun: true})
		}
	} else {
		res, err := adm.DeleteRecords(ctx, offsets)
		if err != nil {
			return fmt.Errorf("trimming %s: %w", t.topic, err)
		}
		for _, r := range res.Sorted() {
			if r.Err != nil {
				failed = append(failed, about(fmt.Sprintf("%s, partition %d", r.Topic, r.Partition), r.Err, ""))
				continue
			}
			done = append(done, trimmed{Topic: r.Topic, Partition: r.Partition, Start: r.LowWatermark})
		}
	}
	for i := range done {
		done[i].Deleted = max(0, done[i].Start-now[done[i].Partition].Start)
	}
	return errors.Join(append(failed, a.showTrimmed(done, t.dryRun))...)
}

// checkEnds refuses an offset beyond a partition's end, as Kafka's brokers do: it is more
// likely a mistake than the wish to delete everything, for which there is "end".
func (t trim) checkEnds(offsets kadm.Offsets, now map[int32]admin.Span) error {
	if t.before.Kind != admin.AtOffset {
		return nil
	}
	for _, o := range offsets.Sorted() {
		if end := now[o.Partition].End; t.before.N > end {
			return fmt.Errorf("%s, partition %d ends at offset %s, before %s: nothing was deleted; \"--before end\" deletes all records",
				t.topic, o.Partition, number(end), number(t.before.N))
		}
	}
	return nil
}

func (a *app) showTrimmed(done []trimmed, dryRun bool) error {
	return a.show(done, func() string {
		t := columns{head: []string{">PARTITION", ">START", ">DELETED"}}
		if dryRun {
			t.head = []string{">PARTITION", ">WOULD START", ">WOULD DELETE"}
		}
		for _, l := range done {
			t.add(strconv.Itoa(int(l.Partition)), number(l.Start), number(l.Deleted))
		}
		return t.String()
	})
}

// parsePosition reads a place that a flag names.
func parsePosition(text string, now time.Time) (admin.Position, error) {
	p, err := admin.ParsePosition(text, now)
	if err != nil {
		return p, usagef("%s", err)
	}
	return p, nil
}

// placesIn resolves a position in a topic's partitions, or in some of them.
func placesIn(ctx context.Context, adm *kadm.Client, topic string, pos admin.Position, partitions []int32) (kadm.Offsets, error) {
	details, err := topicDetails(ctx, adm, topic)
	if err != nil {
		return nil, err
	}
	offsets, err := pos.Resolve(ctx, adm, topic)
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
