package quota

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/leatstream/leat/internal/meta"
)

// TestConnectionRate proves that connections beyond a rate have their turns one after the other, no faster than the rate, and
// those that would wait too long are refused; and that another listener's limit is its own.
func TestConnectionRate(t *testing.T) {
	c := NewConnectionLimiter(ConnectionConfig{Windows: Windows{Number: 2, Millis: 1000}})
	ip := netip.MustParseAddr("10.0.0.1")
	if a := c.Admit("A", ip, 0); a != (Admission{}) {
		t.Errorf("without limits: %+v", a)
	}
	c.SetLimits(ConnectionLimits{Listeners: map[string]float64{"A": 10}})
	served, refused := map[int64]int{}, 0 // by second
	last := int64(0)
	for i := range 1000 {
		a := c.Admit("A", ip, 10_000)
		if a.Refused {
			refused++
			continue
		}
		if a.WaitMillis < last || a.WaitMillis > mostAdmissionWait {
			t.Fatalf("connection %d has its turn after %d ms, and the one before it after %d", i, a.WaitMillis, last)
		}
		last = a.WaitMillis
		served[last/1000]++
	}
	for second, n := range served {
		if n > 20 { // those of both windows
			t.Errorf("in second %d, %d connections are served", second, n)
		}
	}
	if total := 1000 - refused; total < 280 || total > 320 {
		t.Errorf("%d connections have a turn within 30 s", total)
	}
	if a := c.Admit("B", ip, 10_000); a.WaitMillis != 0 || a.Refused {
		t.Errorf("another listener: %+v", a)
	}
	if a := c.Admit("A", ip, 90_000); a.WaitMillis != 0 || a.Refused {
		t.Errorf("when nobody waits: %+v", a)
	}
	c.SetLimits(ConnectionLimits{Node: 1})
	if a := c.Admit("A", ip, 90_500); a.Refused {
		t.Errorf("%+v", a)
	}
	if a := c.Admit("B", ip, 90_500); a.WaitMillis == 0 {
		t.Errorf("the node's limit is not that of all listeners: %+v", a)
	}
	if s := c.Stats(); s.Throttled == 0 || s.Closed != int64(refused) || s.ThrottleSeconds == 0 {
		t.Errorf("%+v", s)
	}
}

// TestConnectionRateOfAddresses proves that connections against the quota of their address are closed after a time, and do not
// count, and that a quota of an address comes before the default.
func TestConnectionRateOfAddresses(t *testing.T) {
	c := NewConnectionLimiter(ConnectionConfig{SensorBytes: 100 * sensorCost})
	q := &meta.Quotas{ByEntity: map[meta.QuotaEntity]map[meta.QuotaKey]float64{
		{IP: meta.NamedQuota("")}:         {meta.ConnectionRate: 1},
		{IP: meta.NamedQuota("10.0.0.9")}: {meta.ConnectionRate: 1000},
	}}
	c.SetTable(NewTable(q))
	admitted := func(ip string, now int64) (n int) {
		for range 100 {
			if a := c.Admit("A", netip.MustParseAddr(ip), now); !a.Refused {
				n++
			} else if a.WaitMillis <= 0 || a.WaitMillis > 1000 {
				t.Errorf("%+v", a)
			}
		}
		return n
	}
	if n := admitted("10.0.0.1", 0); n != 10 {
		t.Errorf("%d connections are admitted, not those of ten windows", n)
	}
	if n := admitted("::ffff:10.0.0.1", 9000); n != 0 {
		t.Errorf("when they still count, %d are admitted", n)
	}
	if n := admitted("::ffff:10.0.0.1", 12_000); n != 10 {
		t.Errorf("when they do not count any more, %d are admitted", n)
	}
	if n := admitted("10.0.0.9", 0); n != 100 {
		t.Errorf("%d connections of the address with a quota of its own are admitted", n)
	}
	for i := range 10_000 {
		c.Admit("A", netip.MustParseAddr(fmt.Sprintf("10.1.%d.%d", i/256, i%256)), 12_000)
	}
	if n := c.addresses.count(); n > 101 {
		t.Errorf("%d addresses are kept", n)
	}
	c.Expire(60_000)
	if n := c.addresses.count(); n != 0 {
		t.Errorf("%d addresses are kept when nobody connects", n)
	}
	c.SetTable(NewTable(&meta.Quotas{}))
	if n := admitted("10.0.0.1", 60_000); n != 100 {
		t.Errorf("without a quota, %d are admitted", n)
	}
}
