package broker

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica"
	"github.com/leatstream/leat/internal/wire"
)

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func randomProduce(r *rand.Rand, version int16) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Version = version
	req.Acks = int16(r.IntN(3) - 1)
	req.TimeoutMillis = r.Int32()
	if r.IntN(4) == 0 {
		req.TransactionID = new("txn")
	}
	for range r.IntN(5) {
		t := kmsg.NewProduceRequestTopic()
		t.Topic = string(randomBytes(r, r.IntN(200)))
		copy(t.TopicID[:], randomBytes(r, 16))
		for range r.IntN(5) {
			p := kmsg.NewProduceRequestTopicPartition()
			p.Partition = r.Int32()
			if r.IntN(5) > 0 {
				p.Records = randomBytes(r, r.IntN(300))
			}
			t.Partitions = append(t.Partitions, p)
		}
		req.Topics = append(req.Topics, t)
	}
	if version >= 9 && r.IntN(3) == 0 {
		req.UnknownTags.Set(uint32(7+r.IntN(1000)), randomBytes(r, r.IntN(200)))
	}
	return req
}

// seenProduce has the fields on which both decoders must agree.
type seenProduce struct {
	Acks    int16
	Timeout int64
	Topics  []seenTopic
}

type seenTopic struct {
	Name  string
	ID    [16]byte
	Parts []seenPart
}

type seenPart struct {
	Index   int32
	Records []byte
}

func seenByKmsg(req *kmsg.ProduceRequest) seenProduce {
	s := seenProduce{Acks: req.Acks, Timeout: int64(req.TimeoutMillis)}
	for _, t := range req.Topics {
		st := seenTopic{Name: t.Topic, ID: t.TopicID}
		if req.Version >= 13 {
			st.Name = ""
		} else {
			st.ID = [16]byte{}
		}
		for _, p := range t.Partitions {
			st.Parts = append(st.Parts, seenPart{p.Partition, p.Records})
		}
		s.Topics = append(s.Topics, st)
	}
	return s
}

func seenByUs(p *produce) seenProduce {
	s := seenProduce{Acks: p.acks, Timeout: int64(p.timeoutMS)}
	from := 0
	for _, t := range p.topics {
		st := seenTopic{Name: string(t.name), ID: t.id}
		for _, q := range p.parts[from:t.end] {
			st.Parts = append(st.Parts, seenPart{q.index, q.records})
		}
		from = t.end
		s.Topics = append(s.Topics, st)
	}
	return s
}

// TestProduceDecodeAgreesWithKmsg proves that requests of every version are decoded as kmsg
// decodes them, and that every prefix of one is refused.
func TestProduceDecodeAgreesWithKmsg(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for version := int16(3); version <= 13; version++ {
		for range 50 {
			req := randomProduce(r, version)
			body := req.AppendTo(nil)
			p := &produce{version: version}
			if _, ok := p.decodeBody(body, maxProducePartitions); !ok {
				t.Fatalf("version %d: %+v is refused", version, req)
			}
			if diff := cmp.Diff(seenByKmsg(req), seenByUs(p)); diff != "" {
				t.Fatalf("version %d: (-kmsg +ours)\n%s", version, diff)
			}
			for range 5 {
				cut := &produce{version: version}
				n := r.IntN(len(body))
				if _, ok := cut.decodeBody(body[:n], maxProducePartitions); ok {
					t.Fatalf("version %d: %d of %d bytes are taken for a whole request", version, n, len(body))
				}
			}
		}
	}
}

