package node

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/meta"
)

const (
	// lookUpEvery is how often the names at which members have registered are looked up again.
	lookUpEvery = time.Minute
	// lookUpTime is how long one of them may take. Until the answer the one before counts.
	lookUpTime = 5 * time.Second
	// maxMemberHosts bounds the hosts of members that are looked up.
	maxMemberHosts = 1000
)

// memberHosts are the addresses from which members of the cluster may connect: those at which they have
// registered. The waiting room for other nodes has places for them (wire.Peers).
type memberHosts struct {
	self    int32 // this node
	image   func() *meta.Image
	resolve func(ctx context.Context, host string) ([]netip.Addr, error) // a name
	changed chan struct{}                                                // of size 1; filled: the registered nodes have changed
	known   atomic.Pointer[map[netip.Addr]struct{}]                      // nil: none is known yet
}

// isMember tells whether a member may connect from an address.
func (m *memberHosts) isMember(ip netip.Addr) bool {
	known := m.known.Load()
	if known == nil {
		return false
	}
	_, ok := (*known)[ip.WithZone("")]
	return ok
}

// noteChange has the hosts looked up again soon.
func (m *memberHosts) noteChange() {
	select {
	case m.changed <- struct{}{}:
	default: // it will be
	}
}

// run keeps the addresses up to date until the context ends. It wakes up at intervals only while there are
// names to be looked up.
func (m *memberHosts) run(ctx context.Context) {
	byName := map[string][]netip.Addr{}
	for {
		m.lookUp(ctx, byName)
		var later <-chan time.Time
		if len(byName) > 0 {
			later = time.After(lookUpEvery)
		}
		select {
		case <-m.changed:
		case <-later:
		case <-ctx.Done():
			return
		}
	}
}

// lookUp finds the addresses of all hosts. byName has those of names, also if one cannot be looked up now.
func (m *memberHosts) lookUp(ctx context.Context, byName map[string][]netip.Addr) {
	var numbers []netip.Addr
	var names []string
	for _, host := range m.listHosts() {
		if ip, err := netip.ParseAddr(host); err == nil {
			numbers = append(numbers, ip)
		} else {
			names = append(names, host)
		}
	}
	maps.DeleteFunc(byName, func(host string, _ []netip.Addr) bool { return !slices.Contains(names, host) })
	m.publish(numbers, byName) // names may take long
	for _, host := range names {
		limited, cancel := context.WithTimeout(ctx, lookUpTime)
		ips, err := m.resolve(limited, host)
		cancel()
		if _, isKnown := byName[host]; err == nil || !isKnown {
			byName[host] = ips
		}
	}
	m.publish(numbers, byName)
}

// publish makes the addresses those of members.
func (m *memberHosts) publish(numbers []netip.Addr, byName map[string][]netip.Addr) {
	known := map[netip.Addr]struct{}{}
	for _, ip := range slices.Concat(numbers, slices.Concat(slices.Collect(maps.Values(byName))...)) {
		known[ip.Unmap().WithZone("")] = struct{}{}
	}
	m.known.Store(&known)
}

// listHosts lists the hosts of the other nodes' listeners.
func (m *memberHosts) listHosts() (hosts []string) {
	img := m.image()
	for _, id := range slices.Sorted(maps.Keys(img.Brokers)) {
		if id == m.self {
			continue
		}
		for _, l := range img.Brokers[id].Listeners {
			if l.Host != "" && !slices.Contains(hosts, l.Host) && len(hosts) < maxMemberHosts {
				hosts = append(hosts, l.Host)
			}
		}
	}
	return hosts
}
