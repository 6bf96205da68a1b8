package broker

import (
	"cmp"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/broker/missing"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/wire"
)

// DescribeAcls, key 29, CreateAcls, key 30, and DeleteAcls, key 31, versions 1 to 3.
//
// 1: patterns (KIP-290). 2: flexible. 3: users as resources (KIP-373).
//
// Without an authorizer there are none to see, and none can be made, as in Kafka. Numbers that nobody knows are refused
// with a code; Kafka closes the connection for 0.

// noAuthorizer is the message for each ACL that is not created or deleted.
const noAuthorizer = "No Authorizer is configured."

func (b *Broker) describeACLs(_ *session, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.DescribeACLsRequest)
	resp := kmsg.NewPtrDescribeACLsResponse()
	filter := auth.Filter{
		Resource: meta.ResourceType(req.ResourceType), Name: req.ResourceName, Pattern: meta.PatternType(req.ResourcePatternType),
		Principal: req.Principal, Host: req.Host, Operation: meta.Operation(req.Operation), Permission: meta.Permission(req.PermissionType),
	}
	switch {
	case b.rules().Authorizer == nil:
		resp.ErrorCode, resp.ErrorMessage = kerr.SecurityDisabled.Code, new("No Authorizer is configured on the broker")
	case !filter.IsKnown():
		resp.ErrorCode, resp.ErrorMessage = kerr.InvalidRequest.Code, new("Unknown filter.")
	default:
		return b.replyACLs(r, &filter)
	}
	r.Reply(resp)
	return nil
}

// aclMemory is about how much memory an ACL takes in an answer without its texts.
const aclMemory = 256

// replyACLs answers with the ACLs that a filter chooses, one element for each pattern.
func (b *Broker) replyACLs(r *wire.Request, filter *auth.Filter) error {
	acls := b.cfg.Image().ACLs()
	held, err := b.reserveAnswer(r, elementMemory+aclMemory*int64(acls.Len())+2*int64(acls.Bytes()))
	if err != nil {
		return err
	}
	defer held.Release()
	resp := kmsg.NewPtrDescribeACLsResponse()
	chosen := filter.Choose(acls)
	slices.SortFunc(chosen, func(x, y meta.ACL) int {
		return cmp.Or(cmp.Compare(x.Resource, y.Resource), strings.Compare(x.Name, y.Name), cmp.Compare(x.Pattern, y.Pattern))
	})
	b.inTurns(len(chosen), func(i int) {
		a := &chosen[i]
		if i == 0 || chosen[i-1].Resource != a.Resource || chosen[i-1].Name != a.Name || chosen[i-1].Pattern != a.Pattern {
			resp.Resources = append(resp.Resources, kmsg.DescribeACLsResponseResource{
				ResourceType: kmsg.ACLResourceType(a.Resource), ResourceName: a.Name, ResourcePatternType: kmsg.ACLResourcePatternType(a.Pattern),
			})
		}
		of := &resp.Resources[len(resp.Resources)-1]
		of.ACLs = append(of.ACLs, kmsg.DescribeACLsResponseResourceACL{
			Principal: a.Principal, Host: a.Host, Operation: kmsg.ACLOperation(a.Operation), PermissionType: kmsg.ACLPermissionType(a.Permission),
		})
	})
	b.replyHeld(r, resp, &held)
	return nil
}

func (b *Broker) createACLs(d *decision, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.CreateACLsRequest)
	isOff := b.rules().Authorizer == nil
	acls := make([]meta.ACL, len(req.Creations))
	for i := range req.Creations {
		c := &req.Creations[i]
		acls[i] = meta.ACL{
			Principal: c.Principal, Host: c.Host, Resource: meta.ResourceType(c.ResourceType), Pattern: meta.PatternType(c.ResourcePatternType),
			Name: c.ResourceName, Operation: meta.Operation(c.Operation), Permission: meta.Permission(c.PermissionType),
		}
	}
	var results []*controller.Error
	var failed error
	run := func() error {
		if isOff {
			return nil
		}
		ctx, cancel := d.within(meta.ServerSettings(b.cfg.Image(), b.cfg.Static).RequestTimeout)
		defer cancel()
		if results, failed = d.CreateACLs(ctx, acls); d.isElsewhere(failed) {
			return failed
		}
		return nil
	}
	return b.replyCommand(r, run, missing.Answer{Memory: sizeOfNewACLs(req), Make: func(pass func()) kmsg.Response {
		resp := kmsg.NewPtrCreateACLsResponse()
		resp.Results = make([]kmsg.CreateACLsResponseResult, len(req.Creations))
		disabled := noAuthorizer
		for i := range resp.Results {
			pass()
			rr := &resp.Results[i]
			switch {
			case isOff:
				rr.ErrorCode, rr.ErrorMessage = kerr.SecurityDisabled.Code, &disabled
			case failed != nil:
				rr.ErrorCode, rr.ErrorMessage = outcomeOf(nil, failed)
			default:
				rr.ErrorCode, rr.ErrorMessage = outcomeOf(results[i], nil)
			}
		}
		return resp
	}})
}

