package controller

import (
	"context"
	"slices"

	"github.com/leatstream/leat/internal/meta"
)

// Partition names a partition of a topic.
type Partition struct {
	Topic  string
	Number int32
}

// ElectionResult is what became of one partition's election.
type ElectionResult struct {
	Partition
	Err *Error // nil: a leader was elected
}

// ElectLeaders elects leaders: the preferred ones, or, if unclean is true, any replica that
// is there for partitions without a leader, which may lose records. The results are in the order
// of the partitions.
func (c *Controller) ElectLeaders(ctx context.Context, asked []Partition, unclean bool) ([]ElectionResult, error) {
	results := make([]ElectionResult, 0, len(asked))
	err := c.runItems(ctx, ofClients, len(asked), func(r *Rules, from int) ([]byte, int) {
		d, some := r.ElectLeaders(asked[from:], unclean)
		results = append(results[:from], some...)
		return d.Records, from + len(some)
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

// ElectLeaders decides as many of the elections as fit into one part.
func (r *Rules) ElectLeaders(asked []Partition, unclean bool) (d Part, results []ElectionResult) {
	d = r.newPart()
	seen := map[Partition]*Error{}
	for _, p := range asked {
		refused, again := seen[p]
		var rec []byte
		if !again {
			rec, refused = r.electLeader(p, unclean)
		}
		if !d.add(rec) {
			break
		}
		seen[p] = refused
		results = append(results, ElectionResult{p, refused})
	}
	return d, results
}

func (r *Rules) electLeader(asked Partition, unclean bool) (record []byte, err *Error) {
	t := r.Image.Topic(asked.Topic)
	if t == nil {
		return nil, refuse(UnknownPartition, "No such topic as %s", asked.Topic)
	}
	if asked.Number < 0 || int(asked.Number) >= len(t.Partitions) {
		return nil, refuse(UnknownPartition, "No such partition as %s-%d", asked.Topic, asked.Number)
	}
	p := &t.Partitions[asked.Number]
	if unclean && p.Leader >= 0 || !unclean && p.Leader == p.Replicas[0] {
		return nil, refuse(ElectionNotNeeded, "")
	}
	c := r.newChange(t, asked.Number)
	c.preferred, c.unclean = !unclean, unclean
	record = c.finish()
	switch {
	case c.next.Leader >= 0 && c.next.Leader != p.Leader:
		return record, nil
	case unclean:
		return nil, refuse(EligibleLeadersNotAvailable, "")
	}
	return nil, refuse(PreferredLeaderNotAvailable, "")
}

// ElectMissing elects leaders for partitions that have none, where that is possible by now
// or an unclean election is allowed. It is called at intervals: a controller may have ended
// between two parts of a command.
func (r *Rules) ElectMissing() Part {
	d := r.newPart()
	r.changeEach(&d, isLeaderless, func(*change) bool { return true })
	return d
}

// BalanceLeaders makes the preferred replicas leaders again, of at most so many partitions.
// It is called at intervals.
func (r *Rules) BalanceLeaders(most int) Part {
	d := r.newPart()
	couldMove := func(p *meta.Partition) bool {
		preferred := p.Replicas[0]
		return p.Leader >= 0 && p.Leader != preferred && r.isActive(preferred) && slices.Contains(p.ISR, preferred)
	}
	n := 0
	r.changeEach(&d, couldMove, func(c *change) bool {
		if n++; n > most {
			return false
		}
		c.preferred = true
		return true
	})
	d.More = d.More || n > most
	return d
}
