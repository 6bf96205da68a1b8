package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/peer"
)

const (
	// mostTails is how many tails a page lists; those of one cut are never parted. With the longest names they fit into maxCommand.
	mostTails = 1000
	// maxTailRequests is how many requests about tails are served at a time, of administrators and of nodes each: each may have a page of a tail in memory, three times.
	maxTailRequests = 4
	// listTailsTime is how long another node may take to list its tails, and handleTailTime to read or discard one.
	listTailsTime  = 5 * time.Second
	handleTailTime = 30 * time.Second
)

// tailWorkers serve requests about tails. Those of administrators wait for other nodes, and must not keep these from being answered.
type tailWorkers struct{ asked, told *worker }

func newTailWorkers(ctx context.Context) tailWorkers {
	return tailWorkers{newWorker(ctx, maxTailRequests), newWorker(ctx, maxTailRequests)}
}

func (w *tailWorkers) close() {
	w.asked.close()
	w.told.close()
}

// ServeTails has the node do something about the tails of its cluster.
func (a Administrator) ServeTails(ctx context.Context, q *TailRequest) (s TailAnswer, refused *controller.Error, err error) {
	return askFor(ctx, a.Conn, serveTails(new(Controller)), q)
}

func serveTails(c *Controller) *command[TailRequest, TailAnswer] {
	return &command[TailRequest, TailAnswer]{
		key: peer.TailsServe, from: peer.Administrators, isLocal: true, about: describeTailRequest, by: func(c *Controller) *worker { return c.tails.asked },
		decide: func(ctx context.Context, q *TailRequest, _ bool) (a TailAnswer, refused *controller.Error, err error) {
			if refused = checkTailRequest(c.cfg.Image(), q); refused != nil {
				return a, refused, nil
			}
			switch q.Verb {
			case TailRead:
				return readTail(ctx, c, q)
			case TailDiscard:
				return discardTails(ctx, c, q), nil, nil
			default:
				return listTails(ctx, c, q), nil, nil
			}
		},
	}
}

// showTails has a node serve what it has itself.
func showTails(c *Controller) *command[TailRequest, TailAnswer] {
	return &command[TailRequest, TailAnswer]{
		key: peer.TailsShow, from: peer.Nodes, by: func(c *Controller) *worker { return c.tails.told },
		decide: func(_ context.Context, q *TailRequest, _ bool) (a TailAnswer, refused *controller.Error, err error) {
			return serveOwnTails(c, q)
		},
	}
}

// describeTailRequest is what an audit log may have of a request: that records were read, or discarded; "" if it only lists. A tail is read by many requests, of which the
// first one counts.
func describeTailRequest(q *TailRequest) string {
	if q.Verb == TailList || q.Verb == TailRead && q.From > 0 {
		return ""
	}
	partition := int32(-1)
	if q.Partition != nil {
		partition = *q.Partition
	}
	text := fmt.Sprintf("%s %s %d cut %d", q.Verb, q.Topic, partition, q.Cut)
	if q.Verb == TailRead {
		text += fmt.Sprintf(" of node %d", q.Node)
	}
	return text
}

// checkTailRequest refuses a request that cannot be served, whatever the nodes have.
func checkTailRequest(m *meta.Image, q *TailRequest) *controller.Error {
	switch {
	case !slices.Contains([]TailVerb{TailList, TailRead, TailDiscard}, q.Verb):
		return refuseLink(controller.InvalidRequest, "This version of Leat does not know %.40q.", q.Verb)
	case len(q.Topic) > mostLinkText || len(q.Into) > mostLinkText || q.After != nil && len(q.After.Topic) > mostLinkText:
		return refuseLink(controller.InvalidRequest, "A name has more than %d bytes.", mostLinkText)
	case q.Partition != nil && *q.Partition < 0:
		return refuseLink(controller.InvalidRequest, "A partition is negative.")
	case q.Verb != TailList && (q.Partition == nil || q.Cut < 1 || q.From < 0 || q.Bytes < 0):
		return refuseLink(controller.InvalidRequest, "Name one partition, and a cut by its number.")
	}
	if t := m.Topic(q.Topic); q.Topic != "" && (t == nil || q.Verb != TailList && t.ID != q.TopicID) {
		return refuseLink(controller.UnknownTopic, "There is no topic %s any more of which that was kept.", q.Topic)
	}
	if q.Into == "" {
		return nil
	}
	switch t := m.Topic(q.Into); {
	case t == nil:
		return refuseLink(controller.UnknownTopic, "There is no topic %s into which the records could be written.", q.Into)
	case t.Mirror != nil && slices.ContainsFunc(t.Partitions, func(p meta.Partition) bool { return p.Mirror != nil && p.Mirror.State != meta.PartitionPromoted }):
		return refuseLink(controller.InvalidRequest, "The topic %s mirrors one of another cluster, so nobody can write to it here: give --into a topic that mirrors nothing.", q.Into)
	}
	return nil
}

