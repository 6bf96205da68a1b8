package source

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Limits of what a source may have of ACLs and quotas, for a link that follows them.
const (
	maxACLs   = 200_000
	maxQuotas = 200_000
)

// ErrNoAuthorizer says that a source has no ACLs, since nothing is authorized there.
var ErrNoAuthorizer = errors.New("the source has no authorizer, and so no ACLs")

// ACL is an ACL of a source, with the numbers of Kafka's protocol. Some may not be known here.
type ACL struct {
	Principal, Host       string
	Resource, Pattern     int8
	Name                  string
	Operation, Permission int8
}

// anyRole is meta.AnyRole, by which a Leat tells of roles, which Kafka does not have.
const anyRole = 100

// DescribeACLs describes all ACLs; those of a Leat with its roles.
func (s *Client) DescribeACLs(ctx context.Context, isLeat bool) ([]ACL, error) {
	all, err := s.describeACLs(ctx, kmsg.ACLOperationAny)
	if err != nil || !isLeat {
		return all, err
	}
	roles, err := s.describeACLs(ctx, anyRole)
	return append(all, roles...), err
}

func (s *Client) describeACLs(ctx context.Context, operation kmsg.ACLOperation) ([]ACL, error) {
	q := kmsg.NewPtrDescribeACLsRequest()
	q.ResourceType, q.ResourcePatternType, q.Operation, q.PermissionType = kmsg.ACLResourceTypeAny, kmsg.ACLResourcePatternTypeAny, operation, kmsg.ACLPermissionTypeAny
	r, err := ask[*kmsg.DescribeACLsResponse](ctx, s, anyBroker, q)
	if err == nil {
		err = errorOf(r.ErrorCode)
	}
	switch {
	case errors.Is(err, kerr.SecurityDisabled):
		return nil, ErrNoAuthorizer
	case err != nil:
		return nil, fmt.Errorf("asking the source for its ACLs: %w", err)
	}
	var all []ACL
	for i := range r.Resources {
		of := &r.Resources[i]
		for k := range of.ACLs {
			a := &of.ACLs[k]
			all = append(all, ACL{a.Principal, a.Host, int8(of.ResourceType), int8(of.ResourcePatternType), of.ResourceName, int8(a.Operation), int8(a.PermissionType)})
		}
	}
	if len(all) > maxACLs {
		return nil, fmt.Errorf("the source has %d ACLs, and a link follows those of one with %d at most", len(all), maxACLs)
	}
	return all, nil
}

// QuotaPart is a part of the entity that a quota is for, in Kafka's words.
type QuotaPart struct {
	Type string  // user, client-id, ip
	Name *string // nil: the default
}

// Quota is a quota of a source.
type Quota struct {
	Entity []QuotaPart
	Key    string
	Value  float64
}

// DescribeQuotas describes all quotas.
func (s *Client) DescribeQuotas(ctx context.Context) ([]Quota, error) {
	r, err := ask[*kmsg.DescribeClientQuotasResponse](ctx, s, anyBroker, kmsg.NewPtrDescribeClientQuotasRequest())
	if err == nil {
		err = errorOf(r.ErrorCode)
	}
	if err != nil {
		return nil, fmt.Errorf("asking the source for its quotas: %w", err)
	}
	var all []Quota
	for i := range r.Entries {
		e := &r.Entries[i]
		entity := make([]QuotaPart, len(e.Entity))
		for k := range e.Entity {
			entity[k] = QuotaPart{e.Entity[k].Type, e.Entity[k].Name}
		}
		for _, v := range e.Values {
			all = append(all, Quota{entity, v.Key, v.Value})
		}
	}
	if len(all) > maxQuotas {
		return nil, fmt.Errorf("the source has %d quotas, and a link follows those of one with %d at most", len(all), maxQuotas)
	}
	return all, nil
}
