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

// Key is the version with which the key of a classic group's record begins. The version,
// i16, is followed by the group's name, a string with an i16 length.
const Key = 2

// Versions of GroupMetadataValue.
const (
	recordVersion  = 3 // is written, as by Kafka
	newestReadable = 4 // with tagged fields
)

// Put adds a group's record to a step; a nil v deletes the group. It refuses a record that is too
// large before it makes it, since that could take as much memory as all groups may have.
func Put(s *coord.Step, group string, v *kmsg.GroupMetadataValue) {
	if v != nil && recordSize(v) > coord.MaxBatch {
		s.Refuse(coord.ErrTooLarge)
		return
	}
	b := binary.BigEndian.AppendUint16(s.Buffer(), Key)
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(group))), group...)
	n := len(b)
	if v != nil {
		b = v.AppendTo(b)
	}
	s.PutBuffer(b, n)
}

// recordSize is about how many bytes a group's record takes.
func recordSize(v *kmsg.GroupMetadataValue) (n int) {
	const fixed = 24 // bytes of a member without its texts
	for i := range v.Members {
		mb := &v.Members[i]
		n += fixed + len(mb.MemberID) + len(stringOrEmpty(mb.InstanceID)) + len(mb.ClientID) + len(mb.ClientHost) +
			len(mb.Subscription) + len(mb.Assignment)
	}
	return n
}

// putEmpty adds the record of a new group, without members, to a step.
func putEmpty(s *coord.Step, group string) {
	v := kmsg.NewGroupMetadataValue()
	v.Version, v.CurrentStateTimestamp = recordVersion, s.Now.UnixMilli()
	Put(s, group, &v)
}

// Record is the group's record, with its present generation and assignment.
func (g *Group) Record() *kmsg.GroupMetadataValue {
	v := kmsg.NewGroupMetadataValue()
	v.Version = recordVersion
	v.ProtocolType, v.Generation = g.protocolType, g.generation
	v.Protocol, v.Leader = stringOrNil(g.protocol), stringOrNil(g.leader)
	v.CurrentStateTimestamp = g.stateSince
	v.Members = make([]kmsg.GroupMetadataValueMember, len(g.members))
	for i, mb := range g.members {
		v.Members[i] = kmsg.GroupMetadataValueMember{
			MemberID: mb.id, InstanceID: mb.instance,
			ClientID: mb.clientID, ClientHost: mb.clientHost,
			RebalanceTimeoutMillis: toMillis(mb.rebalanceTimeout),
			SessionTimeoutMillis:   toMillis(mb.sessionTimeout),
			Subscription:           mb.protocolMetadata(g.protocol), Assignment: mb.assignment,
		}
	}
	return &v
}

// Decode decodes a group's record. The result refers to the bytes of value.
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

// Apply brings the group into the state of a record. It copies all that it keeps, since
// the record's bytes are the caller's.
func (g *Group) Apply(s *coord.Step, v *kmsg.GroupMetadataValue) {
	g.recordEnd = s.Next()
	g.restoreFrom(s, v)
}

// addSubscribedTopics adds the topics in a consumer's metadata to a set, and returns how
// many bytes they take. ok is false if the metadata cannot be read, or the topics take
// more than room. All versions of it begin with: version i16, topics array of strings.
func addSubscribedTopics(topics map[string]struct{}, metadata []byte, room int64) (took int64, ok bool) {
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

func toMillis(d time.Duration) int32 { return int32(d / time.Millisecond) }

func fromMillis(ms int32) time.Duration { return time.Duration(ms) * time.Millisecond }
