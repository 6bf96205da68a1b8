package mirror

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror/progress"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/txn/entry"
)

// These travel between nodes as JSON: see Config.AskNode. A node may not know all fields that another version has.

// claimsBytes is how many bytes an answer has, about: less than what one request between nodes may have. The partitions that do not fit are asked for again. Claims of one partition that alone do not fit are sent as undecided.
const claimsBytes = 500 << 10

// These are what a partition, a claim, a list of cited partitions and each of these take in JSON, about.
const (
	partitionJSON = 150
	claimJSON     = 120
	citedJSON     = 30
	numberJSON    = 8
)

// claimsQuestion asks a node what the partitions of a link that it leads can prove about transactions.
type claimsQuestion struct {
	Link  meta.UUID      `json:"link"`
	After *partitionName `json:"after,omitempty"` // the answer begins behind it; nil: at the first one
}

// partitionName names a partition by its topic here.
type partitionName struct {
	Topic  string `json:"topic"`
	Number int32  `json:"number"`
}

func (n partitionName) compare(o partitionName) int {
	return cmp.Or(cmp.Compare(n.Topic, o.Topic), cmp.Compare(n.Number, o.Number))
}

// claimsAnswer is the answer.
type claimsAnswer struct {
	Partitions []claimedPartition `json:"partitions"`
	Cited      [][]citedTopic     `json:"cited,omitempty"`
	IsMore     bool               `json:"isMore,omitempty"` // there are partitions behind the last one
}

// claimedPartition is what one partition claims.
type claimedPartition struct {
	partitionName

	// IsReady tells that nothing of the source comes into it any more, and that all of it is committed, up to End. LeaderEpoch is the one in which that is so.
	IsReady     bool          `json:"isReady,omitempty"`
	LeaderEpoch int32         `json:"leaderEpoch"`
	End         int64         `json:"end"`
	Claims      []claimRecord `json:"claims,omitempty"`
}

// claimRecord is a progress.Claim.
type claimRecord struct {
	Producer    int64            `json:"producer"`
	Epoch       int16            `json:"epoch"`
	MarkerEpoch int16            `json:"markerEpoch"`
	First       int64            `json:"first"`
	Verdict     progress.Verdict `json:"verdict,omitempty"`
	IsVisible   bool             `json:"isVisible,omitempty"`
	Cited       int              `json:"cited,omitempty"` // which of the lists of the answer, from 1 on; 0: none is known
	At          int64            `json:"at,omitempty"`
}

// citedTopic has partitions of a topic that a transaction wrote to.
type citedTopic struct {
	Topic   string  `json:"topic"` // its name here
	Numbers []int32 `json:"numbers"`
}

// AnswerClaims answers the question of a node that promotes topics of a link: what the partitions that this node leads can prove about transactions.
func (s *Service) AnswerClaims(question json.RawMessage) (json.RawMessage, error) {
	var q claimsQuestion
	if err := json.Unmarshal(question, &q); err != nil {
		return nil, fmt.Errorf("a question for claims: %w", err)
	}
	a := claimsAnswer{Partitions: []claimedPartition{}}
	if l := s.linkOf(q.Link); l != nil {
		a = l.claim(&q)
	}
	return json.Marshal(&a)
}

