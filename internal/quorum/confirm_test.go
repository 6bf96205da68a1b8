package quorum

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
)

// TestConfirmLeading proves that a leader is told that it leads once most voters have said so since it asked, and not while it believes
// so and cannot reach them, as one that stood still while others elected another; and that nobody else is told so.
func TestConfirmLeading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, all := cluster(t, 4, 3, nil)
		ids := raftIDs(all)
		begin := time.Now()
		for range 3 {
			if err := all[0].ConfirmLeading(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(begin); took > 50*time.Millisecond { // of the bubble: no tick was waited for
			t.Errorf("it took %v", took)
		}
		for _, m := range all[1:] {
			if err := m.ConfirmLeading(t.Context()); !errors.Is(err, ErrNotLeader) {
				t.Errorf("node %d: %v", m.cfg.ID, err)
			}
		}
		drop := func(which func(m *pb.Message) bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.drop = which
		}
		drop(func(m *pb.Message) bool { return m.GetTo() == ids[1] || m.GetFrom() == ids[1] })
		if err := all[0].ConfirmLeading(t.Context()); err != nil {
			t.Error("with most of the voters:", err)
		}
		drop(func(m *pb.Message) bool { return m.GetTo() == ids[0] || m.GetFrom() == ids[0] })
		if _, leads := all[0].Leading(); !leads {
			t.Fatal("it does not lead any more")
		}
		if err := all[0].ConfirmLeading(t.Context()); !errors.Is(err, ErrNotLeader) {
			t.Error("without the others:", err)
		}
		drop(nil)
		time.Sleep(5 * time.Second)
		if err := leader(t, all...).ConfirmLeading(t.Context()); err != nil {
			t.Error("when all are there again:", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		_, all := cluster(t, 2, 1, nil)
		if err := all[0].ConfirmLeading(t.Context()); err != nil {
			t.Error("an only voter:", err)
		}
	})
}
