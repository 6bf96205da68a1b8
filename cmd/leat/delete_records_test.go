//go:build unix

package main_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/leatstream/leat/internal/record"
)

// TestRetryIsKnownAfterDeleteRecordsAndKill proves that an idempotent producer's batch is not
// stored a second time if it is sent again after a DeleteRecords and a kill -9.
func TestRetryIsKnownAfterDeleteRecordsAndKill(t *testing.T) {
	dir, addr := t.TempDir(), freeAddr(t)
	p := upAt(t, dir, addr)
	cl := p.client(t, kgo.RetryTimeout(20*time.Second), kgo.MaxVersions(kversion.V3_7_0()))
	adm := kadm.NewClient(cl)
	if _, err := adm.CreateTopic(t.Context(), 1, 1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	init, err := kmsg.NewPtrInitProducerIDRequest().RequestWith(t.Context(), cl)
	if err != nil {
		t.Fatal(err)
	}
	send := func(seq int32) int64 {
		var bu record.Builder
		bu.SetProducer(init.ProducerID, init.ProducerEpoch, seq)
		bu.Append(time.Now().UnixMilli(), nil, fmt.Appendf(nil, "%d", seq))
		b, err := bu.Build()
		if err != nil {
			t.Fatal(err)
		}
		req := kmsg.NewPtrProduceRequest()
		req.Version, req.Acks, req.TimeoutMillis = 9, -1, 10_000
		rt := kmsg.NewProduceRequestTopic()
		rt.Topic = "t"
		rp := kmsg.NewProduceRequestTopicPartition()
		rp.Records = b
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		kresp, err := cl.Broker(int(brokerID(t, adm))).RetriableRequest(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		out := kresp.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
		if out.ErrorCode != 0 {
			t.Fatalf("seq %d: code %d", seq, out.ErrorCode)
		}
		return out.BaseOffset
	}
	for i := range int32(3) {
		send(i)
	}
	del := kadm.Offsets{}
	del.AddOffset("t", 0, 3, -1)
	if got, err := adm.DeleteRecords(t.Context(), del); err != nil || got.Error() != nil {
		t.Fatal(err, got)
	}
	p.kill()
	p = launch(t, dir, addr, "--http", "off")
	p.awaitReady(t)
	if at := send(2); at != 2 {
		t.Fatalf("the batch that was acknowledged at offset 2 is stored again at %d", at)
	}
}

func brokerID(t *testing.T, adm *kadm.Client) int32 {
	t.Helper()
	m, err := adm.BrokerMetadata(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return m.Brokers[0].NodeID
}
