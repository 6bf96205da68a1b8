package txn

import (
	"encoding/hex"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group/memory"
)

// kafkas are values that Apache Kafka's TransactionLog has written, with the state that each is of. 4.3.1
// and 4.4.0 write the same bytes.
func kafkas() []struct {
	name  string
	value string
	state state
} {
	orders := partitionSet{{"orders", []int32{3}}}
	return []struct {
		name  string
		value string
		state state
	}{
		{
			"a new producer", "0001000000000000000700000000ea60000000000000000005dcffffffffffffffff0100080000000000000007",
			state{producer: 7, previous: 7, next: -1, last: -1, timeout: 60_000, start: -1, updated: 1500},
		},
		{
			"ongoing, older flow", "0001000000000000000700000000ea600102076f726465727302000000030000000000000007d000000000000007d00100080000000000000007",
			state{producer: 7, previous: 7, next: -1, last: -1, status: ongoing, timeout: 60_000, start: 2000, updated: 2000, partitions: orders},
		},
		{
			"ongoing", "0001000000000000000700000000ea600102076f726465727302000000030000000000000007d000000000000007d0020008000000000000000702020002",
			state{producer: 7, previous: 7, next: -1, last: -1, status: ongoing, version: 2, timeout: 60_000, start: 2000, updated: 2000, partitions: orders},
		},
		{
			"prepared, older flow", "0001000000000000000700000000ea600202076f72646572730200000003000000000000000bb800000000000007d00100080000000000000007",
			state{producer: 7, previous: 7, next: -1, last: -1, status: prepareCommit, timeout: 60_000, start: 2000, updated: 3000, partitions: orders},
		},
		{
			"prepared", "0001000000000000000700010000ea600202076f72646572730200000003000000000000000bb800000000000007d0020008000000000000000702020002",
			state{producer: 7, epoch: 1, previous: 7, next: -1, last: 0, status: prepareCommit, version: 2, timeout: 60_000, start: 2000, updated: 3000, partitions: orders},
		},
		{
			"complete", "0001000000000000000700010000ea6004010000000000000fa000000000000007d0020008000000000000000702020002",
			state{producer: 7, epoch: 1, previous: 7, next: -1, last: 0, status: completeCommit, version: 2, timeout: 60_000, start: 2000, updated: 4000},
		},
		{
			"prepared at the last epoch", "000100000000000000077fff0000ea600302076f72646572730200000003000000000000000bb800000000000007d00300080000000000000007010800000000000003ef02020002",
			state{producer: 7, epoch: 32767, previous: 7, next: 1007, last: 32766, status: prepareAbort, version: 2, timeout: 60_000, start: 2000, updated: 3000, partitions: orders},
		},
		{
			"complete after the last epoch", "000100000000000003ef00000000ea6005010000000000000fa000000000000007d0020008000000000000000702020002",
			state{producer: 1007, previous: 7, next: -1, last: 32766, status: completeAbort, version: 2, timeout: 60_000, start: 2000, updated: 4000},
		},
		{
			"another producer id", "000100000000000003f000000000ea6000000000000000001388ffffffffffffffff0100080000000000000007",
			state{producer: 1008, previous: 7, next: -1, last: -1, timeout: 60_000, start: -1, updated: 5000},
		},
	}
}

func fromHex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRecordsAreKafkas proves that records have the bytes that Kafka writes, and that both are read as the
// same state. Kafka's own fields are all that Leat writes in these states.
func TestRecordsAreKafkas(t *testing.T) {
	const key = "0000000574782dc3a9"
	if got := hex.EncodeToString(appendKey(nil, "tx-é")); got != key {
		t.Errorf("the key is %s, Kafka writes %s", got, key)
	}
	if id, err := decodeKey(fromHex(t, key)); err != nil || id != "tx-é" {
		t.Errorf("%q %v", id, err)
	}
	for _, k := range kafkas() {
		if got := hex.EncodeToString(appendValue(nil, &k.state)); got != k.value {
			t.Errorf("%s: Leat writes\n%s, Kafka\n%s", k.name, got, k.value)
		}
		got, err := decodeValue(fromHex(t, k.value))
		if err != nil {
			t.Errorf("%s: %v", k.name, err)
		}
		if diff := cmp.Diff(k.state, got, cmp.AllowUnexported(state{})); diff != "" {
			t.Errorf("%s (-want +read):\n%s", k.name, diff)
		}
	}
	// Version 0, which Kafka writes with transaction.version 0.
	for value, want := range map[string]state{
		"0000000000000000000700000000ea6000ffffffff00000000000005dcffffffffffffffff": {
			producer: 7, previous: -1, next: -1, last: -1, timeout: 60_000, start: -1, updated: 1500,
		},
		"0000000000000000000700000000ea60020000000100066f726465727300000001000000030000000000000bb800000000000007d0": {
			producer: 7, previous: -1, next: -1, last: -1, status: prepareCommit, timeout: 60_000, start: 2000, updated: 3000,
			partitions: partitionSet{{"orders", []int32{3}}},
		},
	} {
		got, err := decodeValue(fromHex(t, value))
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(state{})); err != nil || diff != "" {
			t.Errorf("version 0: %v (-want +read):\n%s", err, diff)
		}
	}
}