// claim answers a question.
func (l *link) claim(q *claimsQuestion) claimsAnswer {
	img := l.s.cfg.Image()
	evidence := progress.Evidence{AsOf: l.readAsOf()}
	evidence.Decisions, evidence.Ongoing = l.evidence.list(namesHere(img, l.id))
	own := map[partitionName]*claimedPartition{}
	var holdings []progress.Holding
	for _, p := range l.s.partitionsOf(l.id) {
		if h, of, ok := p.holding(); ok {
			holdings, own[of.partitionName] = append(holdings, h), of
		}
	}
	l.s.mu.Lock()
	l.s.forgetEndedLocked(l.id) // a topic that was made again under its name is another one
	for id, e := range l.s.ended {
		name := partitionName{e.holding.Partition.Topic, id.Number}
		if e.link == l.id && own[name] == nil {
			holdings, own[name] = append(holdings, e.holding), &claimedPartition{partitionName: name, LeaderEpoch: e.epoch}
		}
	}
	l.s.mu.Unlock()
	claims := map[partitionName][]progress.Claim{}
	for _, c := range progress.Examine(&evidence, holdings) {
		name := partitionName{c.Partition.Topic, c.Partition.Number}
		claims[name] = append(claims[name], c)
	}
	w := claimsWriter{a: claimsAnswer{Partitions: []claimedPartition{}}, cited: map[citedBy]int{}}
	for _, name := range slices.SortedFunc(maps.Keys(own), partitionName.compare) {
		if q.After != nil && name.compare(*q.After) <= 0 {
			continue
		}
		if len(w.a.Partitions) > 0 && w.bytes+w.size(name, claims[name]) > claimsBytes {
			w.a.IsMore = true
			break
		}
		w.add(own[name], claims[name])
	}
	return w.a
}

// namesHere names the partitions of a source by their topics here, as far as they are a link's.
func namesHere(img *meta.Image, link meta.UUID) func(topics []entry.Partitions) []progress.Partition {
	byName := map[string]*meta.Topic{}
	for t := range img.Mirrors(link) {
		byName[t.Mirror.Topic] = t
	}
	return func(topics []entry.Partitions) (list []progress.Partition) {
		for i := range topics {
			t := byName[topics[i].Topic]
			if t == nil {
				continue
			}
			for _, n := range topics[i].Partitions {
				if n >= 0 && int(n) < len(t.Partitions) {
					list = append(list, progress.Partition{Topic: t.Name, Number: n})
				}
			}
		}
		return list
	}
}

// holding is what a partition has; ok is false if that is not known now, or this node does not lead it.
func (p *partition) holding() (h progress.Holding, of *claimedPartition, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o, m := p.at, &p.promotion
	if o == nil || o != p.newest.Load() {
		return h, nil, false
	}
	tx := p.s.cfg.Transactions(p.id)
	ends, err := tx.Ends(o.epoch)
	if err != nil {
		return h, nil, false
	}
	open, err := tx.Open()
	if err != nil {
		return h, nil, false
	}
	h.Partition = progress.Partition{Topic: o.topic, Number: p.id.Number}
	h.AsOf, _ = p.machine.HeldAt(0)
	m.note(h.AsOf, &ends)
	h.AsOf = m.held.asOf
	for _, one := range open {
		_, by := p.machine.HeldAt(one.First)
		h.Open = append(h.Open, progress.Open{Producer: one.Producer, Epoch: one.Epoch, First: one.First, MirroredBy: by})
	}
	h.Committed = slices.Collect(maps.Values(m.committed))
	of = &claimedPartition{partitionName: partitionName{o.topic, p.id.Number}, LeaderEpoch: int32(o.epoch), End: int64(ends.End)}
	if of.IsReady = ends.IsLast && ends.isCommitted() && o.mirror.IsEndOfSource() && !o.mirror.IsDecided; of.IsReady {
		p.s.noteEnded(p.id, ended{o.of.Link, int32(o.epoch), h})
	}
	return h, of, true
}

// noteEnded notes what a partition has when nothing of the source comes into it any more.
func (s *Service) noteEnded(id PartitionID, e ended) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended[id] = e
}

// claimsWriter makes an answer.
type claimsWriter struct {
	a     claimsAnswer
	bytes int
	cited map[citedBy]int // the numbers of lists, from 1 on
}

// citedBy is a decision that cites partitions.
type citedBy struct {
	producer, at int64
	epoch        int16
}

func citedByOf(c *progress.Claim) citedBy { return citedBy{c.Producer, c.At, c.MarkerEpoch} }

