package mirror_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror/progress"
	"github.com/leatstream/leat/internal/record"
)

// TestTransactionsAreResolved proves how a promotion ends transactions after the source is gone, by what was read of its coordinators' log and of markers before: the counterexamples by which a simpler rule would lose
// what was committed, or show what was not. The clocks of producers and of the coordinator are of no use in all of them.
func TestTransactionsAreResolved(t *testing.T) {
	commit := func(epoch int16) []mirrorEnd { return []mirrorEnd{{7, epoch, true}} }
	abort := func(epoch int16) []mirrorEnd { return []mirrorEnd{{7, epoch, false}} }
	for name, c := range map[string]struct {
		source   func(r *promotionRig)
		noLog    bool
		ends     [2][]mirrorEnd
		outcomes [2]int
	}{
		"a commit is answered, and its markers have not gone out": {func(r *promotionRig) {
			r.source.write(0, 7, 4)
			r.source.write(1, 7, 4)
			r.source.coordinate(txnOngoing, 4, 2, 0, 1)
			r.source.coordinate(txnCommit, 5, 2, 0, 1)
		}, false, [2][]mirrorEnd{commit(5), commit(5)}, [2]int{int(progress.CommitWhole), int(progress.CommitWhole)}},
		"one of its markers has gone out": {func(r *promotionRig) {
			r.source.write(0, 7, 4)
			r.source.write(1, 7, 4)
			r.source.coordinate(txnCommit, 5, 2, 0, 1)
			r.source.mark(0, 7, 5, true)
		}, false, [2][]mirrorEnd{nil, commit(5)}, [2]int{-1, int(progress.CommitWhole)}},
		"nobody may read the log, and one marker has gone out": {func(r *promotionRig) {
			r.source.write(0, 7, 4)
			r.source.write(1, 7, 4)
			r.source.mark(0, 7, 5, true)
		}, true, [2][]mirrorEnd{nil, commit(5)}, [2]int{-1, int(progress.CommitByMarker)}},
		"nobody may read the log, and the marker is of an epoch that is used again": {func(r *promotionRig) {
			r.source.write(0, 7, 4)
			r.source.mark(0, 7, 4, true)
			r.source.write(1, 7, 4)
		}, true, [2][]mirrorEnd{nil, abort(5)}, [2]int{-1, int(progress.AbortUndecided)}},
		"an older client commits": {func(r *promotionRig) {
			r.source.write(0, 7, 4)
			r.source.coordinate(txnOngoing, 4, 0, 0)
			r.settle()
			r.source.coordinate(txnCommit, 4, 0, 0)
		}, false, [2][]mirrorEnd{commit(4), nil}, [2]int{int(progress.CommitWhole), -1}},
		"an older client goes on with the epoch of a transaction that was committed": {func(r *promotionRig) {
			r.source.write(0, 7, 4)
			r.source.coordinate(txnCommit, 4, 0, 0)
			r.source.mark(0, 7, 4, true)
			r.source.coordinate(txnComplete, 4, 0)
			r.source.coordinate(txnOngoing, 4, 0, 0)
			r.source.write(0, 7, 4)
		}, false, [2][]mirrorEnd{abort(5), nil}, [2]int{int(progress.AbortUndecided), -1}},
		"it is open": {func(r *promotionRig) {
			r.source.write(0, 7, 4)
			r.source.write(1, 7, 4)
			r.source.coordinate(txnOngoing, 4, 2, 0, 1)
		}, false, [2][]mirrorEnd{abort(5), abort(5)}, [2]int{int(progress.AbortUndecided), int(progress.AbortUndecided)}},
		"the source aborts it": {func(r *promotionRig) {
			r.source.write(0, 7, 4)
			r.source.coordinate(txnAbort, 5, 2, 0)
		}, false, [2][]mirrorEnd{abort(5), nil}, [2]int{int(progress.AbortWhole), -1}},
		"a partition was away when it was committed": {func(r *promotionRig) {
			r.source.write(0, 7, 4)
			r.source.write(1, 7, 4)
			r.source.coordinate(txnOngoing, 4, 2, 0, 1)
			r.settle()
			r.source.stop(2)
			r.source.coordinate(txnCommit, 5, 2, 0, 1)
		}, false, [2][]mirrorEnd{abort(5), abort(5)}, [2]int{int(progress.AbortLacking), int(progress.AbortLacking)}},
		"readers have seen it, and a partition was away": {func(r *promotionRig) {
			r.source.write(0, 7, 4)
			r.source.write(1, 7, 4)
			r.settle()
			r.source.stop(2)
			r.source.coordinate(txnCommit, 5, 2, 0, 1)
			r.source.mark(0, 7, 5, true)
		}, false, [2][]mirrorEnd{nil, abort(5)}, [2]int{int(progress.Torn), int(progress.Torn)}},
	} {
		t.Run(name, func(t *testing.T) {
			inPromotion(t, !c.noLog, func(r *promotionRig) {
				r.await("it is mirrored", func() bool {
					return r.status("t", 0).State == progress.Mirroring && r.status("t", 1).State == progress.Mirroring
				})
				c.source(r)
				r.settle()
				r.loseSource()
				r.promote()
				r.awaitPromoted(c.ends[0], c.ends[1])
				for n, want := range c.outcomes {
					if got := r.outcome(n); got != want {
						t.Errorf("partition %d: the outcome is %d, and not %d: %+v", n, got, want, r.stateOf(n))
					}
				}
			})
		})
	}
}

