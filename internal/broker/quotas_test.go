package broker

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/quota"
)

// clock is a time that tests move.
type clock struct {
	now   atomic.Int64
	aLook atomic.Int64 // how far each look at it moves it
}

func (c *clock) Now() time.Duration { return time.Duration(c.now.Add(c.aLook.Load())) }

func (c *clock) pass(d time.Duration) { c.now.Add(int64(d)) }

// newQuotaRig starts a broker whose quotas have a clock that stands still, unless aLook is set.
func newQuotaRig(t *testing.T) (*rig, *quota.Limiter, *clock) {
	t.Helper()
	c := &clock{}
	l := quota.New(quota.Config{Now: c.Now})
	return newRig(t, func(cfg *Config) { cfg.Quotas = l }), l, c
}

func setQuotas(l *quota.Limiter, set map[meta.QuotaKey]float64) {
	e := meta.QuotaEntity{User: meta.NamedQuota("ANONYMOUS")}
	l.SetTable(quota.NewTable(&meta.Quotas{ByEntity: map[meta.QuotaEntity]map[meta.QuotaKey]float64{e: set}}))
}

// TestProduceQuota proves that the bytes of Produce requests count, as the client sends them, that the answer tells for how long the
// client is throttled, that what is above the quota is stored all the same, and that another client is not throttled.
func TestProduceQuota(t *testing.T) {
	g, l, now := newQuotaRig(t)
	g.topic("t", 1)
	setQuotas(l, map[meta.QuotaKey]float64{meta.ProducerByteRate: 1000})
	c := dial(t, g.addr)
	sent := 0
	send := func(acks int16, n int) {
		t.Helper()
		req := put("t", 0, acks, batch(t, strings.Repeat("x", n)))
		sent += len(kmsg.NewRequestFormatter(kmsg.FormatterClientID(c.id)).AppendRequest(nil, req, 0)) - 4
		c.send(req)
		if acks == 0 {
			return
		}
		resp, _ := c.receive(req).(*kmsg.ProduceResponse)
		if code := resp.Topics[0].Partitions[0].ErrorCode; code != 0 {
			t.Fatalf("code %d", code)
		}
		want := max(0, sent-10_000) // ms: a byte above the quota of ten windows takes one
		if got := int(resp.ThrottleMillis); got < want-1 || got > want+1 {
			t.Errorf("%d bytes: throttled for %d ms, not %d", sent, got, want)
		}
	}
	send(1, 5000)
	send(-1, 4000)
	if st := l.Stats(quota.Produce); st.Used != float64(sent) || st.Throttled != 0 {
		t.Errorf("%d bytes were sent, and %+v", sent, st)
	}
	send(1, 100_000) // above the quota by more than a minute
	if st := l.Stats(quota.Produce); st.Used != float64(sent) || st.Throttled != 1 || st.ThrottleSeconds < 90 {
		t.Errorf("%d bytes were sent, and %+v", sent, st)
	}
	c.send(put("t", 0, 1, batch(t, "later"))) // is not read for a minute
	eventually(t, "the connection is muted", func() bool { return g.stats.Muted() == 1 })
	if end := g.set.Topic([]byte("t")).Partition(0).HighWatermark(); end != 3 {
		t.Errorf("%d records are stored", end)
	}
	c = dial(t, g.addr)
	now.pass(20 * time.Second) // nothing counts any more
	sent = 0
	send(1, 10)
	setQuotas(l, map[meta.QuotaKey]float64{meta.ConsumerByteRate: 1})
	sent = -1 << 30
	send(1, 50_000)
}

// TestProduceQuotaWithoutAcks proves that producers that want no answers are throttled by their bytes, and not by their time.
func TestProduceQuotaWithoutAcks(t *testing.T) {
	g, l, _ := newQuotaRig(t)
	g.topic("t", 1)
	setQuotas(l, map[meta.QuotaKey]float64{meta.ProducerByteRate: 1000, meta.RequestPercentage: 1e-9})
	c := dial(t, g.addr)
	c.send(put("t", 0, 0, batch(t, strings.Repeat("x", 10_500))))
	eventually(t, "the client is throttled", func() bool { return l.Stats(quota.Produce).Throttled == 1 })
	if st := l.Stats(quota.Request); st.Throttled != 0 {
		t.Errorf("%+v", st)
	}
	if n := g.stats.Muted(); n > 1 {
		t.Errorf("%d connections are muted", n)
	}
}