// TestTransitionsAreKafkas proves that the changes of a state are those that Kafka has recorded.
func TestTransitionsAreKafkas(t *testing.T) {
	k := kafkas()
	orders := partitionSet{{"orders", []int32{3}}}
	idle := newState(7, 60_000, 1500)
	atEnd := k[2].state
	atEnd.epoch = exhausted
	for i, got := range []state{
		idle, idle.extended(orders, sameEpoch, 2000), idle.extended(orders, bumpEpoch, 2000),
		k[1].state.prepared(true, sameEpoch, noProducer, 3000), k[2].state.prepared(true, bumpEpoch, noProducer, 3000),
		k[4].state.completed(4000), atEnd.prepared(false, bumpEpoch, 1007, 3000), k[6].state.completed(4000),
		idle.rotated(1008, noEpoch, 60_000, 5000),
	} {
		if diff := cmp.Diff(k[i].state, got, cmp.AllowUnexported(state{})); diff != "" {
			t.Errorf("%s (-Kafka +Leat):\n%s", k[i].name, diff)
		}
	}
}

// TestRecordsOfNewerVersions proves that a value which this version does not understand, but must, is
// refused with ErrNewer. Keys of other kinds are skipped, as in Kafka, and so are tagged fields.
func TestRecordsOfNewerVersions(t *testing.T) {
	value := func(change func(v *kmsg.TxnMetadataValue)) []byte {
		v := kmsg.NewTxnMetadataValue()
		v.Version, v.ProducerID, v.State = 1, 7, 1
		change(&v)
		return v.AppendTo(nil)
	}
	key := appendKey(nil, "x")
	for name, c := range map[string]struct {
		r                      coord.Record
		understood, needsNewer bool
	}{
		"a version":    {coord.Record{Key: key, Value: []byte{0, 2, 0, 0, 0, 0, 0, 0, 0, 7}}, false, true},
		"a state":      {coord.Record{Key: key, Value: value(func(v *kmsg.TxnMetadataValue) { v.State = 8 })}, false, true},
		"a flow":       {coord.Record{Key: key, Value: value(func(v *kmsg.TxnMetadataValue) { v.ClientTransactionVersion = 3 })}, false, true},
		"a dead id":    {coord.Record{Key: key, Value: value(func(v *kmsg.TxnMetadataValue) { v.State = 6 })}, false, false},
		"no epoch":     {coord.Record{Key: key, Value: value(func(v *kmsg.TxnMetadataValue) { v.ProducerEpoch = -1 })}, false, false},
		"no producer":  {coord.Record{Key: key, Value: value(func(v *kmsg.TxnMetadataValue) { v.ProducerID = -1 })}, false, false},
		"cut short":    {coord.Record{Key: key, Value: value(func(*kmsg.TxnMetadataValue) {})[:20]}, false, false},
		"a kind":       {coord.Record{Key: []byte{0, 1, 0, 1, 'x'}, Value: value(func(*kmsg.TxnMetadataValue) {})}, false, false},
		"an empty key": {coord.Record{Value: value(func(*kmsg.TxnMetadataValue) {})}, false, false},
		"a tagged field": {coord.Record{Key: key, Value: value(func(v *kmsg.TxnMetadataValue) {
			v.NextProducerEpoch = 5
			v.UnknownTags.Set(77, []byte("new"))
		})}, true, false},
	} {
		m := newTestMachine()
		err := m.Apply(coord.NewStep(time.UnixMilli(0)), c.r)
		if (err == nil) != c.understood || errors.Is(err, coord.ErrNewer) != c.needsNewer {
			t.Errorf("%s: %v", name, err)
		}
		if len(m.ids) > 0 != c.understood {
			t.Errorf("%s: %d ids", name, len(m.ids))
		}
	}
}

