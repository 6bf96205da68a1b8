package group

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/record"
)

// entry is what a log has of one change of an offset, or of a transaction's end, for naiveOffsets.
type entry struct {
	group     string
	partition int32
	at        int64 // -1: the offset is deleted; -2: the group is
	producer  int64 // in whose transaction it is; -1: in none
	ends      bool  // it is the end of a transaction
	commit    bool
}

// naiveOffsets computes the committed offsets and the partitions with open transactions from a whole log, by Kafka's rule: of
// two offsets that count, that whose record is behind the other's.
func naiveOffsets(log []entry) (committed map[string]int64, unstable map[string]bool) {
	committed, unstable = map[string]int64{}, map[string]bool{}
	written := map[string]int{}
	open := map[int64]map[string]int{} // producer -> partition -> number of the entry
	for n, e := range log {
		key := fmt.Sprint(e.group, "/", e.partition)
		switch {
		case e.ends:
			for key, from := range open[e.producer] {
				if e.commit && from >= written[key] {
					committed[key], written[key] = log[from].at, from
				}
			}
			delete(open, e.producer)
		case e.at == -2:
			forget := func(key string) bool { return key[:len(e.group)+1] == e.group+"/" }
			maps.DeleteFunc(committed, func(key string, _ int64) bool { return forget(key) })
			for _, t := range open {
				maps.DeleteFunc(t, func(key string, _ int) bool { return forget(key) })
			}
		case e.at == -1:
			delete(committed, key)
			for _, t := range open {
				delete(t, key)
			}
		case e.producer >= 0:
			if open[e.producer] == nil {
				open[e.producer] = map[string]int{}
			}
			open[e.producer][key] = n
		default:
			committed[key], written[key] = e.at, n
		}
	}
	for _, t := range open {
		for key := range t {
			unstable[key] = true
		}
	}
	return committed, unstable
}

// offsetsWorld commits offsets within transactions and without, and keeps the log that this makes.
type offsetsWorld struct {
	tb  testing.TB
	rng *rand.Rand
	sv  *Service
	log *memLog
	did []entry
	at  int64
}

func (w *offsetsWorld) startService() {
	w.sv = New(Config{Logger: slog.New(slog.DiscardHandler), Partitions: func() int32 { return 1 }})
	w.sv.StartLeading(0, 1, w.log)
	eventually(w.tb, "it is loaded", func() bool { return w.fetch("g", false) != nil })
}

// request names one to three partitions, each once.
func (w *offsetsWorld) request(group string) *kmsg.OffsetCommitRequest {
	req := commitRequest(group, "", -1, 0)
	req.Topics[0].Partitions = nil
	for _, p := range w.rng.Perm(4)[:1+w.rng.IntN(3)] {
		w.at++
		out := kmsg.NewOffsetCommitRequestTopicPartition()
		out.Partition, out.Offset, out.Metadata = int32(p), w.at, new(string("m"))
		req.Topics[0].Partitions = append(req.Topics[0].Partitions, out)
	}
	return req
}

func (w *offsetsWorld) group() string { return string(rune('g' + w.rng.IntN(3))) }

func (w *offsetsWorld) expectCodes(topics []kmsg.OffsetCommitResponseTopic) {
	for _, t := range topics {
		for _, p := range t.Partitions {
			if p.ErrorCode != 0 {
				w.tb.Fatalf("a commit is refused with %d", p.ErrorCode)
			}
		}
	}
}

