package quorum

import (
	"errors"
	"testing"
)

// TestSoleVoterDiesAfterAChange proves, with many seeds, that a quorum which was told that it has three voters
// instead of one goes on without the one that was there before, though that one is lost for good at this moment, and with it
// all messages that it had under way.
func TestSoleVoterDiesAfterAChange(t *testing.T) {
	for seed := range uint64(100) {
		s := newSim(t, 2*seed) // of three nodes
		s.calm, s.target, s.delay = true, []int{0, 1, 2}, 1+int(seed%10)
		old, acked := s.nodes[0], -1
		old.onChanged = func() {
			old.isLost, acked = true, len(s.acked)
			old.left = old.disk.KillClone(nil)
			old.restartLater()
			old.startAt = simSteps
		}
		for ; s.now < simSteps && (acked < 0 || len(s.acked) < acked+10); s.now++ {
			s.step()
			if len(s.errs) > 0 {
				t.Fatalf("seed %d, at %d: %v", seed, s.now, errors.Join(s.errs...))
			}
		}
		switch {
		case acked < 0:
			t.Fatalf("seed %d: the voters do not change", seed)
		case len(s.acked) < acked+10:
			t.Errorf("seed %d: the two voters that are left elect no leader", seed)
		}
	}
}
