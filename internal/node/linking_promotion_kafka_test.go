package node

import (
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// TestPromotionAfterKafka proves, with an Apache Kafka as the source that is killed, and with clients of both versions of transactions, that its coordinators' log is read, and that what it has committed is there after a promotion
// and what was open is not.
func TestPromotionAfterKafka(t *testing.T) {
	k := newKafka(t, 1)
	here := newSite(t, 1)
	if _, err := kadm.NewClient(k.client()).CreateTopic(deadline(t), 1, 1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	feature := kmsg.NewUpdateFeaturesRequestFeatureUpdate()
	feature.Feature, feature.MaxVersionLevel, feature.UpgradeType = "transaction.version", 2, 1
	q := kmsg.NewPtrUpdateFeaturesRequest()
	q.FeatureUpdates = append(q.FeatureUpdates, feature)
	if r, err := q.RequestWith(deadline(t), k.client()); err != nil || r.ErrorCode != 0 {
		t.Fatal(r, err)
	}
	here.linkTo(k.ports, nil)
	for name, opts := range map[string][]kgo.Opt{"newer": nil, "older": {kgo.MaxVersions(kversion.V3_7_0())}} {
		cl := k.client(append(opts, kgo.TransactionalID(name), kgo.TransactionTimeout(10*time.Minute))...)
		for _, value := range []string{"first", "second", "open"} {
			if err := cl.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			if err := cl.ProduceSync(deadline(t), &kgo.Record{Topic: "t", Value: []byte(name + "-" + value)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if value != "open" {
				if err := cl.EndTransaction(deadline(t), kgo.TryCommit); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	here.awaitMirroredFromKafka(k, "t")
	here.awaitClaims("t", 2, 0)
	here.awaitClosedClaims("t", 1) // the last one of the newer client; that of the older one may be what is open, by its epoch
	k.kill(0)
	here.promote("t")
	here.awaitPromoted("t")
	if got := here.valuesOf("t"); !slices.Equal(got, []string{"newer-first", "newer-second", "older-first", "older-second"}) {
		t.Errorf("readers see %v", got)
	}
	if commits, aborts := here.countMarkers("t", 0, 0); commits != 4 || aborts != 2 {
		t.Errorf("%d commits, %d aborts", commits, aborts)
	}
}
