package node

import (
	"path/filepath"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
)

// TestEachStartRaisesLeaderEpochs proves that a node which starts again leads its partitions in
// a new leader epoch, so that a client or a replica that knows the old one can tell that the
// leader may have lost records that were not durable.
func TestEachStartRaisesLeaderEpochs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	for life := range int32(3) {
		n := start(t, Config{Data: dir})
		ctx := deadline(t)
		cl := client(t, n)
		adm := kadm.NewClient(cl)
		if life == 0 {
			if _, err := adm.CreateTopic(ctx, 2, 1, nil, "t"); err != nil {
				t.Fatal(err)
			}
		}
		topics, err := adm.ListTopics(ctx, "t")
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range topics["t"].Partitions {
			if p.LeaderEpoch != life {
				t.Errorf("life %d: partition %d has leader epoch %d", life, p.Partition, p.LeaderEpoch)
			}
		}
		cl.Close()
		stop(t, n)
	}
}