// serveOwnTails serves what this node has itself.
func serveOwnTails(c *Controller, q *TailRequest) (a TailAnswer, refused *controller.Error, err error) {
	self, tails := c.cfg.Quorum.cfg.NodeID, c.cfg.Tails
	if refused = checkTailRequest(c.cfg.Image(), q); refused != nil {
		return a, refused, nil
	}
	if tails == nil {
		return a, refuseLink(controller.InvalidRequest, "Node %d has not started yet.", self), nil
	}
	switch q.Verb {
	case TailRead:
		dst := make([]byte, min(max(q.Bytes-q.From, 0), MostTailBytes))
		n, err := tails.ReadTail(q, dst)
		if err != nil {
			return a, refuseLink(controller.InvalidRequest, "Node %d cannot read what cut %d has taken from %s %d: %s.", self, q.Cut, q.Topic, *q.Partition, cutText(err.Error(), mostReason)), nil
		}
		a.Data = dst[:n]
	case TailDiscard:
		wasThere, err := tails.DiscardTail(q)
		switch {
		case err != nil:
			a.Problems = []TailProblem{{self, cutText(err.Error(), mostReason)}}
		case wasThere:
			a.Discarded = []int32{self}
		default:
			a.HadNone = []int32{self}
		}
	default:
		var problems []string
		a.Tails, a.HasMore, problems = tails.ListTails(q, mostTails)
		for _, text := range problems[:min(len(problems), mostTailProblems)] {
			a.Problems = append(a.Problems, TailProblem{self, cutText(text, mostReason)})
		}
		a.Uncut = listOwnUncut(c, func(topic string) bool { return q.Topic == "" || topic == q.Topic })
	}
	return a, nil, nil
}

// askForTails asks one node for what it has.
func askForTails(ctx context.Context, c *Controller, node int32, q *TailRequest, within time.Duration) (a TailAnswer, refused *controller.Error, err error) {
	if node == c.cfg.Quorum.cfg.NodeID {
		return serveOwnTails(c, q)
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	k := showTails(c)
	body, err := k.encode(q)
	if err != nil {
		return a, nil, err
	}
	for {
		// Pages of records do not travel on the connection of heartbeats.
		answer, err := c.callFor(ctx, node, &request{purpose: peer.Clients, key: k.key, body: body, most: maxCommand})
		if errors.Is(err, ErrBusy) && awaitPause(ctx, longPause) {
			continue
		}
		if err != nil {
			return a, nil, err
		}
		o, err := k.decodeOutcome(answer)
		return o.Answer, o.Refused, err
	}
}

// tailAnswers are the answers of nodes.
type tailAnswers struct {
	byNode map[int32]TailAnswer
	silent []SilentNode // in the order of the ids
}

// askAllForTails asks all nodes, also those that are fenced: they may have tails, and nobody else may.
func askAllForTails(ctx context.Context, c *Controller, q *TailRequest, within time.Duration) tailAnswers {
	var mu sync.Mutex // guards all
	all := tailAnswers{byNode: map[int32]TailAnswer{}}
	var asking sync.WaitGroup
	for _, id := range slices.Sorted(maps.Keys(c.cfg.Image().Brokers)) {
		asking.Go(func() {
			a, refused, err := askForTails(ctx, c, id, q, within)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, context.DeadlineExceeded):
				all.silent = append(all.silent, SilentNode{id, "it does not answer"})
			case errors.Is(err, peer.ErrClosedByPeer):
				all.silent = append(all.silent, SilentNode{id, "it closes the connection: it may run an older version"})
			case err != nil:
				all.silent = append(all.silent, SilentNode{id, cutText(err.Error(), mostReason)})
			case refused != nil:
				all.silent = append(all.silent, SilentNode{id, cutText(strings.TrimSuffix(refused.Message, "."), mostReason)})
			default:
				all.byNode[id] = a
			}
		})
	}
	asking.Wait()
	slices.SortFunc(all.silent, func(a, b SilentNode) int { return int(a.Node) - int(b.Node) })
	return all
}

