package mirror

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror/progress"
	"github.com/leatstream/leat/internal/record"
)

const (
	// claimsTime is how long a node may take to tell its claims, and patience for how long partitions are waited for that have not told theirs. Then the others are decided without them; their turn comes later.
	claimsTime = 3 * time.Second
	patience   = 5 * time.Second
	// decideAgain is the pause between two tries, and decideSlowly after patience.
	decideAgain  = 100 * time.Millisecond
	decideSlowly = time.Second
	// decidedAtOnce is how many decisions one request has, about.
	decidedAtOnce = 4 * meta.MaxDecisions
)

// promoter decides how the transactions of a link end that are open in partitions which are promoted, on the node that runs the tasks of links. It belongs to its goroutine.
type promoter struct {
	l     *link
	since map[PartitionID]time.Duration // when partitions were first seen here that are to be decided
}

// run decides whenever topics are promoted, until the link is removed.
func (r *promoter) run(ctx context.Context) {
	for {
		select {
		case <-r.l.promotions:
		case <-ctx.Done():
			return
		}
		for ctx.Err() == nil {
			isDone, pause := r.step(ctx)
			if isDone {
				break
			}
			sleep(ctx, pause)
		}
	}
}

// claims are the claims of all nodes that have told them in time.
type claims struct {
	byPartition map[partitionName]toldPartition
	ready       map[partitionName]*claimedPartition // those that can be decided
	all         bool                                // all nodes that lead partitions of the link have told theirs
}

// toldPartition is what was told of a partition, in the highest leader epoch: an earlier leader may have gone on to claim what it had.
type toldPartition struct {
	epoch int32
	list  []progress.Claim
}

// add adds the answer of a node.
func (c *claims) add(a *claimsAnswer) {
	list := a.list()
	for i := range a.Partitions {
		p := &a.Partitions[i]
		if was, isTold := c.byPartition[p.partitionName]; isTold && was.epoch >= p.LeaderEpoch {
			continue
		}
		c.byPartition[p.partitionName] = toldPartition{p.LeaderEpoch, list[i]}
		if delete(c.ready, p.partitionName); p.IsReady {
			c.ready[p.partitionName] = p
		}
	}
}

// list lists the claims in the order of their partitions.
func (c *claims) list() (list []progress.Claim) {
	for _, name := range slices.SortedFunc(maps.Keys(c.byPartition), partitionName.compare) {
		list = append(list, c.byPartition[name].list...)
	}
	return list
}

// step decides what can be decided now, and tells whether nothing is left to decide.
func (r *promoter) step(ctx context.Context) (isDone bool, pause time.Duration) {
	s, img := r.l.s, r.l.s.cfg.Image()
	pending := r.findPending(img)
	switch {
	case len(pending) == 0:
		return true, 0
	case !s.cfg.IsController():
		clear(r.since)
		return false, decideSlowly
	}
	told := r.askAll(ctx, img)
	var due []controller.MirrorPartition
	isAll, isLate := told.all, true
	for _, p := range pending {
		isAll = isAll && told.ready[p.name] != nil
		isLate = isLate && s.now()-r.since[p.id] >= patience
	}
	decisions := map[partitionName][]meta.MirrorDecision{}
	for _, one := range progress.Resolve(madeDecisions(img, r.l.id), told.list()) {
		name := partitionName{one.Partition.Topic, one.Partition.Number}
		decisions[name] = append(decisions[name], meta.MirrorDecision{
			Producer: one.Producer, Epoch: one.Epoch, MarkerEpoch: one.MarkerEpoch, First: int64(one.First), Commit: one.Commit, Outcome: uint8(one.Outcome),
		})
	}
	for _, p := range pending {
		of := told.ready[p.name]
		if of == nil || !isAll && s.now()-r.since[p.id] < patience {
			continue
		}
		list := decisions[p.name]
		if n := len(list); n > meta.MaxDecisions {
			s.cfg.Logger.Error("more transactions are open in a promoted partition than can be decided; the others are aborted", "topic", p.name.Topic, "partition", p.name.Number, "open", n)
			list = list[:meta.MaxDecisions]
		}
		due = append(due, controller.MirrorPartition{Topic: p.id.Topic, Number: p.id.Number, LeaderEpoch: of.LeaderEpoch, End: of.End, Decisions: list})
	}
	if err := r.decide(ctx, img, due); err != nil && ctx.Err() == nil {
		s.cfg.Logger.Warn("it is not decided yet how transactions end in topics that are promoted; it is tried again", "err", err)
	}
	if isLate {
		return false, decideSlowly
	}
	return false, decideAgain
}

// pendingPartition is a partition that is to be decided.
type pendingPartition struct {
	id   PartitionID
	name partitionName
}