// refusalText is how long a message about an ACL may be without what it names.
const aclRefusalText = 160

func sizeOfNewACLs(req *kmsg.CreateACLsRequest) (size missing.Memory) {
	for i := range req.Creations {
		size.Add(2, aclRefusalText+len(req.Creations[i].Principal))
	}
	return size
}

// mostFilters is how many filters a request may have: each of them looks at all ACLs.
const mostFilters = 1000

func (b *Broker) deleteACLs(d *decision, r *wire.Request, kreq kmsg.Request) error {
	req, _ := kreq.(*kmsg.DeleteACLsRequest)
	isOff := b.rules().Authorizer == nil
	var results []controller.DeletedACLs
	var failed error
	run := func() error {
		if isOff || len(req.Filters) > mostFilters {
			return nil
		}
		ctx, cancel := d.within(meta.ServerSettings(b.cfg.Image(), b.cfg.Static).RequestTimeout)
		defer cancel()
		if results, failed = d.DeleteACLs(ctx, filtersOf(req)); d.isElsewhere(failed) {
			return failed
		}
		return nil
	}
	return b.replyCommand(r, run, missing.Answer{Memory: b.sizeOfDeletedACLs(req), Make: func(pass func()) kmsg.Response {
		resp := kmsg.NewPtrDeleteACLsResponse()
		resp.Results = make([]kmsg.DeleteACLsResponseResult, len(req.Filters))
		disabled := noAuthorizer
		for i := range resp.Results {
			pass()
			rr := &resp.Results[i]
			switch {
			case isOff:
				rr.ErrorCode, rr.ErrorMessage = kerr.SecurityDisabled.Code, &disabled
			case len(req.Filters) > mostFilters:
				rr.ErrorCode, rr.ErrorMessage = kerr.InvalidRequest.Code, new("A request has at most 1000 filters.")
			case failed != nil:
				rr.ErrorCode, rr.ErrorMessage = outcomeOf(nil, failed)
			case results[i].Err != nil:
				rr.ErrorCode, rr.ErrorMessage = outcomeOf(results[i].Err, nil)
			default:
				for j := range results[i].ACLs {
					pass()
					rr.MatchingACLs = append(rr.MatchingACLs, deletedACL(&results[i].ACLs[j]))
				}
			}
		}
		return resp
	}})
}

func filtersOf(req *kmsg.DeleteACLsRequest) []auth.Filter {
	filters := make([]auth.Filter, len(req.Filters))
	for i := range req.Filters {
		f := &req.Filters[i]
		filters[i] = auth.Filter{
			Resource: meta.ResourceType(f.ResourceType), Name: f.ResourceName, Pattern: meta.PatternType(f.ResourcePatternType),
			Principal: f.Principal, Host: f.Host, Operation: meta.Operation(f.Operation), Permission: meta.Permission(f.PermissionType),
		}
	}
	return filters
}

// sizeOfDeletedACLs is the memory of an answer with all that the filters choose now.
func (b *Broker) sizeOfDeletedACLs(req *kmsg.DeleteACLsRequest) (size missing.Memory) {
	size.Add(2*len(req.Filters), aclRefusalText*len(req.Filters))
	if b.rules().Authorizer == nil || len(req.Filters) > mostFilters {
		return size
	}
	acls, left := b.cfg.Image().ACLs(), controller.MostDeletedACLs
	for _, f := range filtersOf(req) {
		chosen := f.Choose(acls)
		for i := range chosen[:min(len(chosen), left)] {
			size.Add(1, len(chosen[i].Principal)+len(chosen[i].Host)+len(chosen[i].Name))
		}
		left = max(0, left-len(chosen))
	}
	return size
}

func deletedACL(a *meta.ACL) kmsg.DeleteACLsResponseResultMatchingACL {
	m := kmsg.NewDeleteACLsResponseResultMatchingACL()
	m.ResourceType, m.ResourceName, m.ResourcePatternType = kmsg.ACLResourceType(a.Resource), a.Name, kmsg.ACLResourcePatternType(a.Pattern)
	m.Principal, m.Host, m.Operation, m.PermissionType = a.Principal, a.Host, kmsg.ACLOperation(a.Operation), kmsg.ACLPermissionType(a.Permission)
	return m
}
