package broker

import (
	"errors"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/vfs"
)

// hangingDisk is a disk whose syncs hang while it is held.
type hangingDisk struct {
	hold    atomic.Pointer[chan struct{}]
	waiting atomic.Int32
}

func (s *hangingDisk) judge(op vfs.Op, _ string) error {
	if c := s.hold.Load(); op == vfs.OpSync && c != nil {
		s.waiting.Add(1)
		<-*c
	}
	return nil
}

// TestAcknowledgementsWaitForTheDisk proves that while the disk hangs, neither acks=1 nor
// acks=all is answered, and their records cannot be read. acks=all ends with the client's
// time-out; acks=1 has no time-out, as in Kafka. Both are answered when the disk works again.
func TestAcknowledgementsWaitForTheDisk(t *testing.T) {
	var disk hangingDisk
	g := newRigOn(t, vfs.NewFaulty(vfs.NewMem(), disk.judge), "data")
	g.topic("events", 1)
	c := dial(t, g.addr)
	ask[*kmsg.ProduceResponse](c, put("events", 0, -1, batch(t, "before")))

	hang := make(chan struct{})
	release := sync.OnceFunc(func() {
		disk.hold.Store(nil)
		close(hang)
	})
	t.Cleanup(release) // or nothing could be closed after a failure
	disk.hold.Store(&hang)
	first, second, leader, all := dial(t, g.addr), dial(t, g.addr), dial(t, g.addr), put("events", 0, -1, batch(t, "all"))
	first.send(all) // its connection runs the commit that hangs
	awaitAppended(t, g, 2)
	for disk.waiting.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	one := put("events", 0, 1, batch(t, "one"))
	leader.send(one)
	awaitAppended(t, g, 3)
	if got := c.readAll("events", 0); !slices.Equal(got, []string{"before"}) {
		t.Fatalf("read %q before it is on the disk", got)
	}
	second.send(all)
	awaitAppended(t, g, 4)
	g.set.Expire(g.set.Now() + time.Hour)
	if p := produced(t, second.receive(all).(*kmsg.ProduceResponse)); p.ErrorCode != kerr.RequestTimedOut.Code {
		t.Fatalf("after its time-out: %+v", p)
	}
	if err := leader.c.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if n, err := leader.c.Read(make([]byte, 1)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("acks=1 is answered before the record is on the disk: %d bytes, %v", n, err)
	}
	release()
	if p := produced(t, leader.receive(one).(*kmsg.ProduceResponse)); p.ErrorCode != 0 || p.BaseOffset != 2 {
		t.Fatalf("acks=1: %+v", p)
	}
	if got := c.readAll("events", 0); len(got) < 3 || got[2] != "one" {
		t.Fatalf("read %q, though acks=1 was answered", got)
	}
	if p := produced(t, first.receive(all).(*kmsg.ProduceResponse)); p.ErrorCode != kerr.RequestTimedOut.Code && p.ErrorCode != 0 {
		t.Fatalf("acks=all: %+v", p)
	}
	if p := produced(t, ask[*kmsg.ProduceResponse](c, put("events", 0, -1, batch(t, "after")))); p.ErrorCode != 0 || p.BaseOffset != 4 {
		t.Fatalf("after the disk is back: %+v", p)
	}
	if got := c.readAll("events", 0); !slices.Equal(got, []string{"before", "all", "one", "all", "after"}) {
		t.Fatalf("read %q", got)
	}
}