// TestProduceEncodeAgreesWithKmsg proves that answers of every version are encoded as kmsg
// encodes them, and that an error code which is written later replaces the right bytes.
func TestProduceEncodeAgreesWithKmsg(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for version := int16(3); version <= 13; version++ {
		for range 50 {
			p := &produce{version: version}
			want := kmsg.NewPtrProduceResponse()
			want.Version = version
			for range r.IntN(4) {
				pt := produceTopic{name: randomBytes(r, r.IntN(200))}
				copy(pt.id[:], randomBytes(r, 16))
				wt := kmsg.NewProduceResponseTopic()
				wt.Topic, wt.TopicID = string(pt.name), pt.id
				for range r.IntN(4) {
					q, wp := randomProduceAnswer(r)
					p.parts = append(p.parts, q)
					wt.Partitions = append(wt.Partitions, wp)
				}
				pt.end = len(p.parts)
				p.topics = append(p.topics, pt)
				want.Topics = append(want.Topics, wt)
			}
			var resp wire.Response
			p.encodeAnswer(&resp)
			if !bytes.Equal(resp.B, want.AppendTo(nil)) {
				t.Fatalf("version %d: encoded %x\nkmsg has %x", version, resp.B, want.AppendTo(nil))
			}
			i := 0
			for j := range want.Topics {
				for k := range want.Topics[j].Partitions {
					want.Topics[j].Partitions[k].ErrorCode = 7
					be.PutUint16(resp.B[p.parts[i].at:], 7)
					i++
				}
			}
			if !bytes.Equal(resp.B, want.AppendTo(nil)) {
				t.Fatalf("version %d: patched codes are not where kmsg has them", version)
			}
		}
	}
}

func randomProduceAnswer(r *rand.Rand) (producePart, kmsg.ProduceResponseTopicPartition) {
	q := producePart{
		index: r.Int32(), code: int16(r.IntN(90)) + 10, base: record.Offset(r.Int64()), time: r.Int64(), start: record.Offset(r.Int64()),
	}
	w := kmsg.NewProduceResponseTopicPartition()
	w.Partition, w.ErrorCode, w.BaseOffset, w.LogAppendTime, w.LogStartOffset = q.index, q.code, int64(q.base), q.time, int64(q.start)
	if r.IntN(2) == 0 {
		q.message = "it is wrong"
		w.ErrorMessage = &q.message
		for range r.IntN(3) {
			e := record.Rejected{Index: r.IntN(100), Reason: "no key"}
			q.badRecs = append(q.badRecs, e)
			we := kmsg.NewProduceResponseTopicPartitionErrorRecord()
			we.RelativeOffset, we.ErrorMessage = int32(e.Index), &e.Reason
			w.ErrorRecords = append(w.ErrorRecords, we)
		}
	}
	return q, w
}

func randomFetch(r *rand.Rand, version int16) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.Version = version
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = r.Int32(), r.Int32(), r.Int32()
	req.IsolationLevel = int8(r.IntN(2))
	if version >= 7 {
		req.SessionID, req.SessionEpoch = r.Int32(), r.Int32()
	}
	if r.IntN(3) == 0 {
		req.ReplicaID, req.ReplicaState.ID = 5, 5
	}
	if version >= 12 && r.IntN(3) == 0 {
		req.ClusterID = new("some cluster")
	}
	for range r.IntN(5) {
		t := kmsg.NewFetchRequestTopic()
		t.Topic = string(randomBytes(r, r.IntN(200)))
		copy(t.TopicID[:], randomBytes(r, 16))
		for range r.IntN(5) {
			p := kmsg.NewFetchRequestTopicPartition()
			p.Partition, p.FetchOffset, p.PartitionMaxBytes = r.Int32(), r.Int64(), r.Int32()
			p.CurrentLeaderEpoch, p.LastFetchedEpoch, p.LogStartOffset = r.Int32(), r.Int32(), r.Int64()
			if r.IntN(3) == 0 {
				p.HighWatermark = r.Int64()
				copy(p.ReplicaDirectoryID[:], randomBytes(r, 16))
			}
			t.Partitions = append(t.Partitions, p)
		}
		req.Topics = append(req.Topics, t)
	}
	for range r.IntN(3) {
		t := kmsg.NewFetchRequestForgottenTopic()
		t.Topic = string(randomBytes(r, r.IntN(20)))
		copy(t.TopicID[:], randomBytes(r, 16))
		for range r.IntN(4) {
			t.Partitions = append(t.Partitions, r.Int32())
		}
		req.ForgottenTopics = append(req.ForgottenTopics, t)
	}
	req.Rack = string(randomBytes(r, r.IntN(20)))
	return req
}

// seenFetch has the fields on which both decoders must agree.
type seenFetch struct {
	Req       fetchRequest
	Parts     []seenWant
	Forgotten []seenWant
}

type seenWant struct {
	Topic            string
	ID               [16]byte
	Index            int32
	Epoch, LastEpoch record.Epoch
	Offset           record.Offset
	Max              int32
}