// TestFetchQuota proves that a reader above its quota gets an empty answer at once, with the throttle time, which does not count; that its
// session goes on then; and that it gets the records when it is within its quota.
func TestFetchQuota(t *testing.T) {
	g, l, now := newQuotaRig(t)
	g.topic("t", 1)
	c := dial(t, g.addr)
	ask[*kmsg.ProduceResponse](c, put("t", 0, 1, batch(t, strings.Repeat("x", 6000))))
	ask[*kmsg.ProduceResponse](c, put("t", 0, 1, batch(t, strings.Repeat("x", 5000))))
	setQuotas(l, map[meta.QuotaKey]float64{meta.ConsumerByteRate: 1000})
	req := get("t", 0, 0)
	req.SessionEpoch = 0 // begins a session
	resp := ask[*kmsg.FetchResponse](c, req)
	if n := len(values(t, resp.Topics[0].Partitions[0].RecordBatches)); n != 1 || resp.ThrottleMillis != 0 || resp.SessionID == 0 { // ten windows have room for 10,000 bytes
		t.Fatalf("%d records, throttled for %d ms, session %d", n, resp.ThrottleMillis, resp.SessionID)
	}
	used := l.Stats(quota.Fetch).Used
	if used < 6000 || used > 6300 {
		t.Errorf("%v bytes count", used)
	}
	again := get("t", 0, 1)
	again.SessionID, again.SessionEpoch = resp.SessionID, 1
	resp = ask[*kmsg.FetchResponse](c, again)
	if resp.ErrorCode != 0 || len(resp.Topics) != 0 || resp.ThrottleMillis < 900 || resp.ThrottleMillis > 1400 || resp.SessionID != again.SessionID {
		t.Fatalf("code %d, %d topics, throttled for %d ms", resp.ErrorCode, len(resp.Topics), resp.ThrottleMillis)
	}
	if got := l.Stats(quota.Fetch).Used; got != used {
		t.Errorf("%v bytes count that were not sent", got-used)
	}
	now.pass(12 * time.Second)
	again.Topics, again.SessionEpoch = nil, 2
	resp = ask[*kmsg.FetchResponse](c, again)
	if resp.ErrorCode != 0 || len(resp.Topics) != 1 || len(values(t, resp.Topics[0].Partitions[0].RecordBatches)) != 1 || resp.ThrottleMillis != 0 {
		t.Fatalf("code %d, %d topics, throttled for %d ms", resp.ErrorCode, len(resp.Topics), resp.ThrottleMillis)
	}

	// A batch that is larger than the quota of all windows is sent when nothing else counts.
	setQuotas(l, map[meta.QuotaKey]float64{meta.ConsumerByteRate: 100})
	now.pass(12 * time.Second)
	resp = ask[*kmsg.FetchResponse](dial(t, g.addr), get("t", 0, 0))
	if n := len(values(t, resp.Topics[0].Partitions[0].RecordBatches)); n != 1 || resp.ThrottleMillis == 0 {
		t.Errorf("%d records, throttled for %d ms", n, resp.ThrottleMillis)
	}
}

// TestRequestQuota proves that the time of requests counts, that their answers tell the throttle time, of handlers of each kind, and that a
// reader gets no records then.
func TestRequestQuota(t *testing.T) {
	g, l, now := newQuotaRig(t)
	now.aLook.Store(int64(time.Microsecond))
	g.topic("t", 1)
	ask[*kmsg.ProduceResponse](dial(t, g.addr), put("t", 0, 1, batch(t, "x")))
	setQuotas(l, map[meta.QuotaKey]float64{meta.RequestPercentage: 1e-9})
	offsets := at(7, kmsg.NewPtrListOffsetsRequest())
	offsets.ReplicaID = -1
	told := func(millis int32) {
		t.Helper()
		if millis <= 0 || millis > 1000 {
			t.Errorf("throttled for %d ms", millis)
		}
	}
	told(ask[*kmsg.ListOffsetsResponse](dial(t, g.addr), offsets).ThrottleMillis)
	told(ask[*kmsg.ApiVersionsResponse](dial(t, g.addr), at(3, kmsg.NewPtrApiVersionsRequest(), func(r *kmsg.ApiVersionsRequest) {
		r.ClientSoftwareName, r.ClientSoftwareVersion = "a", "1"
	})).ThrottleMillis)
	told(ask[*kmsg.ProduceResponse](dial(t, g.addr), put("t", 0, 1, batch(t, "y"))).ThrottleMillis)
	resp := ask[*kmsg.FetchResponse](dial(t, g.addr), get("t", 0, 0))
	told(resp.ThrottleMillis)
	if len(resp.Topics) != 0 {
		t.Error("a reader that is throttled gets records")
	}
	if st := l.Stats(quota.Request); st.Throttled != 4 || st.Used <= 0 {
		t.Errorf("%+v", st)
	}
}
