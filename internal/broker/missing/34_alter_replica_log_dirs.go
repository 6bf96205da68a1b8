package missing

import (
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// AlterReplicaLogDirs, key 34, versions 1 to 2 (KIP-113).
//
// 2: flexible. A node has one data directory: a partition can be moved to where it is,
// which does nothing, and nowhere else.

func alterReplicaLogDirs(n Node, kreq kmsg.Request) Answer {
	req, _ := kreq.(*kmsg.AlterReplicaLogDirsRequest)
	var size Memory
	for i := range req.Dirs {
		for j := range req.Dirs[i].Topics {
			size.addCodes(req.Dirs[i].Topics[j].Topic, len(req.Dirs[i].Topics[j].Partitions))
		}
	}
	return Answer{Memory: size, Make: func() kmsg.Response {
		resp := kmsg.NewPtrAlterReplicaLogDirsResponse()
		places := map[string]int{} // of the topics in the answer
		for i := range req.Dirs {
			d := &req.Dirs[i]
			for j := range d.Topics {
				t := &d.Topics[j]
				place, again := places[t.Topic]
				if !again {
					place = len(resp.Topics)
					places[t.Topic] = place
					resp.Topics = append(resp.Topics, kmsg.AlterReplicaLogDirsResponseTopic{Topic: t.Topic})
				}
				rt := &resp.Topics[place]
				for _, p := range t.Partitions {
					rt.Partitions = append(rt.Partitions, kmsg.AlterReplicaLogDirsResponseTopicPartition{
						Partition: p, ErrorCode: n.moveCode(d.Dir, t.Topic, p),
					})
				}
			}
		}
		return resp
	}}
}

// moveCode is the code for moving a partition to a directory.
func (n Node) moveCode(dir, topic string, partition int32) int16 {
	// Kafka's name of the directory that a partition is copied into has 40 letters more
	// than the topic's and the partition's, and a directory's name has at most 255.
	const maxName, moreLetters = 255, len("-.") + 32 + len("-future")
	if len(topic)+len(strconv.Itoa(int(partition)))+moreLetters > maxName {
		return kerr.InvalidTopicException.Code
	}
	if dir != n.LogDir {
		return kerr.LogDirNotFound.Code
	}
	t := n.Image.Topic(topic)
	switch {
	case t == nil || partition < 0 || int(partition) >= len(t.Partitions):
		return kerr.UnknownTopicOrPartition.Code
	case !slices.Contains(t.Partitions[partition].Replicas, n.ID):
		return kerr.ReplicaNotAvailable.Code
	}
	return 0
}
