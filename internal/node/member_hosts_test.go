package node

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leatstream/leat/internal/meta"
)

// TestMembersConnectFromTheirHosts proves that the addresses at which other nodes have registered are those of
// members, that names are looked up again, that one which cannot be looked up keeps its addresses, and that
// those of a removed node are forgotten.
func TestMembersConnectFromTheirHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var img atomic.Pointer[meta.Image]
		change := func(recs ...meta.Record) {
			t.Helper()
			before := img.Load()
			if before == nil {
				before = meta.Empty()
			}
			var b []byte
			for _, r := range recs {
				b = meta.Append(b, r)
			}
			next, _, err := meta.Apply(before, b)
			if err != nil {
				t.Fatal(err)
			}
			img.Store(next)
		}
		broker := func(id int32, hosts ...string) meta.BrokerRegistered {
			b := meta.BrokerRegistered{Broker: meta.Broker{ID: id, Epoch: int64(id), Incarnation: meta.UUID{byte(id)}}}
			for _, h := range hosts {
				b.Listeners = append(b.Listeners, meta.Listener{Name: "PLAINTEXT", Host: h, Port: 9092})
			}
			return b
		}
		change(meta.FeatureSet{Name: meta.LevelFeature, Level: meta.LevelCluster}, broker(1, "10.0.0.1"), broker(2, "10.0.0.2", "fe80::2%eth0"), broker(3, "three"))
		var answer atomic.Value
		answer.Store("10.0.0.3")
		m := memberHosts{self: 1, image: img.Load, changed: make(chan struct{}, 1), resolve: func(_ context.Context, host string) ([]netip.Addr, error) {
			ip, err := netip.ParseAddr(answer.Load().(string))
			if host != "three" || err != nil {
				return nil, errors.New("no such host")
			}
			return []netip.Addr{ip}, nil
		}}
		check := func(what string, want ...string) {
			t.Helper()
			synctest.Wait()
			found := 0
			for _, ip := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "fe80::2", "fe80::2%other"} {
				is := m.isMember(netip.MustParseAddr(ip))
				for _, w := range want {
					if ip == w && is {
						found++
						is = false
					}
				}
				if is {
					t.Errorf("%s: %s is a member's", what, ip)
				}
			}
			if found != len(want) {
				t.Errorf("%s: %d of %v are members'", what, found, want)
			}
		}
		check("before")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			m.run(ctx)
			close(ended)
		}()
		check("at first", "10.0.0.2", "10.0.0.3", "fe80::2", "fe80::2%other")
		answer.Store("")
		m.noteChange()
		check("without an answer", "10.0.0.2", "10.0.0.3", "fe80::2", "fe80::2%other")
		answer.Store("::ffff:10.0.0.4")
		time.Sleep(lookUpEvery)
		check("after a while", "10.0.0.2", "10.0.0.4", "fe80::2", "fe80::2%other")
		change(meta.BrokerUnregistered{ID: 2})
		m.noteChange()
		check("without node 2", "10.0.0.4")
		cancel()
		<-ended
	})
}