func fetchSeenByKmsg(req *kmsg.FetchRequest) seenFetch {
	v := req.Version
	s := seenFetch{Req: fetchRequest{
		replica: req.ReplicaID, maxWait: req.MaxWaitMillis, minBytes: req.MinBytes, maxBytes: req.MaxBytes,
		isolation: req.IsolationLevel, sessionID: req.SessionID, epoch: req.SessionEpoch,
	}}
	if v >= 15 {
		s.Req.replica = req.ReplicaState.ID
	}
	named := func(topic string, id [16]byte) seenWant {
		if v >= 13 {
			return seenWant{ID: id}
		}
		return seenWant{Topic: topic}
	}
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			w := named(t.Topic, t.TopicID)
			w.Index, w.Offset, w.Max, w.Epoch, w.LastEpoch = p.Partition, record.Offset(p.FetchOffset), p.PartitionMaxBytes, -1, -1
			if v >= 9 {
				w.Epoch = record.Epoch(p.CurrentLeaderEpoch)
			}
			if v >= 12 {
				w.LastEpoch = record.Epoch(p.LastFetchedEpoch)
			}
			s.Parts = append(s.Parts, w)
		}
	}
	for _, t := range req.ForgottenTopics {
		for _, n := range t.Partitions {
			w := named(t.Topic, t.TopicID)
			w.Index = n
			s.Forgotten = append(s.Forgotten, w)
		}
	}
	if v < 7 {
		s.Forgotten = nil
	}
	return s
}

func fetchSeenByUs(f *fetch) seenFetch {
	s := seenFetch{Req: f.fetchRequest}
	for _, p := range f.parts {
		s.Parts = append(s.Parts, seenWant{
			string(p.topic.name), p.topic.id, p.index, p.epoch, p.lastFetchedEpoch, p.offset, p.maxBytes,
		})
	}
	for _, g := range f.forgotten {
		s.Forgotten = append(s.Forgotten, seenWant{Topic: string(g.topic.name), ID: g.topic.id, Index: g.index})
	}
	return s
}

// TestFetchDecodeAgreesWithKmsg proves that requests of every version are decoded as kmsg
// decodes them, and that every prefix of one is refused.
func TestFetchDecodeAgreesWithKmsg(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for version := int16(4); version <= 18; version++ {
		for range 50 {
			req := randomFetch(r, version)
			body := req.AppendTo(nil)
			f := &fetch{version: version}
			if !f.decodeBody(body) {
				t.Fatalf("version %d: %+v is refused", version, req)
			}
			if diff := cmp.Diff(fetchSeenByKmsg(req), fetchSeenByUs(f), cmp.AllowUnexported(fetchRequest{})); diff != "" {
				t.Fatalf("version %d: (-kmsg +ours)\n%s", version, diff)
			}
			for range 5 {
				cut := &fetch{version: version}
				if n := r.IntN(len(body)); cut.decodeBody(body[:n]) {
					t.Fatalf("version %d: %d of %d bytes are taken for a whole request", version, n, len(body))
				}
			}
		}
	}
}

// TestFetchEncodeAgreesWithKmsg proves that answers of every version, without records, are
// encoded as kmsg encodes them, and that skipped partitions are left out.
func TestFetchEncodeAgreesWithKmsg(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for version := int16(4); version <= 18; version++ {
		for range 50 {
			f, want := randomFetchAnswer(r, version)
			var resp wire.Response
			f.encodeAnswer(&resp, want.ErrorCode, want.SessionID)
			if !bytes.Equal(resp.B, want.AppendTo(nil)) {
				t.Fatalf("version %d: encoded %x\nkmsg has %x", version, resp.B, want.AppendTo(nil))
			}
		}
	}
}

