package controller

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/leatstream/leat/internal/meta"
)

// TestClusterComesBeforeClients proves that a command of the cluster, such as a heartbeat, has its turn
// before all commands of clients that wait, and that what was committed is told before these are decided.
func TestClusterComesBeforeClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, ctl := newGate(t)
		made := create(t.Context(), ctl, "t") // its proposal is held
		const many = 100
		var decided []string // its owner is who has the turn
		pending, release := 0, make(chan struct{})
		run := func(by origin, name string, wait <-chan struct{}) {
			go func() {
				_ = ctl.runCommand(context.Background(), by, func(*meta.Image) []byte {
					<-wait
					decided = append(decided, name)
					if name == "client" && ctl.inFlight != nil {
						pending++
					}
					return nil
				})
			}()
			synctest.Wait()
		}
		over := make(chan struct{})
		close(over)
		run(ofClients, "holder", release)
		for range many {
			run(ofClients, "client", over)
		}
		run(ofCluster, "cluster", over)
		g.pass <- nil
		synctest.Wait()
		close(release)
		synctest.Wait()
		made.check(t, "the topic", nil, 0)
		if len(decided) != many+2 || decided[1] != "cluster" {
			t.Errorf("the first of %d decisions: %v", len(decided), decided[:2])
		}
		if pending != 0 {
			t.Errorf("%d commands of clients were decided before a committed proposal was told", pending)
		}
	})
}
