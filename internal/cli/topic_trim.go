package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/leatstream/leat/internal/admin"
)

// trimmedPartition is a line of the output of topic trim.
type trimmedPartition struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Start     int64  `json:"start"`             // the first offset after the trim
	Deleted   int64  `json:"deleted"`           // offsets that are gone
	DryRun    bool   `json:"dry_run,omitempty"` // nothing was deleted
}

// topicTrim is the task of topic trim.
type topicTrim struct {
	topic      string
	before     admin.Position
	partitions []int32
	dryRun     bool
}

func (a *app) newTopicTrim() *cobra.Command {
	var before string
	var t topicTrim
	cmd := &cobra.Command{
		Use: "trim TOPIC --before PLACE", Short: "Delete a topic's oldest records", Args: cobra.ExactArgs(1),
		SuggestFor: []string{"trim-prefix", "delete-records", "truncate"},
		Long: `Delete the records before a place in each partition.

PLACE is ` + admin.PositionHelp + `.
An offset beyond the end of a partition is refused, and nothing is deleted in any.`,
		Example: `  leat topic trim orders --before -24h --dry-run
  leat topic trim orders --before 1000 --partition 2`,
		ValidArgsFunction: a.completeTopics(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			t.topic = args[0]
			if t.before, err = parsePosition(before, time.Now()); err != nil {
				return err
			}
			return a.withAdmin(cmd.Context(), func(ctx context.Context, adm *kadm.Client) error {
				return a.trimTopic(ctx, adm, t)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&before, "before", "", "the `PLACE` before which records are deleted")
	f.Int32SliceVarP(&t.partitions, "partition", "p", nil, "only these partitions, separated by commas")
	f.BoolVar(&t.dryRun, "dry-run", false, "only show what would be deleted")
	if err := cmd.MarkFlagRequired("before"); err != nil {
		panic("BUG: " + err.Error())
	}
	return cmd
}

func (a *app) trimTopic(ctx context.Context, adm *kadm.Client, t topicTrim) error {
	offsets, err := resolvePositionIn(ctx, adm, t.topic, t.before, t.partitions)
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
	done := []trimmedPartition{}
	if t.dryRun {
		for _, o := range offsets.Sorted() {
			done = append(done, trimmedPartition{Topic: t.topic, Partition: o.Partition, Start: o.At, DryRun: true})
		}
	} else {
		res, err := adm.DeleteRecords(ctx, offsets)
		if err != nil {
			return fmt.Errorf("trimming %s: %w", t.topic, err)
		}
		for _, r := range res.Sorted() {
			if r.Err != nil {
				failed = append(failed, trimError(r))
				continue
			}
			done = append(done, trimmedPartition{Topic: r.Topic, Partition: r.Partition, Start: r.LowWatermark})
		}
	}
	for i := range done {
		done[i].Deleted = max(0, done[i].Start-now[done[i].Partition].Start)
	}
	return errors.Join(append(failed, a.showTrimmed(done, t.dryRun))...)
}

// trimError is why the records of a partition were not deleted.
func trimError(r kadm.DeleteRecordsResponse) error {
	if errors.Is(r.Err, kerr.PolicyViolation) {
		return &sentenceError{kind: r.Err, sentence: fmt.Sprintf("topic %[1]s is compacted only, so its records cannot be deleted: "+
			"write tombstones, or run \"leat topic alter %[1]s --set cleanup.policy=compact,delete\" first", r.Topic)}
	}
	return answerError(fmt.Sprintf("%s, partition %d", r.Topic, r.Partition), r.Err, "")
}

// checkEnds refuses an offset beyond a partition's end, as Kafka's brokers do. It is more likely a
// mistake than a wish to delete everything, which is what "end" is for.
func (t topicTrim) checkEnds(offsets kadm.Offsets, now map[int32]admin.Span) error {
	if t.before.Kind != admin.AtOffset {
		return nil
	}
	for _, o := range offsets.Sorted() {
		if end := now[o.Partition].End; t.before.N > end {
			return fmt.Errorf("%s, partition %d ends at offset %s, before %s: nothing was deleted; to delete all records, use \"--before end\"",
				t.topic, o.Partition, formatNumber(end), formatNumber(t.before.N))
		}
	}
	return nil
}

func (a *app) showTrimmed(done []trimmedPartition, dryRun bool) error {
	return a.show(done, func() string {
		t := columns{head: []string{">PARTITION", ">START", ">DELETED"}}
		if dryRun {
			t.head = []string{">PARTITION", ">WOULD START", ">WOULD DELETE"}
		}
		for _, l := range done {
			t.addRow(strconv.Itoa(int(l.Partition)), formatNumber(l.Start), formatNumber(l.Deleted))
		}
		return t.String()
	})
}

// parsePosition parses a place that a flag names.
func parsePosition(text string, now time.Time) (admin.Position, error) {
	p, err := admin.ParsePosition(text, now)
	if err != nil {
		return p, usagef("%s", err)
	}
	return p, nil
}

// resolvePositionIn finds the offsets of a position in a topic's partitions, or only in those that are named.
func resolvePositionIn(ctx context.Context, adm *kadm.Client, topic string, pos admin.Position, partitions []int32) (kadm.Offsets, error) {
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
			return nil, noSuchPartitionError(topic, p, len(details[topic].Partitions))
		}
		wanted[p] = true
	}
	offsets.KeepFunc(func(o kadm.Offset) bool { return wanted[o.Partition] })
	return offsets, nil
}
