package replica

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/storage"
)

// transactionalBatch is a batch of a source, of a producer's transaction.
func transactionalBatch(tb testing.TB, at record.Offset, e record.Epoch, producer int64, epoch int16, value string) []byte {
	tb.Helper()
	bu := record.Builder{LeaderEpoch: e, Transactional: true}
	bu.SetProducer(producer, epoch, 0)
	bu.Append(1, nil, []byte(value))
	b, err := bu.Build()
	if err != nil {
		tb.Fatal(err)
	}
	b = slices.Clone(b)
	b.SetBaseOffset(at)
	return b
}

// sourceMarker is a marker of a source, of a coordinator of an epoch.
func sourceMarker(tb testing.TB, at record.Offset, e record.Epoch, producer int64, epoch int16, m record.Marker) []byte {
	tb.Helper()
	b, err := record.BuildMarker(1, producer, epoch, m)
	if err != nil {
		tb.Fatal(err)
	}
	b = slices.Clone(b)
	b.SetBaseOffset(at)
	b.SetLeaderEpoch(e)
	return b
}

// TestTransactionsEndAtAPromotion proves that nothing of the source comes into a partition that is being promoted; that its leader ends open transactions when it is decided how, and not before, in a leader epoch of its own
// that its followers have, too, whatever epochs of coordinators the source has come to; and that the last stable offset is behind the markers then.
func TestTransactionsEndAtAPromotion(t *testing.T) {
	runCluster(t, 3, func(c *cluster) {
		c.mirror("t", 1, 2, 3)
		c.raiseEpoch("t", 7)
		c.awaitNewestLeader("t")
		p := c.leader("t").replica("t")
		for i, b := range [][]byte{
			transactionalBatch(t, 0, 7, 40, 2, "before"), sourceMarker(t, 1, 7, 40, 2, record.Marker{Commit: true, CoordinatorEpoch: 90}),
			transactionalBatch(t, 2, 7, 40, 2, "open"), transactionalBatch(t, 3, 7, 41, 5, "open, too"),
		} {
			c.eventually("it may have transactions", func() bool {
				err := p.AppendMirror(p.Leadership(), b)
				if err != nil && !errors.Is(err, storage.ErrUnprepared) {
					t.Fatal(i, err)
				}
				return err == nil
			})
		}
		p.Commit()
		e := p.Leadership().Epoch
		if _, _, err := EndOfSource(p, e); !errors.Is(err, ErrNotMirroring) {
			t.Errorf("the end of a source that goes on: %v", err)
		}
		c.changeMirror("t", func(m *meta.PartitionMirror) { m.State = meta.PartitionPromoting })
		p = c.awaitNewestLeader("t").replica("t")
		if err := p.AppendMirror(p.Leadership(), transactionalBatch(t, 4, 7, 41, 5, "late")); !errors.Is(err, ErrNotMirroring) {
			t.Errorf("the source goes on: %v", err)
		}
		e = p.Leadership().Epoch
		c.eventually("all is committed", func() bool {
			end, isCommitted, err := EndOfSource(p, e)
			return err == nil && isCommitted && end == 4
		})
		open, err := ListOpenTransactions(p)
		if err != nil || len(open) != 2 || open[0] != (OpenTransaction{40, 2, 2, 90}) || open[1] != (OpenTransaction{41, 5, 3, -1}) {
			t.Fatal(open, err)
		}
		list := []Ending{{open[0], 2, true}, {open[1], 6, false}}
		if _, err := EndTransactions(p, e, list); !errors.Is(err, ErrNotMirroring) {
			t.Errorf("markers of which nothing is decided: %v", err)
		}
		c.changeMirror("t", func(m *meta.PartitionMirror) { m.IsDecided = true })
		p = c.awaitNewestLeader("t").replica("t")
		if _, err := EndTransactions(p, e, list); !errors.Is(err, ErrNotLeader) {
			t.Errorf("markers of an earlier epoch: %v", err)
		}
		e = p.Leadership().Epoch
		if end, err := EndTransactions(p, e, list); err != nil || end != 6 {
			t.Fatal(end, err)
		}
		p.Commit()
		if open, err = ListOpenTransactions(p); err != nil || len(open) != 0 {
			t.Errorf("%+v, %v", open, err)
		}
		c.eventually("the markers are committed everywhere", func() bool {
			return !slices.ContainsFunc(c.nodes, func(m *member) bool { return m.replica("t").HighWatermark() != 6 })
		})
		for _, m := range c.nodes {
			log := m.replica("t").log.Load()
			stable, err := storage.StableEnd(log, 6)
			aborted, err2 := storage.AbortedTransactions(log, 0, 6)
			if err != nil || err2 != nil || stable != 6 || len(aborted) != 1 || aborted[0].Producer != 41 || fmt.Sprint(m.epochsOf("t")) != fmt.Sprint([]record.Epoch{7, 7, 7, 7, e, e}) {
				t.Errorf("node %d: it is stable up to %d, %v, aborted are %+v, %v, epochs %v", m.id, stable, err, aborted, err2, m.epochsOf("t"))
			}
		}
	})
}
