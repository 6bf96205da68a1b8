package broker

import (
	"fmt"

	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/wire"
)

// A node that the active controller has not heard from for long may have been replaced as the leader of its
// partitions, and does not know it. It cannot commit anything, but clients would wait for it, each for its own
// timeout, and find it again in its old metadata. So it tells them that it does not lead, and closes the connections of those that
// ask where the leaders are: clients then ask another node at once, while an answer with an error would have some of them
// wait for seconds until they ask again, and perhaps this node.

// Contact says whether the active controller has heard from this node lately.
type Contact uint8

// These are the states of the contact.
const (
	InContact     Contact = iota // the node leads what its metadata say
	CutOff                       // others may lead that: clients are sent to them
	CutOffForLong                // there may be no others: clients may read what was committed here, and write nothing
)

// errSentAway closes the connection of a client that is to ask another node.
var errSentAway = fmt.Errorf("the active controller has not been heard from for long: %w", wire.ErrElsewhere)

// contact is the present contact.
func (b *Broker) contact() Contact {
	if b.cfg.Contact == nil {
		return InContact
	}
	return b.cfg.Contact()
}

// checkContact returns an error if another node may lead a partition that clients want to write to or to read. The
// only replica leads, whatever happens.
func checkContact(p *replica.Partition, c Contact, writes bool) error {
	if c == InContact || c == CutOffForLong && !writes || len(p.Leadership().Replicas) <= 1 {
		return nil
	}
	return replica.ErrNotLeader
}
