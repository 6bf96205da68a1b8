package main_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestLinkFromEarlierVersion proves that a cluster which mirrors can be upgraded first: its source is of the previous version, which knows nothing of links. All records are here with their offsets and epochs, also after the source was
// started again, and when it is upgraded in its turn.
func TestLinkFromEarlierVersion(t *testing.T) {
	if testing.Short() {
		t.Skip("the previous version is built")
	}
	t.Parallel()
	previous := buildPrevious(t)
	source := &machine{number: 1, out: &output{}, addr: keptAddr(t), disk: &disk{dir: t.TempDir()}}
	launchAs(t, source, previous)
	source.p.awaitReady(t)
	hereData, dir := t.TempDir(), t.TempDir()
	here := up(t, hereData)
	tryVerb(t, dir, "", "topic create orders --partitions 2 --bootstrap "+source.addr).expect(t, 0)
	write := func() {
		t.Helper()
		for i, codec := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.ZstdCompression()} {
			cl := source.p.client(t, kgo.ProducerBatchCompression(codec))
			for k := range 50 {
				if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Key: fmt.Append(nil, k), Value: bytes.Repeat([]byte{byte('a' + i)}, 1000)}).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	compare := func(records int, when string) {
		t.Helper()
		want := recordsOf(t, source.p, "orders", records)
		if got := recordsOf(t, here, "orders", records); got != want {
			t.Errorf("%s there is\n%s\nand here\n%s", when, want, got)
		}
	}
	write()
	tryVerb(t, dir, "", "link create north --from "+source.addr+" --data "+hereData).expect(t, 0)
	compare(100, "at first")
	source.p.stop(t)
	launchAs(t, source, previous)
	source.p.awaitReady(t)
	write()
	compare(200, "after a restart")
	source.p.stop(t)
	launchAs(t, source, leat)
	source.p.awaitReady(t)
	write()
	compare(300, "after the upgrade")
}

// recordsOf awaits so many records of a topic, and tells of all of them, with their offsets and epochs.
func recordsOf(t *testing.T, p *process, topic string, records int) string {
	t.Helper()
	adm := kadm.NewClient(p.client(t))
	eventually(t, fmt.Sprintf("%d records of %s are at %s", records, topic, p.addr), func() bool {
		ends, err := adm.ListEndOffsets(t.Context(), topic)
		sum := int64(0)
		ends.Each(func(o kadm.ListedOffset) { sum += max(o.Offset, 0) })
		return err == nil && sum == int64(records)
	})
	cl := p.client(t, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	all := map[int32]*strings.Builder{0: {}, 1: {}}
	for n := 0; n < records; {
		fs := cl.PollFetches(t.Context())
		if err := fs.Err(); err != nil {
			t.Fatal(err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			n++
			fmt.Fprintf(all[r.Partition], "%d-%d epoch %d at %v %s %.3s\n", r.Partition, r.Offset, r.LeaderEpoch, r.Timestamp, r.Key, r.Value)
		})
	}
	return all[0].String() + all[1].String()
}
