package budget

import (
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
)

// TestTurnsAreFair proves that a network for which one piece of work waits gets the turn after the next one, however many wait for another
// network, and that each network's work is served in the order in which it came.
func TestTurnsAreFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := NewTurns(1)
		crowd, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
		if !turns.Take(nil, crowd) {
			t.Fatal("a free turn is not given")
		}
		var served []string
		ask := func(ip netip.Addr, name string) {
			go func() {
				if turns.Take(nil, ip) {
					served = append(served, name)
					turns.Give()
				}
			}()
			synctest.Wait()
		}
		for i := range 1000 {
			ask(crowd, "crowd"+strconv.Itoa(i))
		}
		ask(other, "other")
		if n := turns.Waiting(); n != 1001 {
			t.Errorf("%d wait", n)
		}
		turns.Give()
		synctest.Wait()
		if want := []string{"crowd0", "other", "crowd1", "crowd2"}; len(served) != 1001 || !slices.Equal(served[:4], want) {
			t.Errorf("%d were served, first %v", len(served), served[:min(4, len(served))])
		}
	})
}

// TestTurnsOfThoseWhoLeave proves that work whose client is gone gives its place up, and that no turn is lost by it.
func TestTurnsOfThoseWhoLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := NewTurns(2)
		ip := netip.MustParseAddr("2001:db8::1")
		turns.Take(nil, ip)
		turns.Take(nil, ip)
		gone, results := make(chan struct{}), make(chan bool, 10)
		for range 5 {
			go func() { results <- turns.Take(gone, ip) }()
		}
		go func() { results <- turns.Take(nil, netip.MustParseAddr("2001:db8:0:1::1")) }()
		synctest.Wait()
		close(gone)
		for range 5 {
			if <-results {
				t.Error("work whose client is gone got a turn")
			}
		}
		if n := turns.Waiting(); n != 1 {
			t.Errorf("%d wait", n)
		}
		turns.Give()
		if !<-results {
			t.Error("the work that has stayed got no turn")
		}
		turns.Give()
		turns.Give()
		ended := make(chan struct{})
		close(ended)
		free := 0
		for turns.Take(ended, ip) {
			free++
		}
		if free != 2 || turns.Waiting() != 0 {
			t.Errorf("%d turns are left, %d wait", free, turns.Waiting())
		}
	})
}

// TestNetworks proves that an IPv6 host is counted by its /64, and that an IPv4 address in IPv6's form is the same network as itself.
func TestNetworks(t *testing.T) {
	for a, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "2001:db8::1": "2001:db8::", "2001:db8:0:0:ffff::9": "2001:db8::", "fe80::1%eth0": "fe80::",
	} {
		if got := NetworkOf(netip.MustParseAddr(a)); got != netip.MustParseAddr(want) {
			t.Errorf("%s: %s", a, got)
		}
	}
	if got := NetworkOf(netip.Addr{}); got.IsValid() {
		t.Errorf("no address: %s", got)
	}
	ip := netip.MustParseAddr("192.0.2.1")
	if got := OriginOf(WithOrigin(t.Context(), ip)); got != ip || OriginOf(t.Context()).IsValid() {
		t.Errorf("the origin is %v", got)
	}
}
