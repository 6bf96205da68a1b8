package group

import (
	"cmp"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/group/memory"
	"github.com/leatstream/leat/internal/record"
)

// About what is kept of committed offsets, in bytes, with what the allocator adds.
const (
	offsetCost = 64  // an offset
	rareCost   = 32  // what few offsets have, beside the bytes of the metadata
	placeCost  = 64  // a topic of a group
	nameCost   = 128 // a topic's name, beside its bytes
	groupCost  = 192 // a group, beside what its kind takes
)

// committed are the offsets that one group has committed. Most groups commit the same
// topics: the names are the machine's, and a group has only pointers to them. An offset
// takes about a hundred bytes, whether a group has many partitions of a topic or one
// (BenchmarkOffsetMemory). All of it is charged to the machine's account. The zero
// value is not ready: see newCommitted.
type committed struct {
	names  *names
	topics map[*topicName][]kept // each list by partition; none is empty
}

// kept is an offset as it is kept.
type kept struct {
	partition int32
	epoch     record.Epoch
	at        record.Offset
	time      int64 // ms
	topic     [16]byte
	rare      *rare // nil: no metadata, and it expires as the settings say
}

// rare is what few offsets have.
type rare struct {
	expires  int64
	metadata string
}

// names are the names of the topics that the groups of one machine have offsets of.
type names struct {
	memory *memory.Account
	byText map[string]*topicName
}

type topicName struct {
	text  string
	users int // groups that have offsets of it
}

func newNames(memory *memory.Account) *names {
	return &names{memory: memory, byText: map[string]*topicName{}}
}

// join finds a name, or enters it, for one more group.
func (n *names) join(text []byte) *topicName {
	t := n.byText[string(text)]
	if t == nil {
		t = &topicName{text: string(text)}
		n.byText[t.text] = t
		n.memory.Add(nameSize(len(text)))
	}
	t.users++
	return t
}

// leave drops a name that no group has any more.
func (n *names) leave(t *topicName) {
	if t.users--; t.users == 0 {
		delete(n.byText, t.text)
		n.memory.Add(-nameSize(len(t.text)))
	}
}

func nameSize(bytes int) int64 { return int64(nameCost + bytes) }

func newCommitted(n *names) committed { return committed{names: n} }

// of are a topic's offsets, by partition. They must not be changed.
func (c *committed) of(topic string) []kept { return c.topics[c.names.byText[topic]] }

func seek(list []kept, partition int32) (int, bool) {
	return slices.BinarySearchFunc(list, partition, func(k kept, p int32) int { return cmp.Compare(k.partition, p) })
}

// get is the offset of a partition; false: there is none.
func (c *committed) get(topic string, partition int32) (offset, bool) {
	list := c.of(topic)
	i, ok := seek(list, partition)
	if !ok {
		return offset{}, false
	}
	return list[i].offset(), true
}

// set keeps an offset.
func (c *committed) set(topic []byte, partition int32, o *offset) {
	t := c.names.byText[string(topic)]
	list := c.topics[t]
	if list == nil {
		if c.topics == nil {
			c.topics = map[*topicName][]kept{}
		}
		t = c.names.join(topic)
		c.names.memory.Add(placeCost)
	}
	k := kept{partition: partition, epoch: o.epoch, at: o.at, time: o.time, topic: o.topic}
	if o.metadata != "" || o.expires != noExpiry {
		k.rare = &rare{expires: o.expires, metadata: o.metadata}
	}
	i, ok := seek(list, partition)
	if ok {
		c.names.memory.Add(k.size() - list[i].size())
		list[i] = k
		return
	}
	c.names.memory.Add(k.size())
	c.topics[t] = slices.Insert(list, i, k)
}

// drop forgets an offset, if there is one.
func (c *committed) drop(topic []byte, partition int32) {
	t := c.names.byText[string(topic)]
	list := c.topics[t]
	i, ok := seek(list, partition)
	if !ok {
		return
	}
	c.names.memory.Add(-list[i].size())
	if len(list) == 1 {
		c.forget(t)
		return
	}
	if i == 0 { // as where all of them go, one after another
		list[0] = kept{}
		list = list[1:]
	} else {
		list = slices.Delete(list, i, i+1)
	}
	if len(list)&(len(list)-1) == 0 { // a power of two: now and then the memory is given back
		list = slices.Clip(slices.Clone(list))
	}
	c.topics[t] = list
}

// forget drops the place of a topic whose offsets are gone.
func (c *committed) forget(t *topicName) {
	delete(c.topics, t)
	c.names.memory.Add(-placeCost)
	c.names.leave(t)
}

// clear forgets all offsets.
func (c *committed) clear() {
	for t, list := range c.topics {
		for i := range list {
			c.names.memory.Add(-list[i].size())
		}
		c.forget(t)
	}
}

// sorted are the topics by name.
func (c *committed) sorted() []*topicName {
	list := make([]*topicName, 0, len(c.topics))
	for t := range c.topics {
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b *topicName) int { return cmp.Compare(a.text, b.text) })
	return list
}

// growth is how many bytes more are taken when a topic's offsets are committed. It is
// an upper bound: a partition that is named twice counts twice.
func (c *committed) growth(t *kmsg.OffsetCommitRequestTopic, expires bool) (n int64) {
	list := c.of(t.Topic)
	if list == nil {
		n += placeCost
		if c.names.byText[t.Topic] == nil {
			n += nameSize(len(t.Topic))
		}
	}
	for j := range t.Partitions {
		p := &t.Partitions[j]
		n += keptSize(len(deref(p.Metadata)), expires)
		if i, ok := seek(list, p.Partition); ok {
			n -= list[i].size()
		}
	}
	return n
}

func (k *kept) offset() offset {
	o := offset{at: k.at, epoch: k.epoch, time: k.time, expires: noExpiry, topic: k.topic}
	if k.rare != nil {
		o.expires, o.metadata = k.rare.expires, k.rare.metadata
	}
	return o
}

func (k *kept) size() int64 {
	if k.rare == nil {
		return offsetCost
	}
	return keptSize(len(k.rare.metadata), true)
}

// keptSize is about what an offset takes.
func keptSize(metadata int, expires bool) int64 {
	if metadata == 0 && !expires {
		return offsetCost
	}
	return int64(offsetCost + rareCost + metadata)
}
