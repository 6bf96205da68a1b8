package meta

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"strings"
)

// Limits of what a link may have made.
const (
	// MaxLinkACLs is how many ACLs a link may have made, and MaxLinkQuotas how many quotas.
	MaxLinkACLs   = 50_000
	MaxLinkQuotas = 20_000
)

// LinkACL is an ACL that a link has made here.
type LinkACL struct {
	ACL
	// IsShared tells that somebody else has asked for the very same ACL since: then the link does not remove it.
	IsShared bool
}

// QuotaID names a quota of an entity.
type QuotaID struct {
	Entity QuotaEntity
	Key    QuotaKey
}

// LeftQuota is in place of the value of a quota that a link has set and that somebody else has set or removed since: the link leaves it as it is.
const LeftQuota = 0

// LinkAccess is the ACLs and quotas that a link has made here, whether they are still there or somebody has removed them since. It never changes.
type LinkAccess struct {
	acls   [aclShards]map[ACL]bool // whether it is shared, by the shards of principals
	n      int
	quotas map[QuotaID]float64 // the value that the link has set, or LeftQuota
}

// Len counts the ACLs.
func (a *LinkAccess) Len() int {
	if a == nil {
		return 0
	}
	return a.n
}

// FindACL tells whether the link has made an ACL, and whether somebody else has asked for it since.
func (a *LinkAccess) FindACL(acl ACL) (isShared, isMade bool) {
	if a == nil {
		return false, false
	}
	isShared, isMade = a.acls[shardOfPrincipal(acl.Principal)][acl]
	return isShared, isMade
}

// ACLs iterates over the ACLs, in no order.
func (a *LinkAccess) ACLs() iter.Seq[LinkACL] {
	return func(yield func(LinkACL) bool) {
		if a == nil {
			return
		}
		for _, shard := range a.acls {
			for acl, isShared := range shard {
				if !yield(LinkACL{acl, isShared}) {
					return
				}
			}
		}
	}
}

// Quotas are the quotas, with the values that the link has set, or LeftQuota. The map never changes.
func (a *LinkAccess) Quotas() map[QuotaID]float64 {
	if a == nil {
		return nil
	}
	return a.quotas
}

// LinkAccess is what a link has made of ACLs and quotas; nil: nothing.
func (m *Image) LinkAccess(link UUID) *LinkAccess { return m.access[link] }

// LinkACLSet notes that a link has made an ACL. It comes with the ACLSet in one entry, so that who made it is known exactly. Its IsShared is set when somebody else asks for the same ACL.
type LinkACLSet struct {
	Link UUID
	LinkACL
}

// LinkACLUnset notes that an ACL is not a link's any more.
type LinkACLUnset struct {
	Link UUID
	ACL
}

// LinkQuotaSet notes that a link has set a quota to a value, in one entry with the QuotaSet; or that somebody else has set or removed it since, if that is LeftQuota.
type LinkQuotaSet struct {
	Link UUID
	QuotaID
	Value float64
}

// LinkQuotaUnset notes that a quota is not a link's any more.
type LinkQuotaUnset struct {
	Link UUID
	QuotaID
}

// accessCopy is the step's own copy of what a link has made.
type accessCopy struct {
	*LinkAccess

	acls   [aclShards]bool // which shards are the step's own
	quotas bool
}

// copyAccess gives the step its own copy of what a link has made, once a step.
func copyAccess(s *step, link UUID) (*accessCopy, error) {
	if err := s.requireLevel(LevelLinks); err != nil {
		return nil, err
	}
	if s.m.links.Find(link) == nil {
		return nil, fmt.Errorf("access of link %s, which is not there", link)
	}
	if c := s.access[link]; c != nil {
		return c, nil
	}
	if s.access == nil {
		s.access = map[UUID]*accessCopy{}
		s.m.access = cloneMap(s.m.access)
	}
	c := &accessCopy{LinkAccess: &LinkAccess{}}
	if old := s.m.access[link]; old != nil {
		*c.LinkAccess = *old
	}
	s.access[link] = c
	s.m.access[link] = c.LinkAccess
	return c, nil
}

// shardOf is the shard of a principal, which the step may change.
func (c *accessCopy) shardOf(principal string) map[ACL]bool {
	at := shardOfPrincipal(principal)
	if !c.acls[at] {
		c.acls[at] = true
		c.LinkAccess.acls[at] = cloneMap(c.LinkAccess.acls[at])
	}
	return c.LinkAccess.acls[at]
}

