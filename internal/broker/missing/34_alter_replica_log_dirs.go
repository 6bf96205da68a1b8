package missing

import (
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// AlterReplicaLogDirs, key 34, versions 1 to 2 (KIP-113).
//
// 2: flexible. A node has one data directory: moving a partition to that one does nothing,
// and moving it to another one is refused.

func alterReplicaLogDirs(n Node, kreq kmsg.Request) Answer {
	req, _ := kreq.(*kmsg.AlterReplicaLogDirsRequest)
	var size Memory
	for i := range req.Dirs {
		for j := range req.Dirs[i].Topics {
			size.addCodes(req.Dirs[i].Topics[j].Topic, len(req.Dirs[i].Topics[j].Partitions))
		}
	}
	return Answer{Memory: size, Make: func(pass func()) kmsg.Response {
		resp := kmsg.NewPtrAlterReplicaLogDirsResponse()
		places := map[string]int{} // the index of each topic in the answer
		for i := range req.Dirs {
			pass()
			d := &req.Dirs[i]
			for j := range d.Topics {
				pass()
				t := &d.Topics[j]
				place, again := places[t.Topic]
				if !again {
					place = len(resp.Topics)
					places[t.Topic] = place
					resp.Topics = append(resp.Topics, kmsg.AlterReplicaLogDirsResponseTopic{Topic: t.Topic})
				}
				rt := &resp.Topics[place]
				for _, p := range t.Partitions {
					pass()
					rt.Partitions = append(rt.Partitions, kmsg.AlterReplicaLogDirsResponseTopicPartition{
						Partition: p, ErrorCode: n.codeOfMove(d.Dir, t.Topic, p),
					})
				}
			}
		}
		return resp
	}}
}

// codeOfMove is the code for moving a partition to a directory.
func (n Node) codeOfMove(dir, topic string, partition int32) int16 {
	// Kafka copies a partition into a directory whose name is the topic's and the
	// partition's with moreLetters more, and refuses a name above maxName.
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
