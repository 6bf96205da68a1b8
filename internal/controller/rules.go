package controller

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/place"
)

// Rules decide commands on one image. They are pure: the records that a method returns
// are what is to be proposed, and nothing else changes. A command that changes many
// partitions is decided in Parts, each of which fits into one entry of the metadata log.
// Each leaves an image that keeps all invariants, so that another controller can go on from
// there:
//
//   - the leader is in the in-sync set, or there is none; its broker is not fenced, unless it
//     has the only replica and has registered again
//   - nobody is in the in-sync set or eligible who has no replica
//   - no eligible replica is in the in-sync set, and there is none while that has
//     min.insync.replicas members: records could be committed without it
//   - epochs never fall, and a change raises the partition epoch
type Rules struct {
	Image  *meta.Image
	Static *config.Static
	// Limit bounds the bytes of the records of one part. 0 stands for a mebibyte.
	Limit int
}

func (r *Rules) settings(t *meta.Topic) *config.Settings {
	return meta.TopicSettings(r.Image, r.Static, t)
}

// isActive tells whether a broker may become a leader.
func (r *Rules) isActive(id int32) bool {
	b := r.Image.Brokers[id]
	return b != nil && b.State == meta.BrokerActive
}

// Part is the records of a decision, as far as they fit into one entry.
type Part struct {
	Records []byte
	More    bool // the command is to be decided again, on the image after these records
	limit   int
}

func (r *Rules) newPart() Part { return Part{limit: cmp.Or(r.Limit, maxBatch)} }

// add appends an encoded record. It returns false, and leaves the part as it is, if there is
// no room, or was none before.
func (p *Part) add(record []byte) bool {
	if p.More || len(p.Records) > 0 && len(p.Records)+len(record) > p.limit {
		p.More = true
		return false
	}
	p.Records = append(p.Records, record...)
	return true
}

func (p *Part) addRecord(rec meta.Record) { p.add(meta.Append(nil, rec)) }

// concerned are the topics that have a partition which concerns a command, in the order of
// their ids, so that equal images lead to equal records.
func (r *Rules) concerned(concerns func(p *meta.Partition) bool) []*meta.Topic {
	var topics []*meta.Topic
	for t := range r.Image.Topics() {
		for i := range t.Partitions {
			if concerns(&t.Partitions[i]) {
				topics = append(topics, t)
				break
			}
		}
	}
	slices.SortFunc(topics, func(a, b *meta.Topic) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return topics
}

// changeEach changes each partition that concerns a command, until the part is full. plan
// says what to change; it returns false to leave the partition as it is.
func (r *Rules) changeEach(d *Part, concerns func(p *meta.Partition) bool, plan func(c *change) bool) {
	for _, t := range r.concerned(concerns) {
		for i := range t.Partitions {
			if !concerns(&t.Partitions[i]) {
				continue
			}
			c := r.newChange(t, int32(i))
			if !plan(c) {
				continue
			}
			if !d.add(c.finish()) {
				return
			}
		}
	}
}

// leadsOrInSync makes the condition that a broker leads a partition or is in sync.
func leadsOrInSync(id int32) func(p *meta.Partition) bool {
	return func(p *meta.Partition) bool { return p.Leader == id || slices.Contains(p.ISR, id) }
}

func isLeaderless(p *meta.Partition) bool { return p.Leader < 0 }

// isReassigned tells whether a reassignment of a partition is under way.
func isReassigned(p *meta.Partition) bool { return len(p.Adding) > 0 || len(p.Removing) > 0 }

// minISR is how many replicas of a partition must be in sync to commit.
func (r *Rules) minISR(t *meta.Topic, p *meta.Partition) int { return place.MinISR(r.settings(t), p) }
