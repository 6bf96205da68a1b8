package broker

import (
	"errors"
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

// stuck is a disk whose syncs hang while it is held.
type stuck struct {
	hold    atomic.Pointer[chan struct{}]
	waiting atomic.Int32
}

func (s *stuck) judge(op vfs.Op, _ string) error {
	if c := s.hold.Load(); op == vfs.OpSync && c != nil {
		s.waiting.Add(1)
		<-*c
	}
	return nil
}

// TestAcknowledgementsWaitForTheDisk proves what the three acks mean while the disk
// hangs: acks=1 is answered and cannot be read yet, acks=all is not answered, ends with
// a time-out where the client wants no longer, and is answered when the disk is back.
func TestAcknowledgementsWaitForTheDisk(t *testing.T) {
	var disk stuck
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
	first, second, silent, all := dial(t, g.addr), dial(t, g.addr), dial(t, g.addr), put("events", 0, -1, batch(t, "all"))
	first.send(all) // its connection runs the commit that hangs
	appended(t, g, 2)
	for disk.waiting.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	if p := produced(t, ask[*kmsg.ProduceResponse](silent, put("events", 0, 1, batch(t, "one")))); p.ErrorCode != 0 || p.BaseOffset != 2 {
		t.Fatalf("acks=1: %+v", p)
	}
	if got := c.readAll("events", 0); !slices.Equal(got, []string{"before"}) {
		t.Fatalf("read %q before it is on the disk", got)
	}
	second.send(all)
	appended(t, g, 4)
	g.set.Expire(time.Now().Add(time.Hour).UnixNano())
	if p := produced(t, second.receive(all).(*kmsg.ProduceResponse)); p.ErrorCode != kerr.RequestTimedOut.Code {
		t.Fatalf("after its time-out: %+v", p)
	}
	release()
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

// appended waits until the partition's log has so many records, on the disk or not.
func appended(t *testing.T, g *rig, records record.Offset) {
	t.Helper()
	for end := record.Offset(0); end < records; end, _ = g.set.Partition("events", 0).Log().End() {
		time.Sleep(time.Millisecond)
	}
}

// TestFailedSyncIsNotAcknowledged proves that a record whose sync failed is answered
// with KAFKA_STORAGE_ERROR, never with success, and that what was acknowledged before
// can still be read.
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