// TestEveryStateIsPromoted proves that a topic is promoted from whatever state its partitions are in, with the source there or gone, within seconds, that its log is what it was, and that nothing of the source comes into it
// from then on.
func TestEveryStateIsPromoted(t *testing.T) {
	for name, c := range map[string]struct {
		state progress.State
		begin func(r *promotionRig)
	}{
		"MIRRORING": {progress.Mirroring, func(*promotionRig) {}},
		"PAUSED":    {progress.Paused, func(r *promotionRig) { r.pause(true) }},
		"WAITING": {progress.Waiting, func(r *promotionRig) {
			r.source.stop(1)
			r.source.stop(2)
		}},
		"GAP": {progress.Gap, func(r *promotionRig) {
			r.pause(true)
			r.settle()
			r.source.produce("t", 0, 9, 10)
			r.source.trim("t", 0, 8)
			r.pause(false)
		}},
		"SOURCE_DELETED": {progress.SourceDeleted, func(r *promotionRig) { r.source.change(func() { delete(r.source.topics, "t") }) }},
		"FAILED": {progress.Failed, func(r *promotionRig) {
			r.source.change(func() {
				p := r.source.topics["t"].partitions[0]
				b := slices.Clone(p.batches[0])
				b.SetBaseOffset(3)
				b[len(b)-1] ^= 1 // a wrong checksum
				p.batches, p.high = append(p.batches, b), 4
			})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			inPromotion(t, true, func(r *promotionRig) {
				r.source.produce("t", 0, 3, 10)
				r.await("it is mirrored", func() bool { return r.isCopy("t", 0) && r.status("t", 0).State == progress.Mirroring })
				before := r.log("t", 0).bytes()
				c.begin(r)
				r.await("it is in the state", func() bool { return r.status("t", 0).State == c.state })
				began := time.Now()
				r.promote()
				r.awaitPromoted(nil, nil)
				if took := time.Since(began); took > 15*time.Second { // of the bubble's clock
					t.Errorf("it took %v", took)
				}
				r.source.change(func() {
					if t := r.source.topics["t"]; t != nil {
						t.partitions[1].high = 0
					}
				})
				r.settle()
				if after := r.log("t", 0).bytes(); !bytes.Equal(before, after) {
					t.Errorf("the log had %d bytes, and has %d", len(before), len(after))
				}
				p := r.image.Load().Topic("t").Partitions[0]
				if n := len(p.Mirror.Lineages); n == 0 || p.Mirror.Lineages[n-1] != (meta.Lineage{Cluster: "here", Epoch: p.LeaderEpoch - 1, Start: 3}) {
					t.Errorf("%+v, %+v", p, p.Mirror)
				}
			})
		})
	}
}

