package node

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/meta"
)

// Bounds of what a node notes while its cluster is secured.
const (
	mostPlainClients = 256
	mostWouldDeny    = 2048
	mostNoted        = 256     // bytes of a name
	mostShownDenied  = 700_000 // bytes of what is shown of wouldDeny, in JSON
)

// plainClients are the clients that have come without TLS, those of which the node has heard last. Any goroutine may use it.
type plainClients struct {
	mu        sync.Mutex
	since     time.Time                 // when the node has begun to note them; zero: it has not; guarded by mu
	last      map[plainClient]time.Time // guarded by mu
	forgotten int64                     // guarded by mu
}

type plainClient struct{ clientID, host string }

// begin says that clients are noted from now on. Only its first call counts.
func (p *plainClients) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.since.IsZero() {
		p.since = time.Now()
	}
}

// begun is when the node has begun to note clients; zero: it has not.
func (p *plainClients) begun() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.since
}

// note notes that a client has come.
func (p *plainClients) note(clientID, host string) {
	key, now := plainClient{clientID[:min(len(clientID), mostNoted)], host}, time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.last[key]; !known && len(p.last) >= mostPlainClients {
		oldest, at := plainClient{}, now
		for k, t := range p.last {
			if t.Before(at) {
				oldest, at = k, t
			}
		}
		delete(p.last, oldest)
		p.forgotten++
	}
	if p.last == nil {
		p.last = map[plainClient]time.Time{}
	}
	p.last[key] = now
}

// list lists the clients, those with open connections first, and of them that which has come last. each calls its function for each open connection
// without TLS. No more than mostPlainClients are listed; the others are forgotten, and those with open connections last.
func (p *plainClients) list(each func(yield func(clientID, host string))) (list []cluster.PlainClient, forgotten int64) {
	open := map[plainClient]int{}
	each(func(clientID, host string) { open[plainClient{clientID[:min(len(clientID), mostNoted)], host}]++ })
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, t := range p.last {
		list = append(list, cluster.PlainClient{ClientID: k.clientID, Host: k.host, Last: t.UTC(), Open: open[k]})
		delete(open, k)
	}
	for k, count := range open {
		list = append(list, cluster.PlainClient{ClientID: k.clientID, Host: k.host, Open: count})
	}
	slices.SortFunc(list, func(a, b cluster.PlainClient) int {
		return cmp.Or(min(b.Open, 1)-min(a.Open, 1), b.Last.Compare(a.Last), cmp.Compare(a.ClientID, b.ClientID), cmp.Compare(a.Host, b.Host))
	})
	shown := min(len(list), mostPlainClients)
	return list[:shown], p.forgotten + int64(len(list)-shown)
}

// wouldDeny is what ACLs would have denied. Any goroutine may use it.
type wouldDeny struct {
	mu        sync.Mutex
	of        map[deniedKey]*deniedCount // guarded by mu
	total     int64                      // guarded by mu
	uncounted int64                      // guarded by mu
}

type deniedKey struct {
	principal string
	op        meta.Operation
	on        meta.ResourceType
	name      string
}

type deniedCount struct {
	n    int64
	last time.Time
}

// note notes one thing that would be denied.
func (d *wouldDeny) note(principal string, op meta.Operation, t meta.ResourceType, name string) {
	key := deniedKey{principal, op, t, name}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.total++
	c := d.of[key]
	switch {
	case c == nil && (len(d.of) >= mostWouldDeny || len(name) > mostNoted || len(principal) > mostNoted):
		d.uncounted++
		return
	case c == nil:
		if d.of == nil {
			d.of = map[deniedKey]*deniedCount{}
		}
		c = &deniedCount{}
		d.of[key] = c
	}
	c.n++
	c.last = time.Now()
}

// countAll is how much would have been denied since the start.
func (d *wouldDeny) countAll() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.total
}

// list lists what would have been denied, in order.
func (d *wouldDeny) list() (list []cluster.WouldDeny, uncounted int64) {
	d.mu.Lock()
	for k, c := range d.of {
		list = append(list, cluster.WouldDeny{
			Principal: k.principal, Operation: auth.OperationName(k.op), ResourceType: auth.ResourceName(k.on), Resource: k.name, Count: c.n, Last: c.last.UTC(),
		})
	}
	uncounted = d.uncounted
	d.mu.Unlock()
	return fitDenied(list, uncounted)
}

// fitDenied puts a list in order, adds up what it has twice, and leaves out what is too much for an answer.
func fitDenied(list []cluster.WouldDeny, uncounted int64) (fit []cluster.WouldDeny, left int64) {
	slices.SortFunc(list, func(a, b cluster.WouldDeny) int {
		return cmp.Or(cmp.Compare(a.Principal, b.Principal), cmp.Compare(a.ResourceType, b.ResourceType), cmp.Compare(a.Resource, b.Resource), cmp.Compare(a.Operation, b.Operation))
	})
	const perLine, perByte = 160, 6 // of JSON: a byte may be written \u00XX
	room := mostShownDenied
	for _, w := range list {
		if n := len(fit); n > 0 && fit[n-1].Principal == w.Principal && fit[n-1].ResourceType == w.ResourceType && fit[n-1].Resource == w.Resource && fit[n-1].Operation == w.Operation {
			fit[n-1].Count += w.Count
			if w.Last.After(fit[n-1].Last) {
				fit[n-1].Last = w.Last
			}
			continue
		}
		size := perLine
		for _, b := range []byte(w.Principal + w.Resource) {
			if size++; b < ' ' || b >= 0x7f || b == '<' || b == '>' || b == '&' {
				size += perByte - 1
			}
		}
		if room -= size; room < 0 {
			uncounted += w.Count
			continue
		}
		fit = append(fit, w)
	}
	return fit, uncounted
}