// listTails lists the tails of all nodes: a page of them, which ends where the first node's page does.
func listTails(ctx context.Context, c *Controller, q *TailRequest) (a TailAnswer) {
	all := askAllForTails(ctx, c, q, listTailsTime)
	a.Silent = all.silent
	var through *TailPlace // nil: there is nothing behind what the nodes have listed
	for _, id := range slices.Sorted(maps.Keys(all.byNode)) {
		of := all.byNode[id]
		of.Tails = of.Tails[:min(len(of.Tails), mostTails)]
		for i := range of.Tails {
			of.Tails[i].Node = id
		}
		if n := len(of.Tails); of.HasMore && n > 0 && (through == nil || of.Tails[n-1].compare(through) < 0) {
			through = &of.Tails[n-1].TailPlace
		}
		a.Tails = append(a.Tails, of.Tails...)
		a.Problems = append(a.Problems, of.Problems[:min(len(of.Problems), mostTailProblems)]...)
		a.Uncut = append(a.Uncut, of.Uncut[:min(len(of.Uncut), mostTailProblems)]...)
	}
	slices.SortFunc(a.Tails, func(x, y TailStatus) int { return cmp.Or(x.compare(&y.TailPlace), cmp.Compare(x.Node, y.Node)) })
	slices.SortFunc(a.Uncut, compareUncut)
	end := len(a.Tails)
	if through != nil {
		end = countThrough(a.Tails, through)
	}
	if end > mostTails {
		at := a.Tails[mostTails].TailPlace
		end = mostTails
		for end > 0 && a.Tails[end-1].TailPlace == at {
			end--
		}
		if end == 0 { // so many nodes have kept that one
			end = countThrough(a.Tails, &at)
		}
	}
	a.HasMore = through != nil || end < len(a.Tails)
	a.Tails = a.Tails[:end]
	a.Problems, a.Uncut = a.Problems[:min(len(a.Problems), mostDescribed)], a.Uncut[:min(len(a.Uncut), mostDescribed)]
	return a
}

// countThrough counts the tails of a list, in its order, up to a place and with it.
func countThrough(list []TailStatus, through *TailPlace) int {
	n := 0
	for n < len(list) && list[n].compare(through) <= 0 {
		n++
	}
	return n
}

// readTail reads a page of a tail of one node.
func readTail(ctx context.Context, c *Controller, q *TailRequest) (a TailAnswer, refused *controller.Error, err error) {
	if c.cfg.Image().Brokers[q.Node] == nil {
		return a, refuseLink(controller.InvalidRequest, "There is no node %d any more.", q.Node), nil
	}
	of, refused, err := askForTails(ctx, c, q.Node, q, handleTailTime)
	if refused != nil || err != nil {
		if _, isUnanswered := errors.AsType[*unansweredError](err); isUnanswered {
			return a, refuseLink(controller.InvalidRequest, "Node %d, which has kept that, does not answer: try again when it does.", q.Node), nil
		}
		return a, refused, err
	}
	if len(of.Data) > MostTailBytes {
		return a, nil, fmt.Errorf("%w: a page of %d bytes", errAnswer, len(of.Data))
	}
	return TailAnswer{Data: of.Data}, nil, nil
}

// discardTails has all nodes discard what a cut has taken.
func discardTails(ctx context.Context, c *Controller, q *TailRequest) (a TailAnswer) {
	all := askAllForTails(ctx, c, q, handleTailTime)
	a.Silent = all.silent
	for _, id := range slices.Sorted(maps.Keys(all.byNode)) {
		of := all.byNode[id]
		switch {
		case len(of.Problems) > 0:
			a.Problems = append(a.Problems, TailProblem{id, cutText(of.Problems[0].Text, mostReason)})
		case len(of.Discarded) > 0:
			a.Discarded = append(a.Discarded, id)
		default:
			a.HadNone = append(a.HadNone, id)
		}
	}
	return a
}