// TestPartitionWithoutALeaderWaits proves that a partition whose leader does not answer holds back the others for some seconds only, that nothing is taken for complete of it, and that it follows what was decided
// when it has a leader again.
func TestPartitionWithoutALeaderWaits(t *testing.T) {
	inPromotion(t, true, func(r *promotionRig) {
		r.source.write(0, 7, 4)
		r.source.write(1, 7, 4)
		r.source.coordinate(txnCommit, 5, 2, 0, 1)
		r.settle()
		r.lead("t", 1, 2)
		r.promote()
		r.await("the other one is promoted", func() bool { return r.stateOf(0).State == meta.PartitionPromoted })
		if got, want := r.ends(0), []mirrorEnd{{7, 5, false}}; !slices.Equal(got, want) || r.outcome(0) != int(progress.AbortLacking) {
			t.Errorf("partition 0 has %+v, decided by %+v", got, r.stateOf(0))
		}
		if r.stateOf(1).IsDecided {
			t.Fatalf("%+v", r.stateOf(1))
		}
		r.lead("t", 1, 1)
		r.awaitPromoted([]mirrorEnd{{7, 5, false}}, []mirrorEnd{{7, 5, false}})
	})
}

// TestPromotionGoesOn proves that a promotion goes on wherever it was when a node failed: markers that were written stay, no marker comes twice, and no decision changes, whoever runs the tasks and whoever leads.
func TestPromotionGoesOn(t *testing.T) {
	begin := func(r *promotionRig) {
		r.source.write(0, 7, 4)
		r.source.write(1, 7, 4)
		r.source.coordinate(txnCommit, 5, 2, 0, 1)
		r.settle()
	}
	want := []mirrorEnd{{7, 5, true}}
	t.Run("the tasks run nowhere for a while", func(t *testing.T) {
		inPromotion(t, true, func(r *promotionRig) {
			begin(r)
			r.isElsewhere.Store(true)
			r.promote()
			r.settle()
			if r.stateOf(0).IsDecided {
				t.Error("another node is to decide")
			}
			r.isElsewhere.Store(false)
			r.awaitPromoted(want, want)
		})
	})
	t.Run("the controller does not answer for a while", func(t *testing.T) {
		inPromotion(t, true, func(r *promotionRig) {
			begin(r)
			r.promote()
			r.mu.Lock()
			r.refusing = fmt.Errorf("no controller")
			r.mu.Unlock()
			r.settle()
			r.mu.Lock()
			r.refusing = nil
			r.mu.Unlock()
			r.awaitPromoted(want, want)
		})
	})
	t.Run("the leader fails after it has written markers", func(t *testing.T) {
		inPromotion(t, true, func(r *promotionRig) {
			begin(r)
			r.log("t", 0).set(func(l *memLog) { l.failEnds = 1 })
			r.promote()
			r.awaitPromoted(want, want)
		})
	})
	t.Run("another leader comes between the decision and the markers", func(t *testing.T) {
		inPromotion(t, true, func(r *promotionRig) {
			begin(r)
			r.log("t", 0).set(func(l *memLog) { l.refuses = fmt.Errorf("the node is away") })
			r.promote()
			r.await("it is decided", func() bool { return r.stateOf(0).IsDecided })
			decided := slices.Clone(r.stateOf(0).Decisions)
			r.lead("t", 0, 2)
			r.settle()
			r.log("t", 0).set(func(l *memLog) { l.refuses = nil })
			r.lead("t", 0, 1)
			r.await("it is promoted", func() bool { return r.image.Load().Topic("t").Mirror.State == meta.MirrorPromoted })
			if got := r.ends(0); !slices.Equal(got, want) || !slices.Equal(r.stateOf(0).Decisions, decided) {
				t.Errorf("%+v, decided %+v and then %+v", got, decided, r.stateOf(0).Decisions)
			}
		})
	})
	t.Run("markers are not committed for a while", func(t *testing.T) {
		inPromotion(t, true, func(r *promotionRig) {
			begin(r)
			r.log("t", 0).set(func(l *memLog) { l.lacksEnds = true })
			r.promote()
			r.await("the other one is promoted", func() bool { return r.stateOf(1).State == meta.PartitionPromoted })
			r.settle()
			if got := r.ends(0); r.stateOf(0).State != meta.PartitionPromoting || !slices.Equal(got, want) {
				t.Errorf("%+v, with the markers %+v", r.stateOf(0), got)
			}
			r.log("t", 0).set(func(l *memLog) { l.lacks = 0 })
			r.awaitPromoted(want, want)
		})
	})
}