func (c *accessCopy) ownQuotas() map[QuotaID]float64 {
	if !c.quotas {
		c.quotas = true
		c.LinkAccess.quotas = cloneMap(c.LinkAccess.quotas)
	}
	return c.LinkAccess.quotas
}

// endAccess ends the step's copy of what a link has made, if nothing of it is left: no empty one is kept.
func endAccess(s *step, link UUID) {
	if a := s.m.access[link]; a != nil && (a.n > 0 || len(a.quotas) > 0) {
		return
	}
	delete(s.access, link)
	if delete(s.m.access, link); len(s.m.access) == 0 {
		s.m.access, s.access = nil, nil
	}
}

// dropAccess drops what is known of what a link has made. The ACLs and quotas stay.
func dropAccess(s *step, link UUID) {
	if s.m.access[link] == nil {
		return
	}
	if s.access == nil {
		s.access = map[UUID]*accessCopy{}
		s.m.access = cloneMap(s.m.access)
	}
	s.m.access[link] = nil
	endAccess(s, link)
}

func setLinkACL(s *step, r LinkACLSet) error {
	c, err := copyAccess(s, r.Link)
	if err != nil {
		return err
	}
	shard := c.shardOf(r.Principal)
	isShared, isMade := shard[r.ACL]
	switch {
	case !r.IsComplete():
		return fmt.Errorf("an ACL of link %s lacks a value: %+v", r.Link, r.ACL)
	case isMade && isShared == r.IsShared:
		return fmt.Errorf("an ACL of link %s is set again: %+v", r.Link, r.ACL)
	case !isMade && c.n >= MaxLinkACLs:
		return fmt.Errorf("link %s has more than %d ACLs", r.Link, MaxLinkACLs)
	case !isMade:
		c.n++
	}
	shard[r.ACL] = r.IsShared
	return nil
}

func unsetLinkACL(s *step, r LinkACLUnset) error {
	c, err := copyAccess(s, r.Link)
	if err != nil {
		return err
	}
	shard := c.shardOf(r.Principal)
	if _, isMade := shard[r.ACL]; !isMade {
		return fmt.Errorf("an ACL of link %s is unset, and is not there: %+v", r.Link, r.ACL)
	}
	delete(shard, r.ACL)
	c.n--
	endAccess(s, r.Link)
	return nil
}

func setLinkQuota(s *step, r LinkQuotaSet) error {
	c, err := copyAccess(s, r.Link)
	if err != nil {
		return err
	}
	all := c.ownQuotas()
	switch _, isMade := all[r.QuotaID]; {
	case !r.Entity.HasKey(r.Key) || !(r.Value >= LeftQuota) || math.IsInf(r.Value, 1):
		return fmt.Errorf("a quota %s of link %s of %v for %+v", r.Key, r.Link, r.Value, r.Entity)
	case !isMade && len(all) >= MaxLinkQuotas:
		return fmt.Errorf("link %s has more than %d quotas", r.Link, MaxLinkQuotas)
	}
	all[r.QuotaID] = r.Value
	return nil
}

func unsetLinkQuota(s *step, r LinkQuotaUnset) error {
	c, err := copyAccess(s, r.Link)
	if err != nil {
		return err
	}
	all := c.ownQuotas()
	if _, isMade := all[r.QuotaID]; !isMade {
		return fmt.Errorf("a quota %s of link %s for %+v is unset, and is not there", r.Key, r.Link, r.Entity)
	}
	delete(all, r.QuotaID)
	endAccess(s, r.Link)
	return nil
}

// appendAccess appends the records of what a link has made.
func appendAccess(b []byte, link UUID, a *LinkAccess) []byte {
	acls := slices.SortedFunc(a.ACLs(), func(x, y LinkACL) int {
		return cmp.Or(strings.Compare(x.Principal, y.Principal), compareACLs(x.ACL, y.ACL))
	})
	for _, acl := range acls {
		b = Append(b, LinkACLSet{link, acl})
	}
	quotas := a.Quotas()
	sorted := slices.SortedFunc(maps.Keys(quotas), func(x, y QuotaID) int {
		return cmp.Or(compareQuotaEntities(x.Entity, y.Entity), cmp.Compare(x.Key, y.Key))
	})
	for _, id := range sorted {
		b = Append(b, LinkQuotaSet{link, id, quotas[id]})
	}
	return b
}
