package interop

import (
	"encoding/binary"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestOldSources proves that a link mirrors brokers of before KRaft byte for byte: batches of all codecs and kinds of producers, with the gaps of compaction, with the times of the broker; that times find the same
// offsets on both sides; that it goes on after the broker was killed, and follows the start of the log; and that topics of the oldest formats fail with a reason, and go on when they are mended.
func TestOldSources(t *testing.T) {
	t.Parallel()
	needsSources(t)
	onOldVersions(t, func(t *testing.T, v *oldVersion) {
		t.Helper()
		k := startOldKafka(t, v, 1, "zookeeper.session.timeout.ms=2000")
		from := time.Now().Add(-2 * time.Hour).Truncate(time.Second)
		createAt(t, k.addrs(), "orders", 2, 1, nil)
		createAt(t, k.addrs(), "stamped", 1, 1, map[string]string{"message.timestamp.type": "LogAppendTime"})
		createAt(t, k.addrs(), "old", 1, 1, map[string]string{"message.format.version": "0.10.2"})
		k.writeHoles("holes", from)
		writeKinds(t, k.addrs(), "orders", 2, from)
		writeKinds(t, k.addrs(), "stamped", 1, from)
		k.writePlain("old")

		l := linkNorth(t, k.addrs())
		l.awaitCopied("orders", "stamped", "holes")
		failed := l.awaitState("old", "FAILED")
		if !strings.Contains(failed.Reason, "format") {
			t.Errorf("%+v", failed)
		}
		l.compareTimes("orders", 2, from, from.Add(time.Hour))
		l.compareTimes("stamped", 1, from, time.Now())
		l.compareTimes("holes", 1, from, from.Add(time.Hour))

		k.brokers[0].kill(t)
		k.startAgain(0)
		writeKinds(t, k.addrs(), "orders", 2, from.Add(time.Hour))
		adm := kadm.NewClient(k.client())
		awaitTopic(t, adm, "stamped", 1)
		if _, err := adm.DeleteRecords(t.Context(), kadm.Offsets{"stamped": {0: {Topic: "stamped", At: 77}}}); err != nil {
			t.Fatal(err)
		}
		l.awaitCopied("orders", "stamped", "holes")
		l.compareTimes("orders", 2, from, from.Add(2*time.Hour))
		l.compareTimes("stamped", 1, from, time.Now())
	})
}

// writePlain writes some records as producers of before Kafka 0.11 do.
func (k *oldKafka) writePlain(topic string) {
	k.t.Helper()
	cl := quickClient(k.t, k.addrs(), kgo.DisableIdempotentWrite())
	if err := cl.ProduceSync(k.t.Context(), &kgo.Record{Topic: topic, Key: []byte("k"), Value: []byte("v")}, &kgo.Record{Topic: topic, Value: []byte("w")}).FirstErr(); err != nil {
		k.t.Fatal(err)
	}
}

// writeHoles makes a topic out of which the broker has compacted records, and which is not compacted any more.
func (k *oldKafka) writeHoles(topic string, from time.Time) {
	k.t.Helper()
	createAt(k.t, k.addrs(), topic, 1, 1, map[string]string{"cleanup.policy": "compact", "segment.bytes": "8192", "min.cleanable.dirty.ratio": "0.01"})
	writeKinds(k.t, k.addrs(), topic, 1, from)
	cl := k.client()
	eventually(k.t, sourceTimeout, "Kafka compacts "+topic, func() bool {
		time.Sleep(50 * time.Millisecond)
		holes, end := 0, int64(0)
		for _, b := range batchesOf(k.t, cl, topic, 0) {
			base := int64(binary.BigEndian.Uint64(b))
			if base > end {
				holes++
			}
			end = base + int64(binary.BigEndian.Uint32(b[23:])) + 1
		}
		return holes > 3
	})
	k.configure(topic, map[string]string{"segment.bytes": "8192"})
	k.brokers[0].kill(k.t) // so that its cleaner is not at work any more
	k.startAgain(0)
}

// TestOldSourcesChange proves what becomes of mirrors of old brokers whose topics change while the link is paused: a topic of the same name that was made again, and has more records by now, halts; one out of which
// retention has taken more has a gap of exactly that, and goes on behind it when a person accepts that; and one that is mended goes on after it was FAILED.
func TestOldSourcesChange(t *testing.T) {
	needsSources(t)
	t.Parallel()
	onOldVersions(t, func(t *testing.T, v *oldVersion) {
		t.Helper()
		k := startOldKafka(t, v, 1, "zookeeper.session.timeout.ms=2000")
		from := time.Now().Add(-2 * time.Hour).Truncate(time.Second)
		createAt(t, k.addrs(), "again", 1, 1, nil)
		createAt(t, k.addrs(), "short", 1, 1, map[string]string{"segment.bytes": "8192"})
		createAt(t, k.addrs(), "old", 1, 1, map[string]string{"message.format.version": "0.10.2"})
		createAt(t, k.addrs(), "gone", 1, 1, nil)
		for _, topic := range []string{"again", "short", "gone"} {
			writeKinds(t, k.addrs(), topic, 1, from)
		}
		k.writePlain("old")
		l := linkNorth(t, k.addrs())
		l.awaitCopied("again", "short", "gone")
		l.awaitState("old", "FAILED")
		before := limits(t, l.there, "short")[0]

		l.verb("pause", "north")
		adm := kadm.NewClient(k.client())
		if r, err := adm.DeleteTopics(t.Context(), "again", "gone"); err != nil || r.Error() != nil {
			t.Fatal(r, err)
		}
		eventually(t, sourceTimeout, "Kafka has deleted the topic, and made another one", func() bool {
			time.Sleep(50 * time.Millisecond)
			_, err := adm.CreateTopic(t.Context(), 1, 1, nil, "again")
			return err == nil
		})
		awaitTopic(t, adm, "again", 1)
		writeKinds(t, k.addrs(), "again", 1, from.Add(time.Minute))
		writeKinds(t, k.addrs(), "again", 1, from.Add(time.Minute))
		writeKinds(t, k.addrs(), "short", 1, from)
		k.configure("short", map[string]string{"segment.bytes": "8192", "retention.bytes": "20000"})
		var after [2]int64
		eventually(t, sourceTimeout, "retention has overtaken the link", func() bool {
			time.Sleep(50 * time.Millisecond)
			after = limits(t, l.there, "short")[0]
			return after[0] > before[1]
		})
		k.configure("short", map[string]string{"segment.bytes": "8192"})
		l.verb("resume", "north")
		l.awaitState("again", "SOURCE_RECREATED")
		l.awaitState("gone", "SOURCE_DELETED")
		gap := l.awaitState("short", "GAP")
		after = limits(t, l.there, "short")[0] // another segment may have gone before the retention was taken back
		if gap.From != before[1] || gap.To != after[0] {
			t.Errorf("%+v, and it ended at %d here, and begins at %d there", gap, before[1], after[0])
		}
		l.verb("skip", "north", "short", "0")
		l.awaitCopied("short")
		writeKinds(t, k.addrs(), "short", 1, from)
		l.awaitCopied("short")

		k.configure("old", nil)
		k.brokers[0].kill(t) // so that it knows of that when it is there again
		k.startAgain(0)
		awaitTopic(t, adm, "old", 1)
		k.writePlain("old")
		l.verb("skip", "north", "old", "0")
		l.awaitState("old", "FAILED") // what it has from before is as it was
		if _, err := adm.DeleteRecords(t.Context(), kadm.Offsets{"old": {0: {Topic: "old", At: 2}}}); err != nil {
			t.Fatal(err)
		}
		said := ""
		eventually(t, sourceTimeout, "old mirrors again", func() bool {
			m := l.mirrors("old")
			if len(m) == 1 && (m[0].State == "FAILED" || m[0].State == "GAP") {
				said += l.verb("skip", "north", "old", "0")
			}
			return slices.Equal(limits(t, l.there, "old"), limits(t, l.near, "old"))
		})
		contains(t, said, "the offsets 0 to 1 are missing in partition 0 of old")
		l.awaitCopied("old")
	})
}

// configure gives a topic all of its configs.
func (k *oldKafka) configure(topic string, configs map[string]string) {
	k.t.Helper()
	var all []kadm.AlterConfig
	for name, value := range configs {
		all = append(all, kadm.AlterConfig{Name: name, Value: &value})
	}
	if r, err := kadm.NewClient(k.client()).AlterTopicConfigsState(k.t.Context(), all, topic); err != nil || r[0].Err != nil {
		k.t.Fatal(r, err)
	}
}

// TestOldSourcesElect proves, with two brokers, that a mirror goes on when another one leads, and that it cuts what an unclean election has lost.
func TestOldSourcesElect(t *testing.T) {
	needsSources(t)
	t.Parallel()
	onOldVersions(t, func(t *testing.T, v *oldVersion) {
		t.Helper()
		k := startOldKafka(t, v, 2)
		from := time.Now().Add(-2 * time.Hour).Truncate(time.Second)
		createAt(t, k.addrs(), "orders", 1, 2, map[string]string{"unclean.leader.election.enable": "true", "min.insync.replicas": "1"})
		eventually(t, sourceTimeout, "two replicas are in sync", func() bool {
			_, n := k.partition(k.client(), "orders")
			return n == 2
		})
		leader, _ := k.partition(k.client(), "orders")
		first, second := leader, 3-leader
		writeKinds(t, k.addrs(), "orders", 1, from)
		l := linkNorth(t, k.addrs())
		l.awaitCopied("orders")

		k.brokers[first-1].signal(t, syscall.SIGTERM) // so that it hands over what it leads
		k.awaitPartition("orders", second, 1)
		k.brokers[first-1].end()
		l.produce("orders", 100, "by the second leader")
		l.awaitCopied("orders")
		k.startAgain(int(first - 1))
		k.awaitPartition("orders", second, 2)

		k.brokers[first-1].kill(t)
		k.awaitPartition("orders", second, 1)
		l.produce("orders", 100, "lost")
		l.awaitCopied("orders")
		lost := limits(t, l.near, "orders")[0][1]
		k.brokers[second-1].kill(t)
		k.startAgain(int(first - 1))
		k.awaitPartition("orders", first, 1)
		if now := limits(t, l.there, "orders")[0][1]; now >= lost {
			t.Fatalf("nothing was lost: it ends at %d, and ended at %d", now, lost)
		}
		l.produce("orders", 150, "instead of what is lost") // so that it ends behind what is lost
		l.awaitCopied("orders")
		k.startAgain(int(second - 1))
		k.awaitPartition("orders", first, 2)
		l.produce("orders", 10, "by both")
		l.awaitCopied("orders")
	})
}

// produce writes records to the source, one by one in batches.
func (l *linked) produce(topic string, records int, value string) {
	l.t.Helper()
	for range records {
		if err := l.there.ProduceSync(l.t.Context(), &kgo.Record{Topic: topic, Value: []byte(value)}).FirstErr(); err != nil {
			l.t.Fatal(err)
		}
	}
}
