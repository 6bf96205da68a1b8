package txn

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/record"
)

// Leaders reach the leaders of partitions, to which markers go.
type Leaders interface {
	// FindLeader returns the node that leads a partition, or -1 if none does now. exists is false if the metadata
	// that this node has do not have the partition, or have it as one that mirrors another cluster's.
	FindLeader(topic string, partition int32) (node int32, exists bool)
	// Mirrors tells whether the metadata have a partition as one that mirrors another cluster's.
	Mirrors(topic string, partition int32) bool
	// IsCurrent tells whether this node has all metadata that were decided before a time.
	IsCurrent(since time.Time) bool
	// WriteHere writes markers into partitions that this node leads, on the caller's goroutine. reply gets the answer
	// when they are committed, from any goroutine, and does not block.
	WriteHere(req *kmsg.WriteTxnMarkersRequest, reply func(*kmsg.WriteTxnMarkersResponse))
	// WriteThere has another node do so. An attempt is over when it returns; it returns soon after ctx has ended.
	WriteThere(ctx context.Context, node int32, req *kmsg.WriteTxnMarkersRequest) (*kmsg.WriteTxnMarkersResponse, error)
}

const (
	// markersVersion is the version of WriteTxnMarkers in which markers are sent. It has the version of the transaction.
	markersVersion = 2
	// maxMarkersSent is how many markers one request has.
	maxMarkersSent = 2_000
	// maxMarkers is how many markers are under way at a time. Those of further decisions are asked for again.
	maxMarkers = 100_000
	// warnMarkersEvery is how often, at most, it is logged that a leader refuses markers.
	warnMarkersEvery = 10 * time.Second
)

// errAnswer is the error for an answer of another node that is not one to the request.
var errAnswer = errors.New("the other node has answered something else than what it was asked for")

// sender brings the markers of decisions to the leaders of their partitions, and the results to the machines:
//
//	Machine: Send --> queue of the coordinator's partition --> queue of the leader's node --> the leader --> results --> Machine.ReportMarkers
//	                  (one goroutine a partition)              (one goroutine a node)                        (one goroutine)
//
// It makes one attempt for each partition of a decision; the machine asks for another one. A marker is under way from the
// step that finds it missing until the step that reports its result, and then no second one of the same decision is: it
// could end the producer's next transaction. So what is missing is looked for after Send, since there may be a result by then.
// What was sent cannot be taken back, so that holds as well after this node has stopped leading the coordinator's
// partition and leads it again.
type sender struct {
	log     *slog.Logger
	nodeID  int32
	leaders Leaders
	lanes   *lanes[marker]
	// decided are decisions whose missing markers are to be found. Its lanes are coordinators' partitions, on this node: a
	// step waits for the log of its partition.
	decided *lanes[decided]
	// stage runs a step of a coordinator's partition.
	stage   func(partition int32, op func(m *Machine, s *coord.Step)) (coord.PendingCommit, error)
	working sync.WaitGroup // of the goroutine that reports; added to with mu held, while not closed

	mu        sync.Mutex // guards the fields below
	flights   map[flightKey]*flight
	led       map[int32]time.Time // since when this node leads partitions of Topic
	count     int                 // markers that are under way, and results
	results   []result            // that are to be reported
	reporting bool                // a goroutine reports
	closed    bool
	warned    time.Time // when it was last logged that a leader refuses markers
}

// flightKey tells decisions apart.
type flightKey struct {
	id       string
	decision record.Offset
}

// flight is a decision, some of whose markers are under way.
type flight struct {
	key         flightKey
	coordinator int32 // partition of Topic
	marker      kmsg.WriteTxnMarkersRequestMarker
	underWay    partitionSet // guarded by sender.mu
}

// marker is a marker for one partition.
type marker struct {
	of        *flight
	topic     string
	partition int32
}

// result is what has become of a marker.
type result struct {
	marker
	outcome Outcome
}

func newSender(ctx context.Context, cfg *ServiceConfig, stage func(int32, func(*Machine, *coord.Step)) (coord.PendingCommit, error)) *sender {
	s := &sender{
		log: cfg.Logger, nodeID: cfg.NodeID, leaders: cfg.Leaders, stage: stage,
		flights: map[flightKey]*flight{}, led: map[int32]time.Time{},
	}
	s.lanes = newLanes(ctx, maxMarkersSent, s.carryBatch)
	s.decided = newLanes(ctx, maxMarkersSent, s.sendMissing)
	return s
}

// noteLeading notes that this node leads a partition of Topic from now on.
func (s *sender) noteLeading(partition int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.led[partition] = time.Now()
}

// noteStopped drops the markers of a coordinator's partition that are not sent yet: the next coordinator sends them.
func (s *sender) noteStopped(partition int32) {
	removed := s.lanes.remove(func(m marker) bool { return m.of.coordinator == partition })
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.led, partition)
	for _, m := range removed {
		s.landLocked(m)
		s.count--
	}
}

