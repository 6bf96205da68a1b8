package quota

import (
	"math"
	"net/netip"

	"github.com/leatstream/leat/internal/meta"
)

// Kind is what a quota of users and client ids bounds.
type Kind uint8

// The kinds, and their units.
const (
	Produce  Kind = iota // bytes of requests
	Fetch                // bytes of answers
	Request              // percent of a processor for a second, so that 100 are a second of work
	Mutation             // partitions that are created or deleted
	Kinds    = int(Mutation) + 1
)

// Key is the name of the kind's quota.
func (k Kind) Key() meta.QuotaKey {
	return [Kinds]meta.QuotaKey{meta.ProducerByteRate, meta.ConsumerByteRate, meta.RequestPercentage, meta.ControllerMutationRate}[k]
}

// none is the limit of what has no quota.
var none = math.Inf(1)

// Table is a cluster's quotas. It never changes.
type Table struct {
	kinds       [Kinds]limits
	addresses   map[netip.Addr]float64 // connections a second
	anyAddress  float64                // of addresses that are not in addresses
	hasOfClient bool                   // there is a quota of users or client ids
}

// limits are the quotas of one kind.
type limits map[meta.QuotaEntity]float64

// NewTable compiles quotas.
func NewTable(q *meta.Quotas) *Table {
	t := &Table{anyAddress: none}
	for k := range t.kinds {
		t.kinds[k] = limits{}
	}
	for entity, set := range q.ByEntity {
		for k := range t.kinds {
			if limit, ok := set[Kind(k).Key()]; ok {
				t.kinds[k][entity] = limit
				t.hasOfClient = true
			}
		}
		if limit, ok := set[meta.ConnectionRate]; ok {
			t.setAddress(entity.IP.Name, limit)
		}
	}
	return t
}

func (t *Table) setAddress(name string, limit float64) {
	if name == "" {
		t.anyAddress = limit
		return
	}
	ip, err := netip.ParseAddr(name)
	if err != nil {
		return // the controller takes addresses only
	}
	if t.addresses == nil {
		t.addresses = map[netip.Addr]float64{}
	}
	t.addresses[ip.Unmap()] = limit
}

// connectionLimit is how many connections a second an address may make.
func (t *Table) connectionLimit(ip netip.Addr) float64 {
	if t == nil {
		return none
	}
	if limit, ok := t.addresses[ip]; ok {
		return limit
	}
	return t.anyAddress
}

// sensorKey names what is measured together: what a user does with a client id, or what it does with all of them (client is
// empty), or what all users do with a client id (user is empty).
type sensorKey struct{ user, client string }

// find returns what the quota for a user's client id is measured with, and its limit; none: there is no quota. Of several
// quotas the first one counts, in this order:
//
//	user and client id, user and default client id, user, default user and client id, default user and default client id,
//	default user, client id, default client id
//
// An empty name has no quota of its own, and a client without an id is in none for client ids.
func (l limits) find(user, client string) (sensorKey, float64) {
	if len(l) == 0 {
		return sensorKey{}, none
	}
	key := l.choose(user, client)
	return key, l.of(key)
}

// part is the part of an entity for a name that clients have; ok is false for an empty one.
func part(name string) (n meta.QuotaName, ok bool) { return meta.NamedQuota(name), name != "" }

func (l limits) has(user, client meta.QuotaName) bool {
	_, ok := l[meta.QuotaEntity{User: user, ClientID: client}]
	return ok
}

func (l limits) choose(user, client string) sensorKey {
	u, isUser := part(user)
	c, isClient := part(client)
	anyName, no := meta.NamedQuota(""), meta.QuotaName{}
	switch {
	case isUser && isClient && l.has(u, c), isUser && l.has(u, anyName):
		return sensorKey{user, client}
	case isUser && l.has(u, no):
		return sensorKey{user, ""}
	case isClient && l.has(anyName, c), l.has(anyName, anyName):
		return sensorKey{user, client}
	case l.has(anyName, no):
		return sensorKey{user, ""}
	}
	return sensorKey{"", client}
}

// of is the limit for what is measured together.
func (l limits) of(key sensorKey) float64 {
	u, isUser := part(key.user)
	c, isClient := part(key.client)
	anyName, no := meta.NamedQuota(""), meta.QuotaName{}
	switch {
	case isUser && isClient:
		return l.first(meta.QuotaEntity{User: u, ClientID: c}, meta.QuotaEntity{User: u, ClientID: anyName},
			meta.QuotaEntity{User: anyName, ClientID: c}, meta.QuotaEntity{User: anyName, ClientID: anyName})
	case isUser:
		return l.first(meta.QuotaEntity{User: u, ClientID: no}, meta.QuotaEntity{User: anyName, ClientID: no})
	case isClient:
		return l.first(meta.QuotaEntity{User: no, ClientID: c}, meta.QuotaEntity{User: no, ClientID: anyName})
	}
	return none
}

func (l limits) first(entities ...meta.QuotaEntity) float64 {
	for _, e := range entities {
		if limit, ok := l[e]; ok {
			return limit
		}
	}
	return none
}