// TestUncommittedRecordsProveNothing proves that what the leader here has and its replicas lack is not decided before they have it: another leader may not have it.
func TestUncommittedRecordsProveNothing(t *testing.T) {
	inPromotion(t, true, func(r *promotionRig) {
		r.source.write(0, 7, 4)
		r.source.coordinate(txnCommit, 5, 2, 0)
		r.settle()
		r.log("t", 0).set(func(l *memLog) { l.lacks = 1 })
		r.promote()
		r.await("the other one is promoted", func() bool { return r.stateOf(1).State == meta.PartitionPromoted })
		if r.stateOf(0).IsDecided {
			t.Fatalf("%+v", r.stateOf(0))
		}
		r.log("t", 0).set(func(l *memLog) { l.lacks = 0 })
		r.awaitPromoted([]mirrorEnd{{7, 5, true}}, nil)
	})
	inPromotion(t, true, func(r *promotionRig) { // nor is it taken for complete where others ask
		r.log("t", 1).set(func(l *memLog) { l.lacks = 1 })
		r.source.write(0, 7, 4)
		r.source.write(1, 7, 4)
		r.source.coordinate(txnCommit, 5, 2, 0, 1)
		r.settle()
		r.promote()
		r.await("the other one is promoted", func() bool { return r.stateOf(0).State == meta.PartitionPromoted })
		if got := r.outcome(0); got != int(progress.AbortLacking) {
			t.Errorf("%d, %+v", got, r.stateOf(0))
		}
		r.log("t", 1).set(func(l *memLog) { l.lacks = 0 })
		r.awaitPromoted([]mirrorEnd{{7, 5, false}}, []mirrorEnd{{7, 5, false}})
	})
}

// TestNodesDecideTogether proves that the claims of nodes are put together, and that what an earlier leader goes on to claim does not count beside what the present one does.
func TestNodesDecideTogether(t *testing.T) {
	for name, c := range map[string]struct {
		verdict progress.Verdict // of node 2, for partition 1
		commit  bool
	}{
		"both have all": {progress.Complete, true},
		"one lacks":     {progress.Lacking, false},
	} {
		t.Run(name, func(t *testing.T) {
			inPromotion(t, true, func(r *promotionRig) {
				r.source.write(0, 7, 4)
				r.source.write(1, 7, 4)
				r.source.coordinate(txnCommit, 5, 2, 0, 1)
				r.settle()
				r.lead("t", 1, 2)
				claim := func(number, epoch int32, v progress.Verdict, cited int) string {
					return fmt.Sprintf(`{"topic":"t","number":%d,"leaderEpoch":%d,"isReady":true,"end":1,"claims":[{"producer":7,"epoch":4,"markerEpoch":5,"first":0,"verdict":%d,"cited":%d}]}`, number, epoch, v, cited)
				}
				began := time.Now()
				r.other = func(context.Context, json.RawMessage) (json.RawMessage, error) {
					time.Sleep(50 * time.Millisecond) // so that it is the last one
					switch since := time.Since(began); {
					case since < time.Second:
						return json.RawMessage(fmt.Sprintf(`{"partitions":[{"topic":"t","number":1,"leaderEpoch":%d}]}`, r.image.Load().Topic("t").Partitions[1].LeaderEpoch)), nil
					case since < 2*time.Second:
						return nil, errors.New("it does not answer")
					}
					p := r.image.Load().Topic("t").Partitions
					return json.RawMessage(fmt.Sprintf(`{"partitions":[%s,%s],"cited":[[{"topic":"t","numbers":[0,1]}]]}`,
						claim(0, p[0].LeaderEpoch-1, progress.Undecided, 0), claim(1, p[1].LeaderEpoch, c.verdict, 1))), nil
				}
				r.promote()
				r.await("partition 0 is promoted, and 1 decided", func() bool { return r.stateOf(0).State == meta.PartitionPromoted && r.stateOf(1).IsDecided })
				want := mirrorEnd{7, 5, c.commit}
				if got, d := r.ends(0), r.stateOf(1).Decisions; !slices.Equal(got, []mirrorEnd{want}) || len(d) != 1 || d[0].Commit != c.commit || d[0].First != 0 {
					t.Errorf("partition 0 has the markers %+v, 1 the decisions %+v", got, d)
				}
			})
		})
	}
}