// size is how many bytes a partition takes with its claims, about.
func (w *claimsWriter) size(name partitionName, claims []progress.Claim) int {
	n, cited := partitionJSON+len(name.Topic)+claimJSON*len(claims), map[citedBy]bool{}
	for i := range claims {
		by := citedByOf(&claims[i])
		if w.cited[by] == 0 && !cited[by] {
			cited[by] = true
			n += citedBytes(claims[i].Partitions)
		}
	}
	return n
}

// citedBytes is how many bytes a list of cited partitions takes, about.
func citedBytes(list []progress.Partition) (n int) {
	for i, p := range list {
		if n += numberJSON; i == 0 || list[i-1].Topic != p.Topic {
			n += citedJSON + len(p.Topic)
		}
	}
	return n
}

// add adds a partition with its claims. What has no room is undecided, or left out if nothing of it is open: the others then take it that records of it may be missing.
func (w *claimsWriter) add(of *claimedPartition, claims []progress.Claim) {
	w.bytes += partitionJSON + len(of.Topic)
	for i := range claims {
		c := &claims[i]
		r := claimRecord{Producer: c.Producer, Epoch: c.Epoch, MarkerEpoch: c.MarkerEpoch, First: int64(c.First), Verdict: c.Verdict, IsVisible: c.IsVisible, At: c.At}
		hasRoom := w.bytes < claimsBytes
		switch {
		case hasRoom:
			r.Cited = w.cite(c)
		case c.First < 0:
			continue
		case len(of.Claims) >= 2*meta.MaxDecisions: // those that are not decided are aborted
			continue
		default:
			r.Verdict, r.MarkerEpoch, r.At = progress.Undecided, progress.BumpEpoch(c.Epoch), 0
		}
		w.bytes += claimJSON
		of.Claims = append(of.Claims, r)
	}
	w.a.Partitions = append(w.a.Partitions, *of)
}

// cite adds the list of a claim, once for all partitions that make the claim.
func (w *claimsWriter) cite(c *progress.Claim) int {
	if len(c.Partitions) == 0 {
		return 0
	}
	by := citedByOf(c)
	if n := w.cited[by]; n > 0 {
		return n
	}
	var list []citedTopic
	for _, p := range c.Partitions {
		if n := len(list); n == 0 || list[n-1].Topic != p.Topic {
			list = append(list, citedTopic{Topic: p.Topic})
		}
		list[len(list)-1].Numbers = append(list[len(list)-1].Numbers, p.Number)
	}
	w.bytes += citedBytes(c.Partitions)
	w.a.Cited = append(w.a.Cited, list)
	w.cited[by] = len(w.a.Cited)
	return w.cited[by]
}

// list lists the claims of an answer, by their partitions.
func (a *claimsAnswer) list() [][]progress.Claim {
	cited := make([][]progress.Partition, len(a.Cited)+1)
	for i, topics := range a.Cited {
		for _, t := range topics {
			for _, n := range t.Numbers {
				cited[i+1] = append(cited[i+1], progress.Partition{Topic: t.Topic, Number: n})
			}
		}
	}
	all := make([][]progress.Claim, len(a.Partitions))
	for i := range a.Partitions {
		of := &a.Partitions[i]
		for k := range of.Claims {
			r := &of.Claims[k]
			c := progress.Claim{
				Partition: progress.Partition{Topic: of.Topic, Number: of.Number}, Producer: r.Producer, Epoch: r.Epoch, MarkerEpoch: r.MarkerEpoch, First: record.Offset(r.First),
				Verdict: r.Verdict, IsVisible: r.IsVisible, At: r.At,
			}
			switch {
			case r.Cited > 0 && r.Cited < len(cited):
				c.Partitions = cited[r.Cited]
			case r.Cited != 0 || r.Verdict > progress.Lacking: // it says what is not understood here
				c.Verdict = progress.Undecided
			}
			all[i] = append(all[i], c)
		}
	}
	return all
}
