package cli

import (
	"context"
	"encoding/base64"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
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
