package cli

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/leatstream/leat/internal/admin"
)

func (a *app) newTopic() *cobra.Command {
	cmd := newParent("topic", "Create, list, describe, alter and delete topics",
		a.newTopicCreate(), a.newTopicList(), a.newTopicDescribe(), a.newTopicAlter(), a.newTopicDelete(), a.newTopicAddPartitions(), a.newTopicTrim(), a.newTopicOffsets())
	return a.addOutputFlag(a.addClientFlags(cmd))
}

// topicID writes an id in the form that Kafka's tools use.
func topicID(id kadm.TopicID) string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// logSizes are the bytes on disk of each partition's leader. The partitions of brokers that do not
// report them are left out.
func logSizes(ctx context.Context, adm *kadm.Client, details kadm.TopicDetails) map[string]map[int32]int64 {
	set := kadm.TopicsSet{}
	leaders := map[string]map[int32]int32{}
	details.EachPartition(func(p kadm.PartitionDetail) {
		set.Add(p.Topic, p.Partition)
		if leaders[p.Topic] == nil {
			leaders[p.Topic] = map[int32]int32{}
		}
		leaders[p.Topic][p.Partition] = p.Leader
	})
	sizes := map[string]map[int32]int64{}
	dirs, err := adm.DescribeAllLogDirs(ctx, set)
	if err != nil && len(dirs) == 0 {
		return sizes
	}
	dirs.Each(func(d kadm.DescribedLogDir) {
		d.Topics.Each(func(p kadm.DescribedLogDirPartition) {
			if leaders[p.Topic][p.Partition] != d.Broker {
				return
			}
			if sizes[p.Topic] == nil {
				sizes[p.Topic] = map[int32]int64{}
			}
			sizes[p.Topic][p.Partition] += p.Size
		})
	})
	return sizes
}

// tellUnknown tells how many partitions have no leader, and how many do not tell their offsets though they have one. failed
// is the error of one of those.
func (a *app) tellUnknown(details kadm.TopicDetails, known map[string]map[int32]admin.Span, failed error) {
	var offline, silent []string
	for _, d := range details.Sorted() {
		for _, p := range d.Partitions.Sorted() {
			name := fmt.Sprintf("%s-%d", p.Topic, p.Partition)
			if _, ok := known[p.Topic][p.Partition]; p.Leader < 0 {
				offline = append(offline, name)
			} else if !ok {
				silent = append(silent, name)
			}
		}
	}
	if len(offline) > 0 {
		a.tellPerson(fmt.Sprintf("%s %s no leader (%s): none of the replicas that may lead is running; \"leat cluster\" shows the nodes",
			formatCount(len(offline), "partition"), chooseByCount(len(offline), "has", "have"), listSome(offline)))
	}
	if len(silent) > 0 {
		sentence := fmt.Sprintf("%s %s not tell %s offsets (%s)",
			formatCount(len(silent), "partition"), chooseByCount(len(silent), "does", "do"), chooseByCount(len(silent), "its", "their"), listSome(silent))
		if failed != nil {
			sentence += ": " + describeNetwork(failed)
		}
		a.tellPerson(sentence)
	}
}

// chooseByCount chooses between two words by a number.
func chooseByCount(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// listSome lists a few names.
func listSome(names []string) string {
	const most = 5
	listed := strings.Join(names[:min(most, len(names))], ", ")
	if len(names) > most {
		listed += ", ..."
	}
	return listed
}
