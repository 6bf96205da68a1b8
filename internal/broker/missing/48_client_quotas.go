package missing

import (
	"fmt"
	"math"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeClientQuotas, key 48, and AlterClientQuotas, key 49, versions 0 to 1 (KIP-546).
//
// 1: flexible. Quotas are not enforced yet, so there are none, and none can be set. A
// request that Kafka would refuse gets Kafka's error, and one that sets a valid quota is
// refused by a message that says so.

// The kinds of entities for which Kafka has quotas.
const (
	quotaUser   = "user"
	quotaClient = "client-id"
	quotaIP     = "ip"
)

func describeClientQuotas(_ Node, kreq kmsg.Request) Answer {
	req, _ := kreq.(*kmsg.DescribeClientQuotasRequest)
	resp := kmsg.NewPtrDescribeClientQuotasResponse()
	e, message := checkFilter(req.Components)
	var size Memory
	size.Add(1, len(message))
	resp.ErrorMessage = &message
	if resp.Entries = []kmsg.DescribeClientQuotasResponseEntry{}; e != nil {
		resp.ErrorCode, resp.Entries = e.Code, nil // null, as in Kafka
	}
	return Answer{Memory: size, Make: func(func()) kmsg.Response { return resp }}
}

// checkFilter returns what is wrong with the filter of a description.
func checkFilter(components []kmsg.DescribeClientQuotasRequestComponent) (*kerr.Error, string) {
	var seen [3]bool
	for i := range components {
		c := &components[i]
		kind := quotaKind(c.EntityType)
		switch {
		case c.EntityType == "":
			return kerr.InvalidRequest, "Invalid empty entity type."
		case kind < 0:
			return kerr.UnsupportedVersion, "Unsupported entity type " + c.EntityType
		case seen[kind]:
			return kerr.InvalidRequest, "Entity type " + c.EntityType + " cannot appear more than once in the filter."
		}
		seen[kind] = true
		switch {
		case c.MatchType == kmsg.QuotasMatchTypeExact && c.Match == nil:
			return kerr.InvalidRequest, "Request specified MATCH_TYPE_EXACT, but set match string to null."
		case c.MatchType == kmsg.QuotasMatchTypeDefault && c.Match != nil:
			return kerr.InvalidRequest, "Request specified MATCH_TYPE_DEFAULT, but also specified a match string."
		case c.MatchType == kmsg.QuotasMatchTypeAny && c.Match != nil:
			return kerr.InvalidRequest, "Request specified MATCH_TYPE_SPECIFIED, but also specified a match string."
		case c.MatchType < kmsg.QuotasMatchTypeExact || c.MatchType > kmsg.QuotasMatchTypeAny:
			return kerr.InvalidRequest, fmt.Sprintf("Unknown match type %d", c.MatchType)
		}
	}
	if seen[2] && (seen[0] || seen[1]) {
		return kerr.InvalidRequest, "Invalid entity filter component combination. IP filter component should not be used with user or clientId filter component."
	}
	return nil, ""
}

func quotaKind(name string) int {
	switch name {
	case quotaUser:
		return 0
	case quotaClient:
		return 1
	case quotaIP:
		return 2
	}
	return -1
}

func alterClientQuotas(_ Node, kreq kmsg.Request) Answer {
	req, _ := kreq.(*kmsg.AlterClientQuotasRequest)
	const messageText = 128
	var size Memory
	for i := range req.Entries {
		e := &req.Entries[i]
		size.Add(1+len(e.Entity), messageText)
		for j := range e.Entity {
			size.Add(0, 2*len(e.Entity[j].Type))
			if name := e.Entity[j].Name; name != nil {
				size.Add(0, len(*name))
			}
		}
		for j := range e.Ops {
			size.Add(0, len(e.Ops[j].Key)) // one of them may be in the message
		}
	}
	return Answer{Memory: size, Make: func(pass func()) kmsg.Response {
		resp := kmsg.NewPtrAlterClientQuotasResponse()
		resp.Entries = make([]kmsg.AlterClientQuotasResponseEntry, len(req.Entries))
		for i := range req.Entries {
			pass()
			asked, re := &req.Entries[i], &resp.Entries[i]
			for j := range asked.Entity {
				pass()
				re.Entity = append(re.Entity, kmsg.AlterClientQuotasResponseEntryEntity{Type: asked.Entity[j].Type, Name: asked.Entity[j].Name})
			}
			if e, message := judgeQuotas(asked); e != nil {
				re.ErrorCode, re.ErrorMessage = e.Code, &message
			}
		}
		return resp
	}}
}

// judgeQuotas returns why an entity's quotas cannot be changed so. Removing a quota that does
// not exist is no error.
func judgeQuotas(asked *kmsg.AlterClientQuotasRequestEntry) (*kerr.Error, string) {
	var named [3]bool
	for i := range asked.Entity {
		n := &asked.Entity[i]
		kind := quotaKind(n.Type)
		switch {
		case kind < 0:
			return kerr.InvalidRequest, "Unhandled client quota entity type: " + n.Type
		case n.Name != nil && *n.Name == "":
			return kerr.InvalidRequest, "Empty " + n.Type + " not supported"
		}
		named[kind] = true
	}
	switch {
	case len(asked.Entity) == 0:
		return kerr.InvalidRequest, "Invalid empty client quota entity"
	case named[2] && (named[0] || named[1]):
		return kerr.InvalidRequest, "Invalid quota entity combination, IP entity should not be combined with User or ClientId"
	}
	for i := range asked.Ops {
		if op := &asked.Ops[i]; !op.Remove {
			if reason := checkQuota(op.Key, op.Value, named[2]); reason != "" {
				return kerr.InvalidRequest, reason
			}
			return kerr.UnsupportedVersion, "This broker does not enforce quotas yet, so none can be set."
		}
	}
	return nil, ""
}

// checkQuota returns what is wrong with a quota for an address or for users and clients.
func checkQuota(key string, value float64, forIP bool) string {
	most := math.Inf(1) // finite for quotas that must be whole numbers
	switch {
	case forIP && key == "connection_creation_rate":
		most = math.MaxInt32
	case !forIP && (key == "producer_byte_rate" || key == "consumer_byte_rate"):
		most = math.MaxInt64
	case !forIP && (key == "request_percentage" || key == "controller_mutation_rate"):
	default:
		return "Invalid configuration key " + key
	}
	switch {
	case value <= 0:
		return "Quota " + key + " must be greater than 0"
	case !math.IsInf(most, 1) && value > most:
		return "Proposed value for " + key + " is too large."
	case !math.IsInf(most, 1) && math.Mod(value, 1) > 1e-6:
		return key + " cannot be a fractional value."
	}
	return ""
}
