package source

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// shareType is the type of groups that have no positions of this kind (KIP-932).
const shareType = "share"

// ListGroups lists the groups of all brokers that the client may see. Share groups are left out.
func (s *Client) ListGroups(ctx context.Context) ([]string, error) {
	var all []string
	for _, shard := range s.cl.RequestSharded(ctx, kmsg.NewPtrListGroupsRequest()) {
		err := shard.Err
		r, ok := shard.Resp.(*kmsg.ListGroupsResponse)
		if err == nil && ok {
			err = errorOf(r.ErrorCode)
		}
		if err != nil {
			return nil, fmt.Errorf("listing the groups of the source: %w", err)
		}
		if !ok {
			return nil, fmt.Errorf("source: the answer to ListGroups is a %T", shard.Resp)
		}
		for i := range r.Groups {
			if r.Groups[i].GroupType != shareType {
				all = append(all, r.Groups[i].Group)
			}
		}
	}
	return all, nil
}

// GroupPosition is where a group is in a partition.
type GroupPosition struct {
	Topic     string
	Partition int32
	Offset    int64
	Epoch     int32 // of the record before the offset; -1: not known
	Metadata  string
}

// GroupPositions are those of one group.
type GroupPositions struct {
	Group     string
	Positions []GroupPosition
	Err       error // why they are not known: a kerr.Error, or that of a connection
}

// FetchPositions fetches all positions of groups, without those of open transactions, in the order of the groups.
func (s *Client) FetchPositions(ctx context.Context, groups []string) ([]GroupPositions, error) {
	q := kmsg.NewPtrOffsetFetchRequest()
	found := make(map[string]GroupPositions, len(groups))
	for _, name := range groups {
		g := kmsg.NewOffsetFetchRequestGroup()
		g.Group = name
		q.Groups = append(q.Groups, g)
	}
	for _, shard := range s.cl.RequestSharded(ctx, q) {
		r, ok := shard.Resp.(*kmsg.OffsetFetchResponse)
		if asked, isOne := shard.Req.(*kmsg.OffsetFetchRequest); !ok && isOne {
			for i := range asked.Groups {
				found[asked.Groups[i].Group] = GroupPositions{Err: errors.Join(shard.Err, ctx.Err())}
			}
			continue
		}
		if !ok {
			return nil, fmt.Errorf("asking the source for positions: %w", shard.Err)
		}
		for i := range r.Groups {
			found[r.Groups[i].Group] = takeGroup(&r.Groups[i])
		}
	}
	all := make([]GroupPositions, len(groups))
	for i, name := range groups {
		one, ok := found[name]
		if !ok {
			one.Err = errUnanswered
		}
		one.Group = name
		all[i] = one
	}
	return all, nil
}

// takeGroup takes the positions of a group from an answer. A group that is not there has none.
func takeGroup(g *kmsg.OffsetFetchResponseGroup) (p GroupPositions) {
	if p.Err = errorOf(g.ErrorCode); p.Err != nil {
		if errors.Is(p.Err, kerr.GroupIDNotFound) {
			p.Err = nil
		}
		return p
	}
	for i := range g.Topics {
		t := &g.Topics[i]
		for j := range t.Partitions {
			from := &t.Partitions[j]
			switch err := errorOf(from.ErrorCode); {
			case IsTopicGone(err):
				continue
			case err != nil:
				return GroupPositions{Err: err}
			}
			one := GroupPosition{Topic: t.Topic, Partition: from.Partition, Offset: from.Offset, Epoch: from.LeaderEpoch}
			if from.Metadata != nil {
				one.Metadata = *from.Metadata
			}
			p.Positions = append(p.Positions, one)
		}
	}
	return p
}
