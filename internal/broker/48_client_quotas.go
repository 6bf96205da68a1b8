package broker

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/broker/missing"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// DescribeClientQuotas, key 48, and AlterClientQuotas, key 49, versions 0 to 1 (KIP-546, KIP-612).
//
// 1: flexible.

// quotaPart is the part of an entity for a type of Kafka's; nil: there is no such type.
func quotaPart(e *meta.QuotaEntity, typ string) *meta.QuotaName {
	switch typ {
	case controller.QuotaUser:
		return &e.User
	case controller.QuotaClientID:
		return &e.ClientID
	case controller.QuotaIP:
		return &e.IP
	}
	return nil
}

// quotaFilter chooses entities.
type quotaFilter struct {
	exact  meta.QuotaEntity // the parts that an entity must have, with these names
	any    meta.QuotaEntity // the parts that it must have, whatever their names
	strict bool             // it must have no other parts
	nobody bool             // no entity has such names
}

// parseQuotaFilter returns what is wrong with a filter, in Kafka's words.
func parseQuotaFilter(req *kmsg.DescribeClientQuotasRequest) (f quotaFilter, _ *kerr.Error, message string) {
	f.strict = req.Strict
	for i := range req.Components {
		c := &req.Components[i]
		exact, anyName := quotaPart(&f.exact, c.EntityType), quotaPart(&f.any, c.EntityType)
		switch {
		case c.EntityType == "":
			return f, kerr.InvalidRequest, "Invalid empty entity type."
		case exact == nil:
			return f, kerr.UnsupportedVersion, "Unsupported entity type " + c.EntityType
		case exact.Is || anyName.Is:
			return f, kerr.InvalidRequest, "Entity type " + c.EntityType + " cannot appear more than once in the filter."
		case c.MatchType == kmsg.QuotasMatchTypeExact && c.Match == nil:
			return f, kerr.InvalidRequest, "Request specified MATCH_TYPE_EXACT, but set match string to null."
		case c.MatchType == kmsg.QuotasMatchTypeDefault && c.Match != nil:
			return f, kerr.InvalidRequest, "Request specified MATCH_TYPE_DEFAULT, but also specified a match string."
		case c.MatchType == kmsg.QuotasMatchTypeAny && c.Match != nil:
			return f, kerr.InvalidRequest, "Request specified MATCH_TYPE_SPECIFIED, but also specified a match string."
		}
		switch c.MatchType {
		case kmsg.QuotasMatchTypeExact:
			*exact = meta.NamedQuota(*c.Match)
			f.nobody = f.nobody || *c.Match == ""
		case kmsg.QuotasMatchTypeDefault:
			*exact = meta.NamedQuota("")
		case kmsg.QuotasMatchTypeAny:
			anyName.Is = true
		default:
			return f, kerr.InvalidRequest, fmt.Sprintf("Unknown match type %d", c.MatchType)
		}
	}
	if (f.exact.IP.Is || f.any.IP.Is) && len(req.Components) > 1 {
		return f, kerr.InvalidRequest, "Invalid entity filter component combination. IP filter component should not be used with user or clientId filter component."
	}
	if ip, err := netip.ParseAddr(f.exact.IP.Name); err == nil {
		f.exact.IP.Name = ip.Unmap().String() // as it is kept
	}
	return f, nil, ""
}

func (f *quotaFilter) matches(e *meta.QuotaEntity) bool {
	return !f.nobody && f.matchesPart(f.exact.User, f.any.User, e.User) && f.matchesPart(f.exact.ClientID, f.any.ClientID, e.ClientID) && f.matchesPart(f.exact.IP, f.any.IP, e.IP)
}

func (f *quotaFilter) matchesPart(exact, anyName, part meta.QuotaName) bool {
	switch {
	case exact.Is:
		return part == exact
	case anyName.Is:
		return part.Is
	}
	return !f.strict || !part.Is
}