// findPending finds the partitions that are to be decided, in an order, and notes since when.
func (r *promoter) findPending(img *meta.Image) (list []pendingPartition) {
	now := r.l.s.now()
	since := map[PartitionID]time.Duration{}
	for t := range img.Mirrors(r.l.id) {
		if t.Mirror.State != meta.MirrorPromoting {
			continue
		}
		for i := range t.Partitions {
			if m := t.Partitions[i].Mirror; m == nil || m.IsDecided || m.State != meta.PartitionPromoting {
				continue
			}
			p := pendingPartition{PartitionID{t.ID, int32(i)}, partitionName{t.Name, int32(i)}}
			at, isKnown := r.since[p.id]
			if !isKnown {
				at = now
			}
			since[p.id] = at
			list = append(list, p)
		}
	}
	r.since = since
	slices.SortFunc(list, func(a, b pendingPartition) int { return a.name.compare(b.name) })
	return list
}

// madeDecisions are the decisions of a link that the metadata have.
func madeDecisions(img *meta.Image, link meta.UUID) (made []progress.Resolution) {
	for t := range img.Mirrors(link) {
		for i := range t.Partitions {
			m := t.Partitions[i].Mirror
			if m == nil {
				continue
			}
			for _, d := range m.Decisions {
				made = append(made, progress.Resolution{
					Partition: progress.Partition{Topic: t.Name, Number: int32(i)}, Producer: d.Producer, Epoch: d.Epoch, MarkerEpoch: d.MarkerEpoch, First: record.Offset(d.First),
					Commit: d.Commit, Outcome: progress.Outcome(d.Outcome),
				})
			}
		}
	}
	return made
}

// askAll asks all nodes that lead partitions of the link, and waits for a while.
func (r *promoter) askAll(ctx context.Context, img *meta.Image) claims {
	nodes := map[int32]bool{}
	told := claims{byPartition: map[partitionName]toldPartition{}, ready: map[partitionName]*claimedPartition{}, all: true}
	for t := range img.Mirrors(r.l.id) {
		for i := range t.Partitions {
			switch leader := t.Partitions[i].Leader; {
			case leader >= 0:
				nodes[leader] = true
			case t.Partitions[i].IsMirror():
				told.all = false
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, claimsTime)
	defer cancel()
	var mu sync.Mutex // guards told
	var asking sync.WaitGroup
	for node := range nodes {
		asking.Go(func() {
			answers, err := r.ask(ctx, node)
			mu.Lock()
			defer mu.Unlock()
			for _, a := range answers {
				told.add(a)
			}
			told.all = told.all && err == nil
		})
	}
	asking.Wait()
	return told
}

// mostPages bounds the answers of a node.
const mostPages = 10_000

// ask asks a node for its claims, until it has told all of them.
func (r *promoter) ask(ctx context.Context, node int32) (answers []*claimsAnswer, err error) {
	q := claimsQuestion{Link: r.l.id}
	for range mostPages {
		question, err := json.Marshal(&q)
		if err != nil {
			return nil, err
		}
		raw, err := r.l.s.cfg.AskNode(ctx, node, question)
		if err != nil {
			return nil, fmt.Errorf("asking node %d: %w", node, err)
		}
		a := new(claimsAnswer)
		if err := json.Unmarshal(raw, a); err != nil {
			return nil, fmt.Errorf("the answer of node %d: %w", node, err)
		}
		answers = append(answers, a)
		n := len(a.Partitions)
		if !a.IsMore || n == 0 {
			break
		}
		q.After = &a.Partitions[n-1].partitionName
	}
	return answers, nil
}

// decide has the controller decide, some partitions at a time. They follow what the image has of the link's decisions, and each other.
func (r *promoter) decide(ctx context.Context, img *meta.Image, due []controller.MirrorPartition) error {
	sum := controller.DecidedSum(img, r.l.id)
	for len(due) > 0 {
		n, decisions := 0, 0
		for n < min(len(due), controller.MaxLinkItems) && (n == 0 || decisions+len(due[n].Decisions) <= decidedAtOnce) {
			decisions += len(due[n].Decisions)
			n++
		}
		some := due[:n]
		within, cancel := context.WithTimeout(ctx, decideTime)
		results, refused, err := r.l.s.cfg.ChangeLinks(within, &controller.LinksChange{Kind: controller.DecidePromotions, LinkID: r.l.id, Decided: sum, Partitions: some})
		cancel()
		if err == nil && refused != nil {
			err = refused
		}
		if err != nil {
			return err
		}
		for i, e := range results {
			if e == nil {
				sum += controller.DecidedPart(some[i].Topic, some[i].Number)
				r.tell(img, &some[i])
			}
		}
		due = due[n:]
	}
	return nil
}

// tell tells of transactions that do not end as at the source, or of which nobody knows.
func (r *promoter) tell(img *meta.Image, p *controller.MirrorPartition) {
	count := map[progress.Outcome]int{}
	for i := range p.Decisions {
		if o := progress.Outcome(p.Decisions[i].Outcome); o.IsListed() {
			count[o]++
		}
	}
	if t := img.TopicByID(p.Topic); t != nil && len(count) > 0 {
		r.l.s.cfg.Logger.Warn("a partition was promoted with transactions that may not end as at the source", "topic", t.Name, "partition", p.Number,
			"aborted_undecided", count[progress.AbortUndecided], "aborted_lacking", count[progress.AbortLacking], "torn", count[progress.Torn], "committed_by_marker", count[progress.CommitByMarker])
	}
}
