package classic

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
)

// Key is the version of a record's key that says that it is a classic group's: the
// version, i16, is followed by the group's name, a string with an i16 length.
const Key = 2

// Versions of GroupMetadataValue.
const (
	recordVersion  = 3 // that Kafka writes
	newestReadable = 4 // with tagged fields
)

// Put decides what a group is; nil: that it is gone.
func Put(s *coord.Step, group string, v *kmsg.GroupMetadataValue) {
	b := binary.BigEndian.AppendUint16(s.Buffer(), Key)
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(group))), group...)
	n := len(b)
	if v != nil {
		b = v.AppendTo(b)
	}
	s.PutBuffer(b, n)
}

// putEmpty decides that there is a group in which nothing has happened yet.
func putEmpty(s *coord.Step, group string) {
	v := kmsg.NewGroupMetadataValue()
	v.Version, v.CurrentStateTimestamp = recordVersion, s.Now.UnixMilli()
	Put(s, group, &v)
}

// Record is the group as a record, in the generation and with the assignment it has.
func (g *Group) Record() *kmsg.GroupMetadataValue {
	v := kmsg.NewGroupMetadataValue()
	v.Version = recordVersion
	v.ProtocolType, v.Generation = g.protocolType, g.generation
	v.Protocol, v.Leader = optional(g.protocol), optional(g.leader)
	v.CurrentStateTimestamp = g.since
	v.Members = make([]kmsg.GroupMetadataValueMember, len(g.members))
	for i, mb := range g.members {
		v.Members[i] = kmsg.GroupMetadataValueMember{
			MemberID: mb.id, InstanceID: mb.instance,
			ClientID: mb.clientID, ClientHost: mb.clientHost,
			RebalanceTimeoutMillis: millis(mb.rebalanceTimeout),
			SessionTimeoutMillis:   millis(mb.sessionTimeout),
			Subscription:           mb.metadata(g.protocol), Assignment: mb.assignment,
		}
	}
	return &v
}

// Decode reads a group's record. The result aliases it.
func Decode(value []byte) (*kmsg.GroupMetadataValue, error) {
	if len(value) >= 2 {
		if version := int16(binary.BigEndian.Uint16(value)); version > newestReadable {
			return nil, fmt.Errorf("a group of version %d: %w", version, coord.ErrNewer)
		}
	}
	v := new(kmsg.GroupMetadataValue)
	if err := v.ReadFrom(value); err != nil {
		return nil, fmt.Errorf("a group's record cannot be decoded: %w", err)
	}
	return v, nil
}

// Apply takes over what a record says. The record is somebody else's buffer: what is
// kept of it is copied.
func (g *Group) Apply(s *coord.Step, v *kmsg.GroupMetadataValue) {
	g.last = s.Next()
	g.restore(s, v)
}

// subscription adds the topics that a consumer's metadata names, and tells how many
// bytes they take; false where it cannot be read or they take more than there is room
// for. All versions begin alike: version i16, topics array of strings.
func subscription(topics map[string]struct{}, metadata []byte, room int64) (took int64, ok bool) {
	r := kbin.Reader{Src: metadata}
	r.Int16()
	for n := r.Int32(); n > 0 && r.Ok(); n-- {
		t := r.UnsafeString()
		if _, known := topics[t]; known || !r.Ok() {
			continue
		}
		if took += topicSize(t); took > room {
			return 0, false
		}
		topics[strings.Clone(t)] = struct{}{}
	}
	return took, r.Ok()
}

func millis(d time.Duration) int32 { return int32(d / time.Millisecond) }

func fromMillis(ms int32) time.Duration { return time.Duration(ms) * time.Millisecond }
