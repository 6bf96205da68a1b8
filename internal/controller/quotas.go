package controller

import (
	"context"
	"math"
	"net/netip"

	"github.com/leatstream/leat/internal/meta"
)

// Limits of the quotas that a cluster keeps.
const (
	maxQuotaEntities    = 100_000
	maxQuotaName        = 1 << 10 // bytes; no more of a client id is kept
	quotasNeedLevelText = "Quotas need level 5 of leat.metadata: when all nodes run this version, raise it with leat cluster finalize."
)

// The types of the parts of entities, in Kafka's words.
const (
	QuotaUser     = "user"
	QuotaClientID = "client-id"
	QuotaIP       = "ip"
)

// QuotaPart is a part of an entity as a client names it.
type QuotaPart struct {
	Type string
	Name *string // nil: the default
}

// QuotaOp sets one quota of an entity, or removes it.
type QuotaOp struct {
	Key    string
	Value  float64
	Remove bool
}

// QuotaChange is what changes about the quotas of one entity.
type QuotaChange struct {
	Entity []QuotaPart
	Ops    []QuotaOp
}

// AlterQuotas changes quotas, those of each entity wholly or not at all. The errors are in the order of the request; nil means
// that the entity has the quotas that were asked for. With validateOnly it only tells what it would do.
func (c *Controller) AlterQuotas(ctx context.Context, asked []QuotaChange, validateOnly bool) (results []*Error, err error) {
	_, err = c.runParts(ctx, ofClients, func(r *Rules) (d Part, _ *Error) {
		d.Records, results = alterQuotas(r.Image, asked)
		if validateOnly {
			d.Records = nil
		}
		return d, nil
	})
	return results, err
}

// alterQuotas decides which quotas change.
func alterQuotas(m *meta.Image, asked []QuotaChange) (records []byte, results []*Error) {
	results = make([]*Error, len(asked))
	seen := make(map[meta.QuotaEntity]bool, len(asked))
	left := maxQuotaEntities - len(m.Quotas().ByEntity)
	for i := range asked {
		entity, err := QuotaEntityOf(asked[i].Entity)
		switch {
		case err != nil:
		case seen[entity]:
			err = refuse(InvalidRequest, "The request names an entity twice, and its first change of it counts.")
		default:
			seen[entity] = true
			var own []byte
			if own, err = alterEntity(m, entity, asked[i].Ops); err == nil && len(own) > 0 && m.Quotas().ByEntity[entity] == nil {
				if left--; left < 0 {
					err = refuse(PolicyViolation, "A cluster has quotas for at most %d entities: remove those that are not used.", maxQuotaEntities)
				}
			}
			if err == nil {
				records = append(records, own...)
				for k := range asked[i].Ops {
					records = claimQuota(records, m, meta.QuotaID{Entity: entity, Key: meta.QuotaKey(asked[i].Ops[k].Key)})
				}
			}
		}
		results[i] = err
	}
	return records, results
}

// alterEntity decides the records of one entity.
func alterEntity(m *meta.Image, e meta.QuotaEntity, ops []QuotaOp) (records []byte, _ *Error) {
	set := m.Quotas().ByEntity[e]
	keys := make(map[string]bool, len(ops))
	for i := range ops {
		op := &ops[i]
		if keys[op.Key] {
			return nil, refuse(InvalidRequest, "Duplicate quota key %s", op.Key)
		}
		keys[op.Key] = true
		key := meta.QuotaKey(op.Key)
		value, isSet := set[key]
		if op.Remove {
			if isSet {
				records = meta.Append(records, meta.QuotaUnset{Entity: e, Key: key})
			}
			continue
		}
		if err := checkQuota(e, key, op.Value); err != nil {
			return nil, err
		}
		if m.Level() < meta.LevelQuotas {
			return nil, refuse(UnsupportedFeature, quotasNeedLevelText)
		}
		if value != op.Value {
			records = meta.Append(records, meta.QuotaSet{Entity: e, Key: key, Value: op.Value})
		}
	}
	return records, nil
}

// QuotaEntityOf is the entity that a client names, or why there is no such one. Addresses have one form, whatever the client's.
func QuotaEntityOf(parts []QuotaPart) (e meta.QuotaEntity, _ *Error) {
	for _, p := range parts {
		part := map[string]*meta.QuotaName{QuotaUser: &e.User, QuotaClientID: &e.ClientID, QuotaIP: &e.IP}[p.Type]
		switch {
		case part == nil:
			return e, refuse(InvalidRequest, "Unhandled client quota entity type: %s", p.Type)
		case part.Is:
			return e, refuse(InvalidRequest, "Invalid client quota entity, duplicate entity entry %s", p.Type)
		case p.Name == nil:
			*part = meta.NamedQuota("")
			continue
		case *p.Name == "":
			return e, refuse(InvalidRequest, "Empty %s not supported", p.Type)
		case len(*p.Name) > maxQuotaName:
			return e, refuse(InvalidRequest, "A name of an entity has at most %d bytes.", maxQuotaName)
		}
		*part = meta.NamedQuota(*p.Name)
	}
	switch {
	case !e.User.Is && !e.ClientID.Is && !e.IP.Is:
		return e, refuse(InvalidRequest, "Invalid empty client quota entity")
	case e.IP.Is && (e.User.Is || e.ClientID.Is):
		return e, refuse(InvalidRequest, "Invalid quota entity combination, IP entity should not be combined with User or ClientId")
	case e.IP.Name != "":
		ip, err := netip.ParseAddr(e.IP.Name)
		if err != nil || ip.Zone() != "" {
			return e, refuse(InvalidRequest, "%s is not an IP address, and host names are not resolved.", e.IP.Name)
		}
		e.IP.Name = ip.Unmap().String()
	}
	return e, nil
}

// checkQuota returns what is wrong with a value of a quota.
func checkQuota(e meta.QuotaEntity, key meta.QuotaKey, value float64) *Error {
	most, typ := math.Inf(1), "" // whole numbers have a type
	switch key {
	case meta.ConnectionRate:
		most, typ = math.MaxInt32, "an INT"
	case meta.ProducerByteRate, meta.ConsumerByteRate:
		most, typ = math.MaxInt64, "a LONG"
	default:
	}
	switch {
	case !e.HasKey(key):
		return refuse(InvalidRequest, "Invalid configuration key %s", key)
	case !(value > 0): // also if it is no number
		return refuse(InvalidRequest, "Quota %s must be greater than 0", key)
	case value > most:
		return refuse(InvalidRequest, "Proposed value for %s is too large for %s.", key, typ)
	case math.IsInf(value, 1):
		return refuse(InvalidRequest, "Proposed value for %s is infinite: remove the quota in place of that.", key)
	case typ != "" && math.Mod(value, 1) > 1e-6:
		return refuse(InvalidRequest, "%s cannot be a fractional value.", key)
	}
	return nil
}
