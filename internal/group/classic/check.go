package classic

import (
	"fmt"
	"maps"
)

// Check returns an error if the group's counts and tables contradict each other, and the
// bytes that it should be charged for. It is for tests of machines.
func (g *Group) Check() (bytes int64, err error) {
	bytes = Size(g.id)
	for id, p := range g.pending {
		bytes += int64(pendingBytes + len(id))
		if !p.session.IsSet() {
			return bytes, fmt.Errorf("id %s is pending for ever", id)
		}
	}
	for topic := range g.subscribed {
		bytes += topicSize(topic)
	}
	waiting, unsynced, support := 0, 0, map[string]int{}
	for _, mb := range g.members {
		bytes += mb.size()
		if mb.join != nil {
			waiting++
		}
		if mb.unsynced {
			unsynced++
		}
		for _, p := range mb.protocols {
			support[p.Name]++
		}
		if err := g.checkMember(mb); err != nil {
			return bytes, err
		}
	}
	if waiting != g.waiting || unsynced != g.unsynced || !maps.Equal(support, g.supporters) || len(g.byID) != len(g.members) {
		return bytes, fmt.Errorf("counts are wrong: %d %d %v, want %d %d %v", g.waiting, g.unsynced, g.supporters, waiting, unsynced, support)
	}
	return bytes, g.checkState()
}

func (g *Group) checkMember(mb *member) error {
	switch {
	case g.byID[mb.id] != mb, mb.instance != nil && g.byInstance[*mb.instance] != mb, mb.group != g:
		return fmt.Errorf("member %s is not found", mb.id)
	case mb.sync != nil && g.state != completing:
		return fmt.Errorf("a SyncGroup waits in a group that is %v", g.state)
	case mb.join != nil && g.state != preparing:
		return fmt.Errorf("a JoinGroup waits in a group that is %v", g.state)
	case !mb.session.IsSet() && mb.join == nil && mb.sync == nil:
		return fmt.Errorf("member %s can stay for ever", mb.id)
	}
	return nil
}

func (g *Group) checkState() error {
	switch {
	case g.state == empty && len(g.members) > 0:
		return fmt.Errorf("an empty group has %d members", len(g.members))
	case g.state == preparing && !g.joinTimer.IsSet():
		return fmt.Errorf("a group prepares for ever")
	case g.state == completing && !g.syncTimer.IsSet() && g.unsynced > 0:
		return fmt.Errorf("a group completes for ever")
	case g.state != completing && g.state != stable:
		return nil
	case g.byID[g.leader] == nil:
		return fmt.Errorf("the leader %q is no member", g.leader)
	case g.supporters[g.protocol] != len(g.members):
		return fmt.Errorf("not all members have the protocol %q", g.protocol)
	}
	return nil
}
