package group

import (
	"cmp"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/group/memory"
	"github.com/leatstream/leat/internal/record"
)

// About how much memory committed offsets take, with the allocator's part.
const (
	storedOffsetBytes = 64  // an offset without an offsetExtra
	extraBytes        = 48  // an offsetExtra, without the characters of the metadata
	topicEntryBytes   = 64  // a topic of a group
	topicNameBytes    = 128 // a topic's name, without its characters
	groupBytes        = 192 // a group, without the memory of its kind
)

// committed are the offsets that one group has committed. Most groups commit offsets of
// the same topics, so that the machine keeps the names and a group has only pointers to
// them. An offset takes about a hundred bytes, whether a group has many partitions of a
// topic or one (BenchmarkOffsetMemory). All bytes are charged to the machine's account.
// Use newCommitted to make one.
type committed struct {
	names  *topicNames
	topics map[*topicName][]storedOffset // each list by partition; none is empty
}

// storedOffset is the compact form of an offset.
type storedOffset struct {
	partition int32
	epoch     record.Epoch
	at        record.Offset
	time      int64 // ms
	topic     [16]byte
	extra     *offsetExtra // nil if there is no metadata, no link, and the settings say when the offset expires
}

// offsetExtra has the fields that few offsets need.
type offsetExtra struct {
	expires  int64
	metadata string
	link     [16]byte // that has made the commit; zero: none has
	// confirmed is when the link has said that its source still has the position, in ms; 0: since the last load it has not.
	confirmed int64
}

// topicNames are the names of the topics of which the groups of one machine have
// offsets.
type topicNames struct {
	memory *memory.Account
	byText map[string]*topicName
}

type topicName struct {
	text   string
	groups int // groups that have offsets of it
}

func newTopicNames(memory *memory.Account) *topicNames {
	return &topicNames{memory: memory, byText: map[string]*topicName{}}
}

// acquireName finds a name, or adds it, and counts one more group for it.
func (n *topicNames) acquireName(text []byte) *topicName {
	t := n.byText[string(text)]
	if t == nil {
		t = &topicName{text: string(text)}
		n.byText[t.text] = t
		n.memory.Add(nameSize(len(text)))
	}
	t.groups++
	return t
}

// releaseName counts one group less for a name, and removes the name after the last one.
func (n *topicNames) releaseName(t *topicName) {
	if t.groups--; t.groups == 0 {
		delete(n.byText, t.text)
		n.memory.Add(-nameSize(len(t.text)))
	}
}

func nameSize(bytes int) int64 { return int64(topicNameBytes + bytes) }

func newCommitted(n *topicNames) committed { return committed{names: n} }

// ofTopic returns a topic's offsets, in the order of partitions. The caller must not
// change them.
func (c *committed) ofTopic(topic string) []storedOffset { return c.topics[c.names.byText[topic]] }

func searchPartition(list []storedOffset, partition int32) (int, bool) {
	return slices.BinarySearchFunc(list, partition, func(k storedOffset, p int32) int { return cmp.Compare(k.partition, p) })
}

// getOffset returns the offset of a partition; false means that there is none.
func (c *committed) getOffset(topic string, partition int32) (offset, bool) {
	list := c.ofTopic(topic)
	i, ok := searchPartition(list, partition)
	if !ok {
		return offset{}, false
	}
	return list[i].toOffset(), true
}

// setOffset stores an offset, replacing the partition's last one.
func (c *committed) setOffset(topic []byte, partition int32, o *offset) {
	t := c.names.byText[string(topic)]
	list := c.topics[t]
	if list == nil {
		if c.topics == nil {
			c.topics = map[*topicName][]storedOffset{}
		}
		t = c.names.acquireName(topic)
		c.names.memory.Add(topicEntryBytes)
	}
	k := storedOffset{partition: partition, epoch: o.Epoch, at: o.At, time: o.Time, topic: o.Topic}
	if o.Metadata != "" || o.Expires != noExpiry || o.Link != [16]byte{} {
		k.extra = &offsetExtra{expires: o.Expires, metadata: o.Metadata, link: o.Link}
	}
	i, ok := searchPartition(list, partition)
	if ok {
		c.names.memory.Add(k.size() - list[i].size())
		list[i] = k
		return
	}
	c.names.memory.Add(k.size())
	c.topics[t] = slices.Insert(list, i, k)
}

// deleteOffset deletes the offset of a partition, if there is one.
func (c *committed) deleteOffset(topic []byte, partition int32) {
	t := c.names.byText[string(topic)]
	list := c.topics[t]
	i, ok := searchPartition(list, partition)
	if !ok {
		return
	}
	c.names.memory.Add(-list[i].size())
	if len(list) == 1 {
		c.deleteTopic(t)
		return
	}
	if i == 0 { // fast when all offsets of a topic are deleted one after another
		list[0] = storedOffset{}
		list = list[1:]
	} else {
		list = slices.Delete(list, i, i+1)
	}
	if len(list)&(len(list)-1) == 0 { // at powers of two, the unused memory is given back
		list = slices.Clip(slices.Clone(list))
	}
	c.topics[t] = list
}

// deleteTopic deletes the entry of a topic whose offsets are gone.
func (c *committed) deleteTopic(t *topicName) {
	delete(c.topics, t)
	c.names.memory.Add(-topicEntryBytes)
	c.names.releaseName(t)
}

// deleteAll deletes all offsets.
func (c *committed) deleteAll() {
	for t, list := range c.topics {
		for i := range list {
			c.names.memory.Add(-list[i].size())
		}
		c.deleteTopic(t)
	}
}

// sortTopics returns the topics in the order of their names.
func (c *committed) sortTopics() []*topicName {
	list := make([]*topicName, 0, len(c.topics))
	for t := range c.topics {
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b *topicName) int { return cmp.Compare(a.text, b.text) })
	return list
}

// topicGrowth returns how many more bytes are kept when a topic's offsets are
// committed. It is an upper bound: a partition that is named twice counts twice.
func (c *committed) topicGrowth(t *kmsg.OffsetCommitRequestTopic, expires bool) (n int64) {
	list := c.ofTopic(t.Topic)
	if list == nil {
		n += topicEntryBytes
		if c.names.byText[t.Topic] == nil {
			n += nameSize(len(t.Topic))
		}
	}
	for j := range t.Partitions {
		p := &t.Partitions[j]
		n += storedOffsetSize(len(stringOrEmpty(p.Metadata)), expires)
		if i, ok := searchPartition(list, p.Partition); ok {
			n -= list[i].size()
		}
	}
	return n
}

// isOfLink tells whether a link to another cluster has made the commit.
func (k *storedOffset) isOfLink() bool { return k.extra != nil && k.extra.link != [16]byte{} }

func (k *storedOffset) toOffset() offset {
	o := offset{At: k.at, Epoch: k.epoch, Time: k.time, Expires: noExpiry, Topic: k.topic}
	if k.extra != nil {
		o.Expires, o.Metadata, o.Link = k.extra.expires, k.extra.metadata, k.extra.link
	}
	return o
}

func (k *storedOffset) size() int64 {
	if k.extra == nil {
		return storedOffsetBytes
	}
	return storedOffsetSize(len(k.extra.metadata), true)
}

// storedOffsetSize is about how many bytes an offset takes; metadata is the length of
// its metadata.
func storedOffsetSize(metadata int, expires bool) int64 {
	if metadata == 0 && !expires {
		return storedOffsetBytes
	}
	return int64(storedOffsetBytes + extraBytes + metadata)
}