// TestStateSurvivesRecord proves that a record has all of a state.
func TestStateSurvivesRecord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		st := state{
			producer: rapid.Int64Range(0, 1<<62).Draw(t, "producer"), epoch: rapid.Int16Range(0, 32767).Draw(t, "epoch"),
			previous: rapid.Int64Range(-1, 1<<62).Draw(t, "previous"), next: rapid.Int64Range(-1, 1<<62).Draw(t, "next"),
			last: rapid.Int16Range(-1, 32767).Draw(t, "last"), status: status(rapid.IntRange(0, 5).Draw(t, "status")),
			version: rapid.SampledFrom([]int16{sameEpoch, bumpEpoch}).Draw(t, "version"), timeout: rapid.Int32().Draw(t, "timeout"),
			start: rapid.Int64().Draw(t, "start"), updated: rapid.Int64().Draw(t, "updated"),
		}
		if !st.isIdle() {
			var list []TopicPartitions
			for range rapid.IntRange(0, 5).Draw(t, "topics") {
				list = append(list, TopicPartitions{
					rapid.SampledFrom([]string{"a", "b", "c", "dd"}).Draw(t, "topic"),
					rapid.SliceOf(rapid.Int32Range(-2, 9)).Draw(t, "partitions"),
				})
			}
			st.partitions = makeSet(list)
			if n := st.partitions.countPartitions(); n == 0 {
				st.partitions = nil
			}
		}
		got, err := decodeValue(appendValue(nil, &st))
		if err != nil {
			t.Fatal(err)
		}
		if len(got.partitions) == 0 {
			got.partitions = nil
		}
		if diff := cmp.Diff(st, got, cmp.AllowUnexported(state{})); diff != "" {
			t.Fatal(diff)
		}
	})
}

// TestPartitionSet proves that a set has what a map has.
func TestPartitionSet(t *testing.T) {
	type partition struct {
		topic string
		n     int32
	}
	rapid.Check(t, func(t *rapid.T) {
		var set partitionSet
		want := map[partition]bool{}
		for range rapid.IntRange(0, 30).Draw(t, "steps") {
			p := partition{rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "topic"), rapid.Int32Range(0, 4).Draw(t, "n")}
			if rapid.Bool().Draw(t, "add") {
				before, n := set, set.countPartitions()
				set = set.union(partitionSet{{p.topic, []int32{p.n}}})
				if before.countPartitions() != n {
					t.Fatal("a union changes the set")
				}
				want[p] = true
			} else {
				set = set.dropPartition(p.topic, p.n)
				delete(want, p)
			}
			if set.countPartitions() != len(want) {
				t.Fatalf("%v has %d partitions, want %v", set, set.countPartitions(), want)
			}
			for _, topic := range []string{"a", "b", "c"} {
				for n := range int32(5) {
					if set.has(topic, n) != want[partition{topic, n}] {
						t.Fatalf("%v has %s/%d: %v", set, topic, n, set.has(topic, n))
					}
				}
			}
		}
	})
}

func newTestMachine() *Machine {
	return New(Config{
		IDs: &blockOfIDs{1000, 2000}, Memory: memory.NewTransactionBudget(slog.New(slog.DiscardHandler), 0), Send: func(Decision) {},
	}, new(coord.Timers))
}

// FuzzRecord proves that no record can harm a machine: neither its key nor its value.
func FuzzRecord(f *testing.F) {
	for _, k := range kafkas() {
		b, err := hex.DecodeString(k.value)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(appendKey(nil, "x"), b)
	}
	f.Add([]byte{0, 1}, []byte{})
	f.Add(appendKey(nil, "x"), []byte("\x00\x01\x00\x00\x00\x00\x00\x00\x00\a\x00\x00\x00\x00\xea`\x02\x02\aers\x02\x00\x00\x00\xff\xff\xff\x7f\x00\x00\x00\x00\v\xb8\xb8")) // it announces more tagged fields than there can be
	f.Add(appendKey(nil, ""), []byte(nil))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		m := newTestMachine()
		s := coord.NewStep(time.UnixMilli(5000))
		if err := m.Apply(s, coord.Record{Key: key, Value: value}); err != nil {
			return
		}
		m.Loaded(s)
		for id, tx := range m.ids {
			if again, err := decodeValue(appendValue(nil, &tx.state)); err != nil || !cmp.Equal(again, tx.state, cmp.AllowUnexported(state{})) {
				t.Fatalf("%+v is read as %+v, %v", tx.state, again, err)
			}
			m.Describe(s, id)
			tx.timer.Fire(s)
			s.Run(m, 10, nil)
			s = coord.NewStep(time.UnixMilli(6000))
			for _, p := range tx.partitions.copyLists() {
				for _, n := range p.Partitions {
					m.ReportMarkers(s, id, tx.end, []MarkerResult{{p.Topic, n, MarkerWritten}})
				}
			}
			s.Run(m, 20, nil)
			if tx.isEnding() && len(tx.partitions) > 0 {
				t.Fatalf("%v after all results", tx.status)
			}
		}
		m.Unload(coord.NewStep(time.UnixMilli(7000)))
		if n := m.cfg.Memory.Used(); n != 0 {
			t.Fatalf("%d bytes are held after the end", n)
		}
	})
}