// TestTopicsArePromotedOneAfterAnother proves that a transaction which readers of a topic have seen, that was promoted before, is whole in one that is promoted later.
func TestTopicsArePromotedOneAfterAnother(t *testing.T) {
	inPromotion(t, true, func(r *promotionRig) {
		r.source.create("u", 1, 2)
		r.mirror("u")
		r.source.write(0, 7, 4)
		r.source.mark(0, 7, 5, true)
		r.source.add("u", 0, func(bu *record.Builder) (record.Batch, error) {
			bu.Transactional = true
			bu.SetProducer(7, 4, 0)
			bu.Append(1, nil, []byte("u"))
			return bu.Build()
		})
		r.source.add("__transaction_state", 0, func(bu *record.Builder) (record.Batch, error) {
			v := kmsg.NewTxnMetadataValue()
			v.Version, v.ProducerID, v.ProducerEpoch, v.State, v.ClientTransactionVersion = 1, 7, 5, txnCommit, 2
			v.Topics = []kmsg.TxnMetadataValueTopic{{Topic: "t", Partitions: []int32{0}}, {Topic: "u", Partitions: []int32{0}}}
			bu.Append(1, (&kmsg.TxnMetadataKey{TransactionalID: "id"}).AppendTo(nil), v.AppendTo(nil))
			return bu.Build()
		})
		r.settle()
		r.promote()
		r.awaitPromoted(nil, nil)
		r.must(&controller.LinksChange{Kind: controller.PromoteMirrors, Topics: []controller.MirrorTopic{{ID: r.image.Load().Topic("u").ID}}})
		r.await("the other one is promoted", func() bool { return r.image.Load().Topic("u").Mirror.State == meta.MirrorPromoted })
		if d := r.image.Load().Topic("u").Partitions[0].Mirror.Decisions; len(d) != 1 || !d[0].Commit || d[0].Outcome != uint8(progress.CommitWhole) {
			t.Errorf("%+v", d)
		}
	})
}

// TestLostDecisionsProveNothing proves that what the source's coordinators have lost in an unclean election is not believed any more, and that what they write then is.
func TestLostDecisionsProveNothing(t *testing.T) {
	for name, c := range map[string]struct {
		again bool
		want  []mirrorEnd
	}{
		"it is lost":              {false, []mirrorEnd{{7, 5, false}}},
		"it is written once more": {true, []mirrorEnd{{7, 5, true}}},
	} {
		t.Run(name, func(t *testing.T) {
			inPromotion(t, true, func(r *promotionRig) {
				r.source.write(0, 7, 4)
				r.source.coordinate(txnOngoing, 4, 2, 0)
				r.source.coordinate(txnCommit, 5, 2, 0)
				r.settle()
				r.source.elect("__transaction_state", 0, 2, 1)
				if r.settle(); c.again {
					r.source.coordinate(txnCommit, 5, 2, 0)
					r.settle()
				}
				r.loseSource()
				r.promote()
				r.awaitPromoted(c.want, nil)
			})
		})
	}
}

// TestManyPartitionsArePromoted proves that a thousand partitions are promoted within seconds, with transactions that are open in all of them, whose claims do not fit into one answer.
func TestManyPartitionsArePromoted(t *testing.T) {
	const partitions = 1000
	inPromotionOf(t, partitions, true, func(r *promotionRig) {
		var all []int32
		for n := range partitions {
			for id := range int64(4) {
				r.source.write(n, id, 4)
			}
			all = append(all, int32(n))
		}
		for id := range int64(3) {
			r.source.coordinateOf(id, txnCommit, 5, 2, all...)
		}
		r.settle()
		r.loseSource()
		question, err := json.Marshal(map[string]any{"link": linkID})
		if err != nil {
			t.Fatal(err)
		}
		if raw, err := r.service.AnswerClaims(question); err != nil || !bytes.Contains(raw, []byte(`"isMore":true`)) || len(raw) > 900<<10 {
			t.Errorf("an answer of %d bytes, %v", len(raw), err)
		}
		began := time.Now()
		r.promote()
		r.awaitPromoted()
		if took := time.Since(began); took > 10*time.Second { // of the bubble's clock
			t.Errorf("it took %v", took)
		}
		want := []mirrorEnd{{0, 5, true}, {1, 5, true}, {2, 5, true}, {3, 5, false}}
		for n := range partitions {
			if got := r.ends(int32(n)); !slices.Equal(got, want) {
				t.Fatalf("partition %d has %+v: %+v", n, got, r.stateOf(n))
			}
		}
	})
}
