package broker

import (
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/wire"
)

// WriteTxnMarkers, key 27, versions 1 to 2.
//
// 2: the version of the transaction (KIP-1228). Coordinators of transactions send it, and administrators, who
// end transactions that hang (KIP-664). A marker that comes again is written again.

// markerMemory is about how much memory a partition of a marker takes until it is answered: the batch, its wait, and its
// code in the answer.
const markerMemory = 768

func (s *session) writeTxnMarkers(r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.WriteTxnMarkersRequest)
	if s.isAnyNode() {
		// Coordinators send few markers at a time. They must not wait for memory that others hold who wait for replicas, which are
		// fetched with memory of the same class.
		s.b.WriteMarkers(req, containPanics(r, func(resp *kmsg.WriteTxnMarkersResponse) { r.Reply(resp) }))
		return nil
	}
	if by := s.access(); !by.isEnoughOnCluster(auth.InsteadOf(27)) && !by.mayCluster(meta.Alter) {
		r.Reply(refuseMarkers(req, kerr.ClusterAuthorizationFailed.Code))
		return nil
	}
	memory := int64(0)
	for i := range req.Markers {
		memory += topicCodesMemory
		for j := range req.Markers[i].Topics {
			t := &req.Markers[i].Topics[j]
			memory += topicCodesMemory + 4*int64(len(t.Topic)) + markerMemory*int64(len(t.Partitions))
		}
	}
	// This has no cap as reserveAnswer has one: it is not only the answer, but the markers as well, that take the memory.
	held, err := r.Reserve(budget.Data, memory)
	if err != nil {
		return err // it names more partitions than fit into any answer
	}
	s.b.WriteMarkers(req, containPanics(r, func(resp *kmsg.WriteTxnMarkersResponse) {
		defer held.Release()
		s.b.replyHeld(r, resp, &held)
	}))
	return nil
}

// longestMarkersWait bounds how long markers wait until logs take them. Coordinators that wait for longer send them again.
const longestMarkersWait = 5 * time.Second

// refuseMarkers answers all partitions of all markers with a code.
func refuseMarkers(req *kmsg.WriteTxnMarkersRequest, code int16) *kmsg.WriteTxnMarkersResponse {
	resp := kmsg.NewPtrWriteTxnMarkersResponse()
	for i := range req.Markers {
		m := &req.Markers[i]
		rm := kmsg.WriteTxnMarkersResponseMarker{ProducerID: m.ProducerID}
		for j := range m.Topics {
			rt := kmsg.WriteTxnMarkersResponseMarkerTopic{Topic: m.Topics[j].Topic}
			for _, n := range m.Topics[j].Partitions {
				rt.Partitions = append(rt.Partitions, kmsg.WriteTxnMarkersResponseMarkerTopicPartition{Partition: n, ErrorCode: code})
			}
			rm.Topics = append(rm.Topics, rt)
		}
		resp.Markers = append(resp.Markers, rm)
	}
	return resp
}

// markerPlace is a partition of a marker, and its code in the answer.
type markerPlace struct {
	marker *kmsg.WriteTxnMarkersRequestMarker
	part   *replica.Partition
	number int32
	code   *int16
}

// markersAnswer is an answer to WriteTxnMarkers that is not complete.
type markersAnswer struct {
	resp  *kmsg.WriteTxnMarkersResponse
	left  atomic.Int32 // parts that are missing
	reply func(*kmsg.WriteTxnMarkersResponse)
}

// WriteMarkers writes the markers of a request into partitions that this node leads, with one commit for those of all topics
// but the one of the groups' offsets, and one for that. It waits for this node's disk. reply gets the answer,
// once, from any goroutine, when all in-sync replicas have the markers, or they have failed; it must not block.
// The answer has the markers, topics and partitions in the order of the request.
// Before the first transaction of the data directory it waits until logs take markers, which is the same for all of them.
func (b *Broker) WriteMarkers(req *kmsg.WriteTxnMarkersRequest, reply func(*kmsg.WriteTxnMarkersResponse)) {
	b.awaitAdmission(longestMarkersWait)
	a := &markersAnswer{resp: kmsg.NewPtrWriteTxnMarkersResponse(), reply: reply}
	offsets, others := b.findMarkerPlaces(req, a.resp)
	a.left.Store(int32(len(offsets)) + 2)
	var pending coord.PendingCommit
	for _, p := range offsets {
		if c := b.endOffsets(p, a); c.Exists() {
			pending = c
		}
	}
	markers := make([]replica.Marker, len(others))
	for i, p := range others {
		m := p.marker
		markers[i] = replica.Marker{Partition: p.part, Producer: m.ProducerID, Epoch: m.ProducerEpoch, Marker: p.decision(), Version: int16(m.TransactionVersion)}
	}
	b.cfg.Set.WriteMarkers(markers, func(errs []error) {
		for i, p := range others {
			*p.code = codeOf(errs[i])
		}
		a.finishPart()
	})
	pending.Commit()
	a.finishPart()
}

func (a *markersAnswer) finishPart() {
	if a.left.Add(-1) == 0 {
		a.reply(a.resp)
	}
}

func (p markerPlace) decision() record.Marker {
	return record.Marker{Commit: p.marker.Committed, CoordinatorEpoch: p.marker.CoordinatorEpoch}
}

// findMarkerPlaces makes the answer without codes, but for those of partitions that are not here, and lists the
// partitions of the groups' offsets and the others.
func (b *Broker) findMarkerPlaces(req *kmsg.WriteTxnMarkersRequest, resp *kmsg.WriteTxnMarkersResponse) (offsets, others []markerPlace) {
	resp.Markers = make([]kmsg.WriteTxnMarkersResponseMarker, len(req.Markers))
	for i := range req.Markers {
		m, rm := &req.Markers[i], &resp.Markers[i]
		rm.ProducerID, rm.Topics = m.ProducerID, make([]kmsg.WriteTxnMarkersResponseMarkerTopic, len(m.Topics))
		for j := range m.Topics {
			t, rt := &m.Topics[j], &rm.Topics[j]
			rt.Topic, rt.Partitions = t.Topic, make([]kmsg.WriteTxnMarkersResponseMarkerTopicPartition, len(t.Partitions))
			for k, n := range t.Partitions {
				rp := &rt.Partitions[k]
				rp.Partition = n
				p := markerPlace{marker: m, number: n, code: &rp.ErrorCode}
				switch p.part, rp.ErrorCode = b.findPartition([]byte(t.Topic), [16]byte{}, n, false); {
				case p.part == nil:
				case t.Topic == group.Topic && b.cfg.Groups != nil:
					offsets = append(offsets, p)
				default:
					others = append(others, p)
				}
			}
		}
	}
	return offsets, others
}

// endOffsets ends a transaction's part in a partition of the groups' offsets, whose coordinator appends the marker. A
// coordinator that is not ready is no error that the transaction's coordinator knows: it is told, as in Kafka, that there is another
// leader, and asks again.
func (b *Broker) endOffsets(p markerPlace, a *markersAnswer) coord.PendingCommit {
	m := p.marker
	end := coord.Marker{Producer: coord.Producer{ID: m.ProducerID, Epoch: m.ProducerEpoch}, Marker: p.decision(), Version: int16(m.TransactionVersion)}
	return b.cfg.Groups.EndTransaction(p.number, end, func(err error) {
		switch *p.code = codeOf(err); *p.code {
		case kerr.CoordinatorLoadInProgress.Code, kerr.CoordinatorNotAvailable.Code, kerr.NotCoordinator.Code:
			*p.code = notLeader
		}
		a.finishPart()
	})
}