func (b *Broker) describeQuotas(_ *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.DescribeClientQuotasRequest)
	f, wrong, message := parseQuotaFilter(req)
	all := b.cfg.Image().Quotas()
	var chosen []meta.QuotaEntity
	var size missing.Memory
	size.Add(1, len(message))
	if wrong == nil {
		const keyText = 24
		for _, e := range all.Sorted() {
			if f.matches(&e) {
				chosen = append(chosen, e)
				size.Add(2+len(all.ByEntity[e]), len(e.User.Name)+len(e.ClientID.Name)+len(e.IP.Name)+keyText*len(all.ByEntity[e]))
			}
		}
	}
	return b.replyAnswer(r, missing.Answer{Memory: size, Make: func(pass func()) kmsg.Response {
		resp := kmsg.NewPtrDescribeClientQuotasResponse()
		resp.ErrorMessage = &message
		if wrong != nil {
			resp.ErrorCode = wrong.Code // and no list at all, as in Kafka
			return resp
		}
		resp.Entries = make([]kmsg.DescribeClientQuotasResponseEntry, len(chosen))
		for i, e := range chosen {
			pass()
			entry := &resp.Entries[i]
			for _, typ := range []string{controller.QuotaUser, controller.QuotaClientID, controller.QuotaIP} {
				if part := quotaPart(&e, typ); part.Is {
					of := kmsg.DescribeClientQuotasResponseEntryEntity{Type: typ}
					if part.Name != "" {
						of.Name = &part.Name
					}
					entry.Entity = append(entry.Entity, of)
				}
			}
			set := all.ByEntity[e]
			for _, key := range slices.Sorted(maps.Keys(set)) {
				entry.Values = append(entry.Values, kmsg.DescribeClientQuotasResponseEntryValue{Key: string(key), Value: set[key]})
			}
		}
		return resp
	}})
}

func (b *Broker) alterQuotas(d *decision, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.AlterClientQuotasRequest)
	asked := make([]controller.QuotaChange, len(req.Entries))
	for i := range req.Entries {
		e, c := &req.Entries[i], &asked[i]
		for j := range e.Entity {
			c.Entity = append(c.Entity, controller.QuotaPart{Type: e.Entity[j].Type, Name: e.Entity[j].Name})
		}
		for j := range e.Ops {
			c.Ops = append(c.Ops, controller.QuotaOp{Key: e.Ops[j].Key, Value: e.Ops[j].Value, Remove: e.Ops[j].Remove})
		}
	}
	var results []*controller.Error
	var failed error
	run := func() error {
		ctx, cancel := d.within(meta.ServerSettings(b.cfg.Image(), b.cfg.Static).RequestTimeout)
		defer cancel()
		if results, failed = d.AlterQuotas(ctx, asked, req.ValidateOnly); d.isElsewhere(failed) {
			return failed
		}
		return nil
	}
	return b.replyCommand(r, run, missing.Answer{Memory: sizeOfQuotas(req), Make: func(pass func()) kmsg.Response {
		resp := kmsg.NewPtrAlterClientQuotasResponse()
		resp.Entries = make([]kmsg.AlterClientQuotasResponseEntry, len(req.Entries))
		for i := range req.Entries {
			pass()
			re := &resp.Entries[i]
			for j := range req.Entries[i].Entity {
				pass()
				of := &req.Entries[i].Entity[j]
				re.Entity = append(re.Entity, kmsg.AlterClientQuotasResponseEntryEntity{Type: of.Type, Name: of.Name})
			}
			var refused *controller.Error
			if failed == nil {
				refused = results[i]
			}
			if failed != nil || refused != nil { // a success has no message, as in Kafka
				re.ErrorCode, re.ErrorMessage = outcomeOf(refused, failed)
			}
		}
		return resp
	}})
}

func sizeOfQuotas(req *kmsg.AlterClientQuotasRequest) (size missing.Memory) {
	const messageText = 160
	for i := range req.Entries {
		e := &req.Entries[i]
		size.Add(1+len(e.Entity), messageText)
		for j := range e.Entity {
			size.Add(0, 2*len(e.Entity[j].Type))
			if name := e.Entity[j].Name; name != nil {
				size.Add(0, 2*len(*name)) // one of them may be in the message
			}
		}
		for j := range e.Ops {
			size.Add(0, len(e.Ops[j].Key)) // one of them may be in the message
		}
	}
	return size
}