// TestAcknowledgedIsReadable proves that an acknowledged record can be read at once by any
// connection, and is below the end that ListOffsets returns: with acks=1 and acks=all, in old
// versions and new ones, one at a time and many in one write, and in page-cache mode.
func TestAcknowledgedIsReadable(t *testing.T) {
	for _, tc := range []struct {
		name     string
		acks     int16
		version  int16
		pipeline int
		flush    string
	}{
		{"acks=1, v3", 1, 3, 1, "1"},
		{"acks=1, v9", 1, 9, 1, "1"},
		{"acks=1, v12", 1, 12, 1, "1"},
		{"acks=1, pipelined", 1, 9, 16, "1"},
		{"acks=1, v3, pipelined", 1, 3, 16, "1"},
		{"acks=1, page cache", 1, 9, 4, "100000"},
		{"acks=all", -1, 9, 1, "1"},
		{"acks=all, pipelined", -1, 12, 16, "1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := newRig(t)
			g.topic("events", 1, "flush.messages", tc.flush)
			producer, reader := dial(t, g.addr), dial(t, g.addr)
			list := kmsg.NewPtrListOffsetsRequest()
			list.Version, list.ReplicaID = 6, -1
			part := kmsg.NewListOffsetsRequestTopicPartition()
			part.Timestamp = latestOffset
			list.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: "events", Partitions: []kmsg.ListOffsetsRequestTopicPartition{part}}}
			for range 50 {
				reqs := make([]kmsg.Request, tc.pipeline)
				for i := range reqs {
					req := put("events", 0, tc.acks, batch(t, "v"))
					req.Version, reqs[i] = tc.version, req
				}
				producer.send(reqs...)
				for _, req := range reqs {
					p := produced(t, producer.receive(req).(*kmsg.ProduceResponse))
					if p.ErrorCode != 0 {
						t.Fatalf("not stored: %+v", p)
					}
					end := ask[*kmsg.ListOffsetsResponse](reader, list).Topics[0].Partitions[0]
					if end.ErrorCode != 0 || end.Offset <= p.BaseOffset {
						t.Fatalf("offset %d was acknowledged, the end is told to be %d", p.BaseOffset, end.Offset)
					}
					got := ask[*kmsg.FetchResponse](reader, get("events", 0, p.BaseOffset)).Topics[0].Partitions[0]
					if len(got.RecordBatches) == 0 {
						t.Fatalf("offset %d was acknowledged and cannot be read: %+v", p.BaseOffset, got)
					}
				}
			}
		})
	}
}

// awaitAppended waits until the partition's log has so many records, on the disk or not.
func awaitAppended(t *testing.T, g *rig, records record.Offset) {
	t.Helper()
	for end := record.Offset(0); end < records; _, end, _ = g.set.Partition("events", 0).EpochEnd(record.NoEpoch, 0) {
		time.Sleep(time.Millisecond)
	}
}

// TestFailedSyncIsNotAcknowledged proves that a record whose sync has failed is answered with
// KAFKA_STORAGE_ERROR, never with success, and that records which were acknowledged before can
// still be read.
func TestFailedSyncIsNotAcknowledged(t *testing.T) {
	var broken atomic.Bool
	g := newRigOn(t, vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op, _ string) error {
		if broken.Load() && op == vfs.OpSync {
			return errors.New("input/output error")
		}
		return nil
	}), "data")
	g.topic("events", 1)
	c := dial(t, g.addr)
	ask[*kmsg.ProduceResponse](c, put("events", 0, -1, batch(t, "before")))
	broken.Store(true)
	lost := put("events", 0, -1, batch(t, "lost"))
	if p := produced(t, ask[*kmsg.ProduceResponse](c, lost)); p.ErrorCode != kerr.KafkaStorageError.Code {
		t.Fatalf("its sync failed: %+v", p)
	}
	if p := produced(t, ask[*kmsg.ProduceResponse](c, put("events", 0, -1, batch(t, "later")))); p.ErrorCode != kerr.KafkaStorageError.Code {
		t.Fatalf("the next one: %+v", p)
	}
	if got := c.readAll("events", 0); !slices.Equal(got, []string{"before"}) {
		t.Fatalf("read %q", got)
	}
	broken.Store(false)
}

// TestFullDiskRefusesAppends proves that a full disk is a retriable error, that reads
// go on, and that appends go on when there is room.
func TestFullDiskRefusesAppends(t *testing.T) {
	fs := vfs.NewMem()
	g := newRigOn(t, fs, "data")
	g.topic("events", 1)
	c := dial(t, g.addr)
	ask[*kmsg.ProduceResponse](c, put("events", 0, -1, batch(t, "before")))
	big := batch(t, string(make([]byte, 900_000)))
	fs.SetFree(2 << 20)
	deadline := time.Now().Add(10 * time.Second)
	for { // how much room there is, is looked up now and then
		p := produced(t, ask[*kmsg.ProduceResponse](c, put("events", 0, -1, big)))
		if p.ErrorCode == kerr.KafkaStorageError.Code {
			break
		}
		if p.ErrorCode != 0 || time.Now().After(deadline) {
			t.Fatalf("no refusal: %+v", p)
		}
	}
	if got := c.readAll("events", 0); len(got) == 0 || got[0] != "before" {
		t.Fatalf("read %d records", len(got))
	}
	fs.SetFree(1 << 30)
	for {
		p := produced(t, ask[*kmsg.ProduceResponse](c, put("events", 0, -1, batch(t, "after"))))
		if p.ErrorCode == 0 {
			break
		}
		if p.ErrorCode != kerr.KafkaStorageError.Code || time.Now().After(deadline) {
			t.Fatalf("not taken again: %+v", p)
		}
		time.Sleep(time.Millisecond)
	}
}