// close ends what is under way, and waits for it. Nothing is reported any more.
func (s *sender) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.decided.close()
	s.lanes.close()
	s.working.Wait()
}

// decided is a decision of a machine.
type decided struct {
	id     string
	offset record.Offset
}

// send sends the markers of a decision that are missing and not under way. It does not block. It is a Config.Send.
func (s *sender) send(coordinator int32, d *Decision) {
	s.decided.put(lane{s.nodeID, coordinator}, decided{d.TransactionalID, d.Offset})
}

// sendMissing sends the markers of decisions of a coordinator's partition.
func (s *sender) sendMissing(_ context.Context, of lane, batch []decided) {
	for _, d := range batch {
		var fresh []marker
		var since time.Time
		_, err := s.stage(of.coordinator, func(m *Machine, st *coord.Step) {
			if now, ok := m.findDecision(st, d.id, d.offset); ok {
				fresh, since = s.beginFlight(of.coordinator, &now)
			}
		})
		if err == nil { // otherwise this node does not coordinate any more
			s.sendFresh(fresh, since)
		}
	}
}

// sendFresh sends markers, which are under way. since is when this node has become the coordinator.
func (s *sender) sendFresh(fresh []marker, since time.Time) {
	var results []result
	ways := map[int32][]marker{}            // by node
	isCurrent := s.leaders.IsCurrent(since) // before it is asked what there is
	for _, m := range fresh {
		switch node, exists := s.leaders.FindLeader(m.topic, m.partition); {
		case exists && node >= 0:
			ways[node] = append(ways[node], m)
		case !exists && isCurrent:
			results = append(results, result{m, PartitionGone})
		default:
			results = append(results, result{m, AskAgain})
		}
	}
	for node, markers := range ways {
		s.lanes.put(lane{node, noCoordinator}, markers...)
	}
	s.takeResults(results)
}

// beginFlight returns those markers of a decision that are not under way, which are from now on, and since when
// this node coordinates. If too many are under way, it returns none: the machine asks again. It is called in a step of the
// machine that made the decision.
func (s *sender) beginFlight(coordinator int32, d *Decision) (fresh []marker, since time.Time) {
	asked := partitionSet(d.Partitions)
	s.mu.Lock()
	defer s.mu.Unlock()
	since, isLed := s.led[coordinator]
	if s.closed || !isLed || s.count+asked.countPartitions() > maxMarkers {
		return nil, since
	}
	key := flightKey{d.TransactionalID, d.Offset}
	f := s.flights[key]
	if f == nil {
		f = &flight{key: key, coordinator: coordinator, marker: kmsg.WriteTxnMarkersRequestMarker{
			ProducerID: d.ProducerID, ProducerEpoch: d.ProducerEpoch, Committed: d.Commit,
			CoordinatorEpoch: int32(d.CoordinatorEpoch), TransactionVersion: int8(d.Version),
		}}
	}
	for _, t := range asked {
		for _, p := range t.Partitions {
			if !f.underWay.has(t.Topic, p) {
				fresh = append(fresh, marker{f, t.Topic, p})
			}
		}
	}
	if len(fresh) > 0 {
		f.underWay = f.underWay.union(asked)
		s.flights[key] = f
		s.count += len(fresh)
	}
	return fresh, since
}

// landLocked notes that a marker is not under way any more.
func (s *sender) landLocked(m marker) {
	f := m.of
	if f.underWay = f.underWay.dropPartition(m.topic, m.partition); len(f.underWay) == 0 && s.flights[f.key] == f {
		delete(s.flights, f.key)
	}
}

// carryBatch sends markers to a node.
func (s *sender) carryBatch(ctx context.Context, to lane, batch []marker) {
	node := to.node
	req, sent, left := makeMarkersRequest(batch)
	s.takeResults(left)
	if node == s.nodeID {
		s.leaders.WriteHere(req, func(resp *kmsg.WriteTxnMarkersResponse) { s.takeAnswer(node, sent, resp) })
		return
	}
	resp, err := s.leaders.WriteThere(ctx, node, req)
	if err != nil {
		s.log.Debug("markers of transactions could not be sent to another node; they are sent again", slog.Int("node", int(node)), slog.Any("err", err))
		resp = kmsg.NewPtrWriteTxnMarkersResponse()
	}
	s.takeAnswer(node, sent, resp)
}

