// Package missing answers the requests of Kafka's APIs for features that a node does not
// have: several data directories, voters of the operator's
// choice. Tools use these APIs on every cluster. The answers are those of an Apache Kafka on which
// the feature is not set up; a request to set it up is refused.
//
// API is the row of one API, Node is the state of the node on which answers depend, and
// Answer is a response that is made when there is memory for it. All functions are pure, and
// may be called by any goroutine.
package missing

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/meta"
)

// Node is the state of the node on which answers depend.
type Node struct {
	ID     int32
	LogDir string // its only data directory
	Image  *meta.Image
}

// API is one API of a missing feature.
type API struct {
	Key      int16
	Name     string
	Min, Max int16 // versions
	Answer   func(Node, kmsg.Request) Answer
}

// Answer is a response that is not made yet.
type Answer struct {
	Memory Memory // about how much the response takes, as a structure and in encoded form
	// Make makes the response. It calls pass for each element, so that others may have the
	// processor in between.
	Make func(pass func()) kmsg.Response
}

// fixedAnswer is an answer whose length does not depend on the request.
func fixedAnswer(resp kmsg.Response) Answer {
	return Answer{Make: func(func()) kmsg.Response { return resp }}
}

// APIs are the APIs of all missing features, ordered by their keys.
func APIs() []API {
	return []API{
		{34, "AlterReplicaLogDirs", 1, 2, alterReplicaLogDirs},
		{80, "AddRaftVoter", 0, 1, addRaftVoter},
		{81, "RemoveRaftVoter", 0, 0, removeRaftVoter},
	}
}

// elementMemoryEach is about how much memory an element of an answer takes, as a structure
// and in encoded form, without its text. A byte of text takes textMemory, since it is in the
// structure and in a buffer that grows.
const (
	elementMemoryEach = 192
	textMemory        = 4
)

// Memory adds up about how much memory an answer takes, of which most elements stand for
// something that the request names.
type Memory int64

// Add counts elements that have so many bytes of text in all.
func (a *Memory) Add(elements, text int) {
	*a += Memory(elementMemoryEach*int64(elements) + textMemory*int64(text))
}

// AddPartitions counts a topic and its partitions, each of which may get a message that
// names the topic.
func (a *Memory) AddPartitions(topic string, partitions int) {
	const messageText = 96
	a.Add(1, len(topic))
	*a += Memory(int64(partitions) * (elementMemoryEach + textMemory*int64(len(topic)+messageText)))
}

// addCodes counts a topic and its partitions, each of which gets a code without a message.
func (a *Memory) addCodes(topic string, partitions int) {
	const codeMemory = 64
	a.Add(1, len(topic))
	*a += Memory(codeMemory * int64(partitions))
}
