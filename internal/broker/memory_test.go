package broker

import (
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/budget"
	"github.com/leatstream/leat/internal/record"
)

// incompressible is a batch of one record of random bytes.
func incompressible(t *testing.T, size int) record.Batch {
	t.Helper()
	value := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{}).Read(value)
	var b record.Builder
	b.Append(1_700_000_000_000, nil, value)
	batch, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return batch
}

// zstdOf compresses a batch as other programs may, with a window of their choice.
func zstdOf(t *testing.T, b record.Batch, window int) record.Batch {
	t.Helper()
	e, err := zstd.NewWriter(nil, zstd.WithWindowSize(window), zstd.WithSingleSegment(false))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	e.Reset(&out)
	_, err = e.Write(b[record.HeaderLen:])
	if err := errors.Join(err, e.Close()); err != nil {
		t.Fatal(err)
	}
	return setHeader(append(append(record.Batch{}, b[:record.HeaderLen]...), out.String()...), record.Zstd)
}

// setHeader sets the codec, the size and the checksum in a batch's header.
func setHeader(b record.Batch, c record.Codec) record.Batch {
	b[22] = b[22]&^7 | byte(c)
	be.PutUint32(b[8:], uint32(len(b)-12))
	be.PutUint32(b[17:], b.Checksum())
	return b
}

// TestRecompressionFitsTheBudget proves that a request whose batches take many times the
// budget when they are recompressed is stored whole, on several connections at once, and that
// all memory is given back, which the rig checks.
func TestRecompressionFitsTheBudget(t *testing.T) {
	const partitions = 24 // each 0.9 MB; the class has 6 MiB, and one work may have 4.5
	g := newRig(t)
	g.topic("events", partitions, "compression.type", "gzip")
	b := incompressible(t, 900_000)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			req := put("events", 0, -1, nil)
			req.Topics[0].Partitions = nil
			for i := range int32(partitions) {
				p := kmsg.NewProduceRequestTopicPartition()
				p.Partition, p.Records = i, b
				req.Topics[0].Partitions = append(req.Topics[0].Partitions, p)
			}
			c := dial(t, g.addr)
			c.send(req)
			resp, _ := c.receive(req).(*kmsg.ProduceResponse)
			for _, p := range resp.Topics[0].Partitions {
				if p.ErrorCode != 0 {
					t.Errorf("partition %d: code %d", p.Partition, p.ErrorCode)
				}
			}
		})
	}
	wg.Wait()
	c := dial(t, g.addr)
	for i := range int32(partitions) {
		if p := fetched(t, ask[*kmsg.FetchResponse](c, get("events", i, 2))); p.ErrorCode != 0 || len(values(t, p.RecordBatches)) != 1 {
			t.Errorf("partition %d has no third record: code %d", i, p.ErrorCode)
		}
	}
}

// TestRecordsBeyondTheBudget proves that records which need more memory to be checked than
// there ever is are refused with Kafka's code and a sentence that names the setting, and that
// the same records compressed with a smaller window are stored.
func TestRecordsBeyondTheBudget(t *testing.T) {
	g := newRig(t)
	g.topic("events", 1)
	c := dial(t, g.addr)
	var bu record.Builder
	bu.Append(1_700_000_000_000, nil, make([]byte, 20<<20))
	plain, err := bu.Build()
	if err != nil {
		t.Fatal(err)
	}
	p := produced(t, ask[*kmsg.ProduceResponse](c, at(9, put("events", 0, -1, zstdOf(t, plain, 64<<20)))))
	if p.ErrorCode != kerr.MessageTooLarge.Code || p.ErrorMessage == nil || !strings.Contains(*p.ErrorMessage, "leat.work.memory.bytes") {
		t.Errorf("code %d, %v", p.ErrorCode, p.ErrorMessage)
	}
	p = produced(t, ask[*kmsg.ProduceResponse](c, at(9, put("events", 0, -1, zstdOf(t, plain, 8<<20)))))
	if p.ErrorCode != 0 {
		t.Errorf("a window of 8 MiB: code %d, %v", p.ErrorCode, p.ErrorMessage)
	}
}

// TestTimestampLookUpsShareTheBudget proves that many look-ups at once into batches which
// decompress to much more than the budget are all answered.
func TestTimestampLookUpsShareTheBudget(t *testing.T) {
	g := newRig(t)
	g.topic("events", 1)
	c := dial(t, g.addr)
	var bu record.Builder
	bu.Append(1_700_000_000_000, nil, make([]byte, 40<<20))
	bu.Append(1_700_000_000_005, nil, nil)
	plain, err := bu.Build()
	if err != nil {
		t.Fatal(err)
	}
	if p := produced(t, ask[*kmsg.ProduceResponse](c, put("events", 0, -1, zstdOf(t, plain, 8<<20)))); p.ErrorCode != 0 {
		t.Fatalf("code %d", p.ErrorCode)
	}
	var wg sync.WaitGroup
	for i := range int64(12) {
		wg.Go(func() {
			ms, want := 1_700_000_000_000+i%2*5, i%2
			q := kmsg.NewListOffsetsRequestTopicPartition()
			q.Timestamp = ms
			rt := kmsg.NewListOffsetsRequestTopic()
			rt.Topic, rt.Partitions = "events", append(rt.Partitions, q)
			req := kmsg.NewPtrListOffsetsRequest()
			req.SetVersion(7)
			req.Topics = append(req.Topics, rt)
			c := dial(t, g.addr)
			c.send(req)
			resp, _ := c.receive(req).(*kmsg.ListOffsetsResponse)
			if p := resp.Topics[0].Partitions[0]; p.ErrorCode != 0 || p.Offset != want || p.Timestamp != ms {
				t.Errorf("%d: %+v", i, p)
			}
		})
	}
	wg.Wait()
	if u := g.work.Usage(budget.Codec); u.Used != 0 {
		t.Errorf("%+v", u)
	}
}
