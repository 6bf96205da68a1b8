package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/leatstream/leat/internal/meta"
)

// Member is a member of an in-sync set that a leader proposes.
type Member struct {
	ID int32
	// Epoch is that of the broker's registration when it fetched last. Below 1 it is not
	// known, which is possible for a member that was in sync before.
	Epoch int64
}

// InSyncChange is a leader's proposal for the in-sync set of one partition (KIP-497).
type InSyncChange struct {
	Topic          meta.UUID
	Partition      int32
	LeaderEpoch    int32
	PartitionEpoch int32 // that the leader knows; the proposal is refused at any other
	ISR            []Member
	// GivesUp tells that the leader gives its place to Successor, a member of ISR: another one may have died.
	GivesUp   bool
	Successor int32
	// Damaged are replicas outside of ISR that have lost records: they are not eligible.
	Damaged []int32
}

// InSyncResult is the answer to an InSyncChange.
type InSyncResult struct {
	After meta.Partition // the partition after the change, if Err is nil
	Err   *Error
}

// AlterPartitions changes in-sync sets, as their leaders propose. A leader that proposes a set without
// itself gives up, and a member of the set leads; or it names the member that is to lead. The results are in the order
// of the changes. Each change that is accepted raises the partition epoch, even if the set
// stays as it is, so that no copy of an earlier proposal can be accepted after it.
func (c *Controller) AlterPartitions(ctx context.Context, broker int32, brokerEpoch int64, asked []InSyncChange) (results []InSyncResult, refused *Error, err error) {
	err = c.runItems(ctx, ofCluster, len(asked), func(r *Rules, from int) ([]byte, int) {
		d, some, err := r.AlterPartitions(broker, brokerEpoch, asked[from:])
		results, refused = append(results[:from], some...), err
		return d.Records, from + len(some)
	})
	if err != nil || refused != nil {
		return nil, refused, err
	}
	return results, nil, nil
}

// AlterPartitions decides as many of the changes as fit into one part.
func (r *Rules) AlterPartitions(broker int32, brokerEpoch int64, asked []InSyncChange) (d Part, results []InSyncResult, err *Error) {
	if err := r.checkEpoch(broker, brokerEpoch); err != nil {
		return Part{}, nil, err
	}
	d = r.newPart()
	seen := map[partitionID]bool{}
	for i := range asked {
		a := &asked[i]
		id := partitionID{a.Topic, a.Partition}
		rec, res := r.alterPartition(broker, a)
		if seen[id] {
			rec, res = nil, InSyncResult{Err: refuse(InvalidRequest, "The partition is in the request more than once.")}
		}
		seen[id] = true
		if !d.add(rec) {
			break
		}
		results = append(results, res)
	}
	return d, results, nil
}

// partitionID names a partition.
type partitionID struct {
	topic  meta.UUID
	number int32
}

func (r *Rules) alterPartition(broker int32, a *InSyncChange) (record []byte, res InSyncResult) {
	t := r.Image.TopicByID(a.Topic)
	if t == nil {
		return nil, InSyncResult{Err: refuse(UnknownTopicID, "")}
	}
	if a.Partition < 0 || int(a.Partition) >= len(t.Partitions) {
		return nil, InSyncResult{Err: refuse(UnknownPartition, "")}
	}
	if err := r.checkInSync(broker, &t.Partitions[a.Partition], a); err != nil {
		return nil, InSyncResult{Err: err}
	}
	c := r.newChange(t, a.Partition)
	c.unclean, c.renew = false, true
	c.next.ISR = nil
	for _, m := range a.ISR {
		c.next.ISR = append(c.next.ISR, m.ID)
	}
	if !slices.Contains(c.next.ISR, broker) {
		c.lose(broker, false) // its log is damaged, or cannot be written: it may lack committed records
	}
	if a.GivesUp {
		c.successor = a.Successor
	}
	c.damaged = a.Damaged
	record = c.finish()
	res.After = c.next
	if c.next.Leader != broker { // the leader gives up, or the change has ended a reassignment that removes it
		res.Err = refuse(NewLeaderElected, "")
	}
	return record, res
}

// checkInSync refuses a proposal that is not the present leader's, or has a member who may
// have missed records: one whose broker is fenced, leaving, or was registered again.
func (r *Rules) checkInSync(broker int32, p *meta.Partition, a *InSyncChange) *Error {
	switch {
	case a.LeaderEpoch > p.LeaderEpoch, a.PartitionEpoch > p.PartitionEpoch:
		return refuse(NotController, "")
	case a.LeaderEpoch < p.LeaderEpoch:
		return refuse(FencedLeaderEpoch, "")
	case broker != p.Leader:
		return refuse(InvalidRequest, "The leader is broker %d.", p.Leader)
	case a.PartitionEpoch < p.PartitionEpoch:
		return refuse(InvalidUpdate, "")
	}
	var ids []int32
	var ineligible []string
	for _, m := range a.ISR {
		if !slices.Contains(p.Replicas, m.ID) || slices.Contains(ids, m.ID) {
			return refuse(InvalidRequest, "The in-sync set has broker %d, which has no replica or is there twice.", m.ID)
		}
		ids = append(ids, m.ID)
		if why := r.whyIneligible(m, slices.Contains(p.ISR, m.ID)); why != "" {
			ineligible = append(ineligible, fmt.Sprintf("%d (%s)", m.ID, why))
		}
	}
	if len(ids) == 0 {
		return refuse(InvalidRequest, "The in-sync set is empty.")
	}
	if a.GivesUp && (a.Successor == broker || !slices.Contains(ids, a.Successor)) {
		return refuse(InvalidRequest, "Broker %d cannot take the leader's place: it is the leader, or is not in the in-sync set.", a.Successor)
	}
	if slices.ContainsFunc(a.Damaged, func(id int32) bool { return slices.Contains(ids, id) }) {
		return refuse(InvalidRequest, "A replica in the in-sync set is said to have lost records.")
	}
	if len(ineligible) > 0 {
		return refuse(IneligibleReplica, "These replicas may not be in sync: %s", strings.Join(ineligible, ", "))
	}
	return nil
}

// whyIneligible returns why a broker may not be in an in-sync set, or "".
func (r *Rules) whyIneligible(m Member, wasInSync bool) string {
	b := r.Image.Brokers[m.ID]
	switch {
	case b == nil:
		return "not registered"
	case b.State == meta.BrokerLeaving:
		return "shutting down"
	case b.State == meta.BrokerFenced:
		return "fenced"
	case m.Epoch < 1 && !wasInSync:
		return "its broker epoch is not known"
	case m.Epoch >= 1 && m.Epoch != b.Epoch:
		return fmt.Sprintf("broker epoch %d instead of %d", m.Epoch, b.Epoch)
	}
	return ""
}