func randomFetchAnswer(r *rand.Rand, version int16) (*fetch, *kmsg.FetchResponse) {
	f := &fetch{version: version}
	f.isolation = int8(r.IntN(2))
	want := kmsg.NewPtrFetchResponse()
	want.Version = version
	if version >= 7 {
		want.ErrorCode, want.SessionID = int16(r.IntN(100)), r.Int32()
	}
	f.growTopics(4)
	for i := range r.IntN(4) {
		ft := fetchTopic{name: append([]byte{byte(i)}, randomBytes(r, r.IntN(200))...)}
		copy(ft.id[:], randomBytes(r, 16))
		f.topics = append(f.topics, ft)
		wt := kmsg.NewFetchResponseTopic()
		wt.Topic, wt.TopicID = string(ft.name), ft.id
		for range r.IntN(4) {
			q := fetchPart{readResult: &readResult{found: replica.Nothing()}, code: int16(r.IntN(2) * 3), skip: r.IntN(3) == 0}
			q.found.HighWatermark, q.found.LastStable, q.found.Start = record.Offset(r.Int64()), record.Offset(r.Int64()), record.Offset(r.Int64())
			q.topic, q.index = &f.topics[i], r.Int32()
			wp := kmsg.NewFetchResponseTopicPartition()
			wp.Partition, wp.ErrorCode, wp.HighWatermark, wp.LogStartOffset = q.index, q.code, int64(q.found.HighWatermark), int64(q.found.Start)
			wp.LastStableOffset, wp.PreferredReadReplica, wp.RecordBatches = int64(q.found.LastStable), -1, []byte{}
			if r.IntN(3) > 0 {
				q.part = new(replica.Partition)
			}
			if q.part == nil || f.isolation == readCommitted && q.code == none {
				wp.AbortedTransactions = []kmsg.FetchResponseTopicPartitionAbortedTransaction{}
				if q.part != nil && q.code == none && r.IntN(2) == 0 {
					var list []replica.Aborted
					for range r.IntN(200) {
						a := replica.Aborted{Producer: r.Int64(), First: record.Offset(r.Int64())}
						list = append(list, a)
						wp.AbortedTransactions = append(wp.AbortedTransactions, kmsg.FetchResponseTopicPartitionAbortedTransaction{ProducerID: a.Producer, FirstOffset: int64(a.First)})
					}
					q.found.Aborted = &list
				}
			}
			if version >= 12 && r.IntN(3) == 0 {
				q.found.DivergingEpoch, q.found.DivergingEnd = 3, record.Offset(r.Int64N(1000))
				wp.DivergingEpoch.Epoch, wp.DivergingEpoch.EndOffset = 3, int64(q.found.DivergingEnd)
			}
			f.parts = append(f.parts, q)
			if !q.skip {
				wt.Partitions = append(wt.Partitions, wp)
			}
		}
		if len(wt.Partitions) > 0 {
			want.Topics = append(want.Topics, wt)
		}
	}
	return f, want
}

// FuzzProduceDecode proves that no body makes the decoder read outside of it, and that every
// body which it accepts is decoded as kmsg decodes it.
func FuzzProduceDecode(f *testing.F) {
	r := rand.New(rand.NewPCG(9, 10))
	for version := int16(3); version <= 13; version++ {
		f.Add(version, randomProduce(r, version).AppendTo(nil))
	}
	f.Fuzz(func(t *testing.T, version int16, body []byte) {
		if version < 3 || version > 13 {
			return
		}
		p := &produce{version: version}
		if _, ok := p.decodeBody(body, maxProducePartitions); !ok {
			return
		}
		req := kmsg.NewPtrProduceRequest()
		req.Version = version
		if err := req.ReadFrom(body); err != nil {
			t.Fatalf("kmsg refuses what we take: %v", err)
		}
		if diff := cmp.Diff(seenByKmsg(req), seenByUs(p)); diff != "" {
			t.Fatalf("version %d: (-kmsg +ours)\n%s", version, diff)
		}
	})
}

// FuzzFetchDecode proves of the decoder of Fetch what FuzzProduceDecode proves of that of
// Produce.
func FuzzFetchDecode(f *testing.F) {
	r := rand.New(rand.NewPCG(11, 12))
	for version := int16(4); version <= 18; version++ {
		f.Add(version, randomFetch(r, version).AppendTo(nil))
	}
	f.Fuzz(func(t *testing.T, version int16, body []byte) {
		if version < 4 || version > 18 {
			return
		}
		o := &fetch{version: version}
		if !o.decodeBody(body) {
			return
		}
		req := kmsg.NewPtrFetchRequest()
		req.Version = version
		if err := req.ReadFrom(body); err != nil {
			return // a tagged field that we skip is not what kmsg knows it to be
		}
		if diff := cmp.Diff(fetchSeenByKmsg(req), fetchSeenByUs(o), cmp.AllowUnexported(fetchRequest{})); diff != "" {
			t.Fatalf("version %d: (-kmsg +ours)\n%s", version, diff)
		}
	})
}
