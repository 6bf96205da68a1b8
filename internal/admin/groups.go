package admin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The kinds of groups that Kafka 4 has. A broker that does not name a group's kind has classic groups only.
const (
	Classic  = "classic"
	Consumer = "consumer"
	Share    = "share"
	Streams  = "streams"
)

// Group is a group as a broker lists it.
type Group struct {
	Name        string
	Kind        string
	Protocol    string // "consumer", "connect" or the like
	State       string
	Coordinator int32
}

// FindGroups lists the groups in the given states and of the given kinds. An empty list means all.
func FindGroups(ctx context.Context, cl *kgo.Client, states, kinds []string) ([]Group, error) {
	req := kmsg.NewPtrListGroupsRequest()
	req.StatesFilter, req.TypesFilter = states, kinds
	var all []Group
	for _, shard := range cl.RequestSharded(ctx, req) {
		err := shard.Err
		resp, ok := shard.Resp.(*kmsg.ListGroupsResponse)
		if err == nil && ok {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		if err != nil {
			return nil, fmt.Errorf("asking for groups: %w", err)
		}
		for _, g := range resp.Groups {
			e := Group{
				Name: g.Group, Kind: strings.ToLower(g.GroupType), Protocol: g.ProtocolType, State: g.GroupState, Coordinator: shard.Meta.NodeID,
			}
			if e.Kind == "" {
				e.Kind = Classic
			}
			// A broker that does not know these filters lists all of its groups.
			if len(kinds) == 0 || slices.Contains(kinds, e.Kind) {
				all = append(all, e)
			}
		}
	}
	slices.SortFunc(all, func(a, b Group) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// Description is a group with its members, its offsets and its lag.
type Description struct {
	Group       string      `json:"group"`
	Type        string      `json:"type"` // classic, consumer, share or streams
	Protocol    string      `json:"protocol_type,omitempty"`
	State       string      `json:"state"`
	Assignor    string      `json:"assignor,omitempty"`
	Coordinator int32       `json:"coordinator"`
	TotalLag    int64       `json:"total_lag"`
	Members     []Member    `json:"members"`
	Partitions  []Partition `json:"partitions"`

	MembersUnknown bool                          `json:"-"` // Members is empty, since this package cannot ask for the members of this kind
	assigned       map[string]map[int32][]string // the members that have a partition
}

// Member is a member of a group, and how many partitions it has.
type Member struct {
	ID         string `json:"id"`
	InstanceID string `json:"instance_id,omitempty"`
	Client     string `json:"client"`
	Host       string `json:"host"`
	Partitions int    `json:"partitions"`
}

// Partition is a partition that a group reads. Committed is -1 if nothing was committed; End and Lag are
// -1 if the partition does not exist. A share group has no committed offset: its Committed is the first
// offset that it has not finished.
type Partition struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Committed int64  `json:"committed"`
	End       int64  `json:"end"`
	Lag       int64  `json:"lag"`
	Member    string `json:"member,omitempty"`
}

// DescribeGroups asks for the members, the offsets and the lag of groups of any kind.
func DescribeGroups(ctx context.Context, cl *kgo.Client, entries []Group) ([]Description, error) {
	adm := kadm.NewClient(cl)
	all := make([]Description, len(entries))
	byKind := map[string][]*Description{}
	for i, e := range entries {
		all[i] = Description{
			Group: e.Name, Type: e.Kind, Protocol: e.Protocol, State: e.State, Coordinator: e.Coordinator,
			Members: []Member{}, Partitions: []Partition{}, assigned: map[string]map[int32][]string{},
		}
		byKind[e.Kind] = append(byKind[e.Kind], &all[i])
	}
	var offsets []*Description // the groups that have committed offsets
	for kind, groups := range byKind {
		var err error
		switch kind {
		case Classic:
			err = describeClassic(ctx, adm, groups)
		case Consumer:
			err = describeConsumer(ctx, adm, groups)
		case Share:
			err = describeShare(ctx, adm, groups)
		default:
			for _, g := range groups {
				g.MembersUnknown = true
			}
		}
		if err != nil {
			return nil, err
		}
		if kind != Share {
			offsets = append(offsets, groups...)
		}
	}
	return all, addCommitted(ctx, adm, offsets)
}

func groupNames(groups []*Description) []string {
	names := make([]string, len(groups))
	for i, g := range groups {
		names[i] = g.Group
	}
	return names
}

// addMember adds a member with the partitions that it has.
func (d *Description) addMember(m Member, instance *string, has kadm.TopicsSet) {
	if instance != nil {
		m.InstanceID = *instance
	}
	for topic, partitions := range has {
		if topic == "" { // some brokers give only the id of a topic
			m.Partitions += len(partitions)
			continue
		}
		if d.assigned[topic] == nil {
			d.assigned[topic] = map[int32][]string{}
		}
		for p := range partitions {
			d.assigned[topic][p] = append(d.assigned[topic][p], m.ID)
			m.Partitions++
		}
	}
	d.Members = append(d.Members, m)
}

func describeClassic(ctx context.Context, adm *kadm.Client, groups []*Description) error {
	res, err := adm.DescribeGroups(ctx, groupNames(groups)...)
	if err != nil {
		return fmt.Errorf("asking for groups: %w", err)
	}
	for _, g := range groups {
		r := res[g.Group]
		if r.Err != nil {
			return &RefusedError{Of: "group " + g.Group, Err: r.Err, Message: r.ErrMessage}
		}
		g.State, g.Protocol, g.Assignor = r.State, r.ProtocolType, r.Protocol
		for _, m := range r.Members {
			has := kadm.TopicsSet{}
			if c, ok := m.Assigned.AsConsumer(); ok {
				for _, t := range c.Topics {
					has.Add(t.Topic, t.Partitions...)
				}
			}
			g.addMember(Member{ID: m.MemberID, Client: m.ClientID, Host: m.ClientHost}, m.InstanceID, has)
		}
	}
	return nil
}

func describeConsumer(ctx context.Context, adm *kadm.Client, groups []*Description) error {
	res, err := adm.DescribeConsumerGroups(ctx, groupNames(groups)...)
	if err != nil {
		return fmt.Errorf("asking for consumer groups: %w", err)
	}
	for _, g := range groups {
		r := res[g.Group]
		if r.Err != nil {
			return &RefusedError{Of: "group " + g.Group, Err: r.Err}
		}
		g.State, g.Assignor = r.State, r.AssignorName
		for _, m := range r.Members {
			g.addMember(Member{ID: m.MemberID, Client: m.ClientID, Host: m.ClientHost}, m.InstanceID, m.Assignment)
		}
	}
	return nil
}

// describeShare asks for share groups and their offsets, which only their coordinator
// knows.
func describeShare(ctx context.Context, adm *kadm.Client, groups []*Description) error {
	res, err := adm.DescribeShareGroups(ctx, groupNames(groups)...)
	if err != nil {
		return fmt.Errorf("asking for share groups: %w", err)
	}
	offsets, err := adm.DescribeShareGroupOffsets(ctx, groupNames(groups)...)
	if err != nil {
		return fmt.Errorf("asking for the offsets of share groups: %w", err)
	}
	for _, g := range groups {
		r := res[g.Group]
		if r.Err != nil {
			return &RefusedError{Of: "group " + g.Group, Err: r.Err}
		}
		g.State, g.Assignor = r.GroupState, r.Assignor
		for _, m := range r.Members {
			g.addMember(Member{ID: m.MemberID, Client: m.ClientID, Host: m.ClientHost}, nil, m.Assignment)
		}
		for _, topic := range sortedKeys(offsets[g.Group].Offsets) {
			partitions := offsets[g.Group].Offsets[topic]
			for _, p := range sortedIDs(partitions) {
				o := partitions[p]
				line := Partition{Topic: topic, Partition: p, Committed: o.StartOffset, End: -1, Lag: o.Lag}
				if o.StartOffset >= 0 && o.Lag >= 0 {
					line.End = o.StartOffset + o.Lag
				}
				g.addPartition(line)
			}
		}
	}
	return nil
}

// addCommitted adds the partitions for which groups have committed offsets, and those that their members
// have, with the lag of each.
func addCommitted(ctx context.Context, adm *kadm.Client, groups []*Description) error {
	commits, err := CommittedOffsets(ctx, adm, groupNames(groups)...)
	if err != nil {
		return err
	}
	topics := map[string]bool{}
	collectPartitions := func(g *Description) map[string]map[int32]bool {
		all := map[string]map[int32]bool{}
		add := func(topic string, p int32) {
			if all[topic] == nil {
				all[topic] = map[int32]bool{}
			}
			all[topic][p], topics[topic] = true, true
		}
		commits[g.Group].Each(func(o kadm.OffsetResponse) { add(o.Topic, o.Partition) })
		for topic, partitions := range g.assigned {
			for p := range partitions {
				add(topic, p)
			}
		}
		return all
	}
	reads := make([]map[string]map[int32]bool, len(groups))
	for i, g := range groups {
		reads[i] = collectPartitions(g)
	}
	if len(topics) == 0 {
		return nil
	}
	starts, startErr := adm.ListStartOffsets(ctx, sortedKeys(topics)...)
	ends, endErr := adm.ListEndOffsets(ctx, sortedKeys(topics)...)
	if startErr != nil || endErr != nil {
		return fmt.Errorf("asking for offsets: %w", errors.Join(startErr, endErr))
	}
	for i, g := range groups {
		for _, topic := range sortedKeys(reads[i]) {
			for _, p := range sortedIDs(reads[i][topic]) {
				line := Partition{Topic: topic, Partition: p, Committed: -1, End: -1, Lag: -1}
				if o, ok := commits[g.Group].Lookup(topic, p); ok {
					line.Committed = o.At
				}
				start, end := knownOffset(starts, topic, p), knownOffset(ends, topic, p)
				if line.End = end; end >= 0 {
					line.Lag = max(0, end-max(line.Committed, start))
				}
				g.addPartition(line)
			}
		}
	}
	return nil
}

// knownOffset is an offset that was listed, or -1 if the partition does not exist.
func knownOffset(list kadm.ListedOffsets, topic string, p int32) int64 {
	if o, ok := list.Lookup(topic, p); ok && o.Err == nil {
		return o.Offset
	}
	return -1
}

// addPartition adds a line, with the names of the members that have its partition.
func (d *Description) addPartition(line Partition) {
	members := slices.Sorted(slices.Values(d.assigned[line.Topic][line.Partition]))
	line.Member = strings.Join(members, ",")
	d.TotalLag += max(0, line.Lag)
	d.Partitions = append(d.Partitions, line)
}

// CommittedOffsets are the offsets that groups have committed.
func CommittedOffsets(ctx context.Context, adm *kadm.Client, groups ...string) (map[string]kadm.OffsetResponses, error) {
	all := map[string]kadm.OffsetResponses{}
	if len(groups) == 0 {
		return all, nil // a request without groups would mean all groups
	}
	for name, r := range adm.FetchManyOffsets(ctx, groups...) {
		if r.Err != nil && !errors.Is(r.Err, kerr.GroupIDNotFound) {
			return nil, &RefusedError{Of: "group " + name, Err: r.Err}
		}
		// An offset below 0 means that there is none for the partition.
		r.Fetched.KeepFunc(func(o kadm.OffsetResponse) bool { return o.At >= 0 && o.Err == nil })
		for topic, partitions := range r.Fetched {
			if len(partitions) == 0 {
				delete(r.Fetched, topic)
			}
		}
		all[name] = r.Fetched
	}
	return all, nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func sortedIDs[V any](m map[int32]V) []int32 { return slices.Sorted(maps.Keys(m)) }