func (w *offsetsWorld) act() {
	group, producer := w.group(), int64(w.rng.IntN(4))
	by := coord.Producer{ID: producer, Epoch: 3}
	req := w.request(group)
	switch n := w.rng.IntN(20); {
	case n < 8:
		w.sv.CommitInTransaction(by, req, nil, func(r *kmsg.OffsetCommitResponse) { w.expectCodes(r.Topics) })
		for _, p := range req.Topics[0].Partitions {
			w.did = append(w.did, entry{group: group, partition: p.Partition, at: p.Offset, producer: producer})
		}
	case n < 12:
		commitOne(w.sv, req, func(r *kmsg.OffsetCommitResponse) { w.expectCodes(r.Topics) })
		for _, p := range req.Topics[0].Partitions {
			w.did = append(w.did, entry{group: group, partition: p.Partition, at: p.Offset, producer: -1})
		}
	case n < 17:
		commit := w.rng.IntN(3) > 0
		w.sv.EndTransaction(0, coord.Marker{Producer: by, Marker: record.Marker{Commit: commit}}, func(err error) {
			if err != nil {
				w.tb.Fatal(err)
			}
		}).Commit()
		w.did = append(w.did, entry{producer: producer, ends: true, commit: commit})
	case n < 18:
		w.deleteOffset(group, int32(w.rng.IntN(4)))
	case n < 19:
		w.sv.Delete([]string{group}, func(r []kmsg.DeleteGroupsResponseGroup) {
			if r[0].ErrorCode == 0 {
				w.did = append(w.did, entry{group: group, at: -2})
			}
		})
	default:
		w.sv.Close()
		w.startService()
	}
}

func (w *offsetsWorld) deleteOffset(group string, partition int32) {
	req := kmsg.NewPtrOffsetDeleteRequest()
	req.Group = group
	req.Topics = []kmsg.OffsetDeleteRequestTopic{{Topic: "t", Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{Partition: partition}}}}
	w.sv.DeleteOffsets(req, func(r *kmsg.OffsetDeleteResponse) {
		if r.ErrorCode == 0 {
			w.did = append(w.did, entry{group: group, partition: partition, at: -1})
		}
	})
}

// fetch returns a group's offsets by partition, "open" for those for which a transaction is open; nil: there is no answer yet.
func (w *offsetsWorld) fetch(group string, stable bool) map[string]string {
	got := map[string]string{}
	req := kmsg.OffsetFetchRequestGroup{Group: group, Topics: []kmsg.OffsetFetchRequestGroupTopic{{Topic: "t", Partitions: []int32{0, 1, 2, 3}}}}
	w.sv.Fetch([]kmsg.OffsetFetchRequestGroup{req}, stable, func(r []kmsg.OffsetFetchResponseGroup) {
		if r[0].ErrorCode != 0 {
			got = nil
			return
		}
		for _, p := range r[0].Topics[0].Partitions {
			key := fmt.Sprint(group, "/", p.Partition)
			switch {
			case p.ErrorCode == unstableOffsetCommit && p.Offset == -1:
				got[key] = "open"
			case p.ErrorCode != 0:
				got[key] = fmt.Sprint("code ", p.ErrorCode)
			case p.Offset >= 0:
				got[key] = fmt.Sprint(p.Offset)
			}
		}
	})
	return got
}

// compare compares what the service answers with the naive replay of the log.
func (w *offsetsWorld) compare() {
	committed, unstable := naiveOffsets(w.did)
	plain, stable := map[string]string{}, map[string]string{}
	for key, at := range committed {
		plain[key], stable[key] = fmt.Sprint(at), fmt.Sprint(at)
	}
	for key := range unstable {
		stable[key] = "open"
	}
	for want, isStable := range map[*map[string]string]bool{&plain: false, &stable: true} {
		got := map[string]string{}
		for _, group := range []string{"g", "h", "i"} {
			maps.Copy(got, w.fetch(group, isStable))
		}
		if !maps.Equal(got, *want) {
			w.tb.Fatalf("stable %v: got %v, want %v after %+v", isStable, got, *want, w.did)
		}
	}
	err := w.sv.rt.Do(0, func(m *Machine, _ *coord.Step) { m.check(w.tb.Fatalf) })
	if err != nil {
		w.tb.Fatal(err)
	}
}

// TestOffsetsInTransactions proves that offsets count as Kafka counts them, whatever the order of commits, transactions, deletions
// and markers is, also after a load at any time, and that each byte is accounted for.
func TestOffsetsInTransactions(t *testing.T) {
	for seed := range uint64(300) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := &offsetsWorld{tb: t, rng: rand.New(rand.NewPCG(seed, 1)), log: &memLog{}}
			w.startService()
			defer func() { w.sv.Close() }()
			for range 60 {
				w.act()
				w.compare()
			}
			w.sv.Close()
			w.startService()
			w.compare()
		})
	}
}