// makeMarkersRequest makes the request with markers. Those that are left have a producer id that is in it for another
// decision, and answers tell decisions apart by that.
func makeMarkersRequest(batch []marker) (req *kmsg.WriteTxnMarkersRequest, sent []marker, left []result) {
	req = kmsg.NewPtrWriteTxnMarkersRequest()
	req.Version = markersVersion
	places := map[int64]int{} // of producer ids in the request
	flights := map[int64]*flight{}
	for _, m := range batch {
		id := m.of.marker.ProducerID
		i, ok := places[id]
		if ok && flights[id] != m.of {
			left = append(left, result{m, AskAgain})
			continue
		}
		if !ok {
			i = len(req.Markers)
			places[id], flights[id] = i, m.of
			req.Markers = append(req.Markers, m.of.marker)
		}
		topics := req.Markers[i].Topics
		if n := len(topics); n == 0 || topics[n-1].Topic != m.topic {
			topics = append(topics, kmsg.WriteTxnMarkersRequestMarkerTopic{Topic: m.topic})
		}
		last := &topics[len(topics)-1]
		last.Partitions = append(last.Partitions, m.partition)
		req.Markers[i].Topics = topics
		sent = append(sent, m)
	}
	return req, sent, left
}

// takeAnswer takes the answer of a node to markers. Those that it does not have are asked for again.
func (s *sender) takeAnswer(node int32, sent []marker, resp *kmsg.WriteTxnMarkersResponse) {
	type place struct {
		producer  int64
		topic     string
		partition int32
	}
	codes := map[place]int16{}
	for i := range resp.Markers {
		for j := range resp.Markers[i].Topics {
			t := &resp.Markers[i].Topics[j]
			for _, p := range t.Partitions {
				codes[place{resp.Markers[i].ProducerID, t.Topic, p.Partition}] = p.ErrorCode
			}
		}
	}
	results := make([]result, len(sent))
	for i, m := range sent {
		results[i] = result{m, AskAgain}
		if code, ok := codes[place{m.of.marker.ProducerID, m.topic, m.partition}]; ok {
			results[i].outcome = outcomeOf(code)
			s.warnRefused(node, m, code)
		}
	}
	s.takeResults(results)
}

// outcomeOf is the outcome of a marker by the code of its leader.
func outcomeOf(code int16) Outcome {
	switch code {
	case 0:
		return MarkerWritten
	case invalidProducerEpoch, producerFenced, transactionCoordinatorFenced:
		return CoordinatorFenced
	}
	return AskAgain // the metadata tell whether a partition is gone
}

// warnRefused logs that a leader does not take a marker, unless it was logged lately.
func (s *sender) warnRefused(node int32, m marker, code int16) {
	if outcomeOf(code) != CoordinatorFenced {
		return
	}
	s.mu.Lock()
	now := time.Now()
	isDue := now.Sub(s.warned) >= warnMarkersEvery
	if isDue {
		s.warned = now
	}
	s.mu.Unlock()
	if isDue {
		s.log.Warn("a partition refuses the marker that ends a transaction, since it knows a later one; it is asked again",
			slog.String("transactional_id", m.of.key.id[:min(len(m.of.key.id), maxLoggedID)]), slog.String("topic", m.topic),
			slog.Int("partition", int(m.partition)), slog.Int("leader", int(node)), slog.Int("code", int(code)))
	}
}

// takeResults has results reported by another goroutine. It does not block.
func (s *sender) takeResults(list []result) {
	if len(list) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.results = append(s.results, list...)
	if !s.reporting {
		s.reporting = true
		s.working.Go(s.reportAll)
	}
}

// reportAll reports results until there are no more. Those that have come meanwhile share a commit.
func (s *sender) reportAll() {
	for list := s.nextResults(0); len(list) > 0; list = s.nextResults(len(list)) {
		var order []*flight
		byFlight := map[*flight][]result{}
		for i := range list {
			f := list[i].of
			if byFlight[f] == nil {
				order = append(order, f)
			}
			byFlight[f] = append(byFlight[f], list[i])
		}
		var pending coord.PendingCommit
		for _, f := range order {
			p, err := s.stage(f.coordinator, func(m *Machine, st *coord.Step) {
				m.ReportMarkers(st, f.key.id, f.key.decision, s.land(byFlight[f]))
			})
			if err != nil { // this node does not coordinate any more, or loads what it coordinates
				s.land(byFlight[f])
			} else if p.Exists() {
				pending = p
			}
		}
		pending.Commit()
	}
}

// land notes that markers are not under way any more, and returns their results. It is called in the step that reports
// them, if there is one.
func (s *sender) land(list []result) []MarkerResult {
	s.mu.Lock()
	defer s.mu.Unlock()
	results := make([]MarkerResult, len(list))
	for i := range list {
		s.landLocked(list[i].marker)
		results[i] = MarkerResult{list[i].topic, list[i].partition, list[i].outcome}
	}
	return results
}

// nextResults takes the results that are to be reported; done is how many were reported before. If there are none,
// the goroutine that reports has to end.
func (s *sender) nextResults(done int) []result {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count -= done
	list := s.results
	s.results = nil
	if len(list) == 0 || s.closed {
		s.reporting = false
		return nil
	}
	return list
}