// TestTransactionalCommitOfMembers proves whose offsets a transaction takes (KIP-447): those of a member of the present generation, and
// of clients that name none.
func TestTransactionalCommitOfMembers(t *testing.T) {
	w := &offsetsWorld{tb: t, rng: rand.New(rand.NewPCG(1, 1)), log: &memLog{}}
	w.startService()
	defer func() { w.sv.Close() }()
	commit := func(group, member string, generation int32) (code int16) {
		w.sv.CommitInTransaction(coord.Producer{ID: 1}, commitRequest(group, member, generation, 5), nil, func(r *kmsg.OffsetCommitResponse) {
			code = r.Topics[0].Partitions[0].ErrorCode
		})
		return code
	}
	for name, c := range map[string]struct {
		group, member string
		generation    int32
		want          int16
	}{
		"a group that is not there":                  {"new", "", -1, 0},
		"a member of a group that is not there":      {"other", "m", 3, groupIDNotFound},
		"a member that an empty group does not have": {"new", "m", 3, unknownMemberID},
		"no group": {"", "", -1, invalidGroupID},
	} {
		if name == "a member that an empty group does not have" {
			commit("new", "", -1)
		}
		if got := commit(c.group, c.member, c.generation); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// TestLateOffsetsOfTransactionsAreRefused proves that offsets do not count if the answer of the transaction's coordinator is outdated when their turn comes.
func TestLateOffsetsOfTransactionsAreRefused(t *testing.T) {
	w := &offsetsWorld{tb: t, rng: rand.New(rand.NewPCG(1, 1)), log: &memLog{}}
	w.startService()
	defer func() { w.sv.Close() }()
	by, outdated := coord.Producer{ID: 1}, errors.New("outdated")
	commit := func(offset int64, check error) (code int16) {
		w.sv.CommitInTransaction(by, commitRequest("g", "", -1, offset), func() error { return check }, func(r *kmsg.OffsetCommitResponse) { code = r.Topics[0].Partitions[0].ErrorCode })
		return code
	}
	if code := commit(10, nil); code != 0 {
		t.Fatalf("the offset is refused with %d", code)
	}
	if code := commit(8, outdated); code == 0 {
		t.Error("a late offset is taken")
	}
	w.sv.EndTransaction(0, coord.Marker{Producer: by, Marker: record.Marker{Commit: true}}, func(err error) {
		if err != nil {
			t.Error(err)
		}
	}).Commit()
	if got := w.fetch("g", true); len(got) != 1 || !slices.Contains(slices.Collect(maps.Values(got)), "10") {
		t.Errorf("the offsets are %v, want 10", got)
	}
}

// TestPendingOffsetsAreBounded proves that offsets of transactions that never end take no more memory than all groups may.
func TestPendingOffsetsAreBounded(t *testing.T) {
	log := &memLog{}
	sv := New(Config{Logger: slog.New(slog.DiscardHandler), Partitions: func() int32 { return 1 }, Memory: 4 << 20})
	sv.StartLeading(0, 1, log)
	defer sv.Close()
	eventually(t, "it is loaded", func() bool { return sv.fetchOne("g") == "ok" })
	var code int16
	n := int64(0)
	for ; code == 0 && n < 1_000_000; n++ {
		sv.CommitInTransaction(coord.Producer{ID: n}, commitRequest("g", "", -1, n), nil, func(r *kmsg.OffsetCommitResponse) { code = r.Topics[0].Partitions[0].ErrorCode })
	}
	if code != coordinatorNotAvailable || sv.MemoryUsed() > 4<<20 {
		t.Fatalf("%d after %d commits, %d bytes are used", code, n, sv.MemoryUsed())
	}
	for id := range n {
		sv.EndTransaction(0, coord.Marker{Producer: coord.Producer{ID: id}}, func(error) {}).Commit()
	}
	if used := sv.MemoryUsed(); used > 4096 {
		t.Errorf("%d bytes are used when all have ended", used)
	}
	sv.CommitInTransaction(coord.Producer{ID: 1}, commitRequest("g", "", -1, 1), nil, func(r *kmsg.OffsetCommitResponse) { code = r.Topics[0].Partitions[0].ErrorCode })
	if code != 0 {
		t.Errorf("a commit after that: %d", code)
	}
}

// compactLog is what compaction leaves of a log at last: all markers, and the batches that have the latest record of a key, unless
// that is a tombstone.
func compactLog(tb testing.TB, log *memLog) *memLog {
	tb.Helper()
	latest := map[string]int{} // by key: the batch, or -1 for a tombstone
	keys := make([][]string, len(log.batches))
	for i, b := range log.batches {
		if b.Control() {
			continue
		}
		var r record.Reader
		for r.Reset(b, 1<<20); r.Next(); {
			key := string(r.Record.Key)
			keys[i], latest[key] = append(keys[i], key), i
			if r.Record.Value == nil {
				latest[key] = -1
			}
		}
		if err := r.Err(); err != nil {
			tb.Fatal(err)
		}
		r.Close()
	}
	out := &memLog{end: log.end, hw: log.hw}
	for i, b := range log.batches {
		if b.Control() || slices.ContainsFunc(keys[i], func(key string) bool { return latest[key] == i }) {
			out.batches = append(out.batches, b)
		}
	}
	return out
}

// TestDeletedPendingOffsetsStayDeleted proves that an offset which is pending when it, its group or its topic is deleted is not
// committed by the marker of its transaction, also not at a load after the log was compacted.
func TestDeletedPendingOffsetsStayDeleted(t *testing.T) {
	for what, deletes := range map[string]func(sv *Service){
		"group": func(sv *Service) {
			sv.Delete([]string{"g"}, func(r []kmsg.DeleteGroupsResponseGroup) {
				if r[0].ErrorCode != 0 {
					t.Errorf("the group is not deleted: %d", r[0].ErrorCode)
				}
			})
		},
		"offset": func(sv *Service) {
			req := kmsg.NewPtrOffsetDeleteRequest()
			req.Group = "g"
			req.Topics = []kmsg.OffsetDeleteRequestTopic{{Topic: "t", Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{Partition: 0}}}}
			sv.DeleteOffsets(req, func(*kmsg.OffsetDeleteResponse) {})
		},
		"topic": func(sv *Service) {
			sv.TopicDeleted("t", [16]byte{7})
			sv.work.Wait()
		},
	} {
		t.Run(what, func(t *testing.T) {
			start := func(log *memLog) *Service {
				sv := New(Config{Logger: slog.New(slog.DiscardHandler), Partitions: func() int32 { return 1 }})
				sv.StartLeading(0, 1, log)
				eventually(t, "it is loaded", func() bool { return sv.fetchOne("other") == "ok" })
				return sv
			}
			log, by := &memLog{}, coord.Producer{ID: 1}
			sv := start(log)
			sv.CommitInTransaction(by, commitRequest("g", "", -1, 5), nil, func(r *kmsg.OffsetCommitResponse) {
				if code := r.Topics[0].Partitions[0].ErrorCode; code != 0 {
					t.Errorf("the commit is refused: %d", code)
				}
			})
			deletes(sv)
			sv.EndTransaction(0, coord.Marker{Producer: by, Marker: record.Marker{Commit: true}}, func(error) {}).Commit()
			if got := sv.fetchOne("g"); got != "ok" {
				t.Errorf("after the deletion and the commit: %s", got)
			}
			sv.Close()
			sv = start(compactLog(t, log))
			defer sv.Close()
			if got := sv.fetchOne("g"); got != "ok" {
				t.Errorf("after a load of the compacted log: %s", got)
			}
		})
	}
}

// eventually waits until something is so.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("not so: %s", what)
		}
	}
}
