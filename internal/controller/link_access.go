package controller

import (
	"github.com/leatstream/leat/internal/meta"
)

// AccessAction is what a link does with an ACL or a quota.
type AccessAction string

// The actions.
const (
	AddAccess AccessAction = "add" // an ACL, or set a quota
	// RemoveAccess removes what the link has made, unless somebody else has asked for it, too: then it is only not the link's any more.
	RemoveAccess AccessAction = "remove"
	ForgetAccess AccessAction = "forget" // it is not the link's any more, and stays as it is
)

// LinkACL asks for a change of an ACL that a link makes.
type LinkACL struct {
	Action AccessAction `json:"action"`
	ACL    meta.ACL     `json:"acl"`
}

// LinkQuota asks for a change of a quota that a link sets.
type LinkQuota struct {
	Action AccessAction `json:"action"`
	Quota  meta.QuotaID `json:"quota"`
	Value  float64      `json:"value,omitempty"` // of AddAccess
}

// changeAccess decides as many ACLs and quotas of a link, beginning with one of them, as fit into one part, each on the image after those before it. It knows who has made them, and takes nothing from
// others: so who asks need not have seen the newest image.
func changeAccess(r *Rules, link meta.UUID, acls []LinkACL, quotas []LinkQuota, from int) (d Part, results []*Error, refused *Error) {
	if r.Image.Links().Find(link) == nil {
		return Part{}, nil, refuse(UnknownLink, "There is no link of the id %s.", link)
	}
	d = r.newPart()
	m := r.Image
	for i := from; i < len(acls)+len(quotas); i++ {
		var records []byte
		var refused *Error
		if i < len(acls) {
			records, refused = changeLinkACL(m, link, &acls[i])
		} else {
			records, refused = changeLinkQuota(m, link, &quotas[i-len(acls)])
		}
		after, _, err := meta.Apply(m, records)
		if err != nil {
			records, after, refused = nil, m, refuse(InvalidRequest, "The metadata cannot have that: %v.", err)
		}
		if !d.add(records) {
			break
		}
		m = after
		results = append(results, refused)
	}
	return d, results, nil
}

func changeLinkACL(m *meta.Image, link meta.UUID, q *LinkACL) (records []byte, refused *Error) {
	isShared, isMade := m.LinkAccess(link).FindACL(q.ACL)
	_, isOthers := findOtherMaker(m, link, q.ACL)
	switch {
	case q.Action == AddAccess:
		if isMade {
			return nil, nil
		}
		return addLinkACL(m, link, q.ACL)
	case !isMade:
		return nil, nil
	case q.Action == RemoveAccess && !isShared && !isOthers && m.ACLs().Has(q.ACL):
		records = meta.Append(nil, meta.ACLUnset{ACL: q.ACL})
	case q.Action != RemoveAccess && q.Action != ForgetAccess:
		return nil, refuse(InvalidRequest, "There is no change %q of ACLs of links.", q.Action)
	}
	return meta.Append(records, meta.LinkACLUnset{Link: link, ACL: q.ACL}), nil
}

// addLinkACL adds an ACL for a link. One that another link has made is of both from now on; also if somebody has removed it, so that neither adds it again. One that a person has made stays the person's.
func addLinkACL(m *meta.Image, link meta.UUID, a meta.ACL) (records []byte, refused *Error) {
	note := meta.LinkACLSet{Link: link, LinkACL: meta.LinkACL{ACL: a}}
	var isOthers bool
	note.IsShared, isOthers = findOtherMaker(m, link, a)
	switch {
	case m.LinkAccess(link).Len() >= meta.MaxLinkACLs:
		return nil, refuse(PolicyViolation, "A link makes at most %d ACLs: have it follow fewer principals.", meta.MaxLinkACLs)
	case isOthers:
		return meta.Append(nil, note), nil
	case m.ACLs().Has(a):
		return nil, nil
	}
	records, results := createACLs(m, []meta.ACL{a})
	if results[0] != nil {
		return nil, results[0]
	}
	return meta.Append(records, note), nil
}

// findOtherMaker finds out whether another link has made an ACL, and whether it is shared with a person.
func findOtherMaker(m *meta.Image, link meta.UUID, a meta.ACL) (isShared, isMade bool) {
	for _, l := range m.Links().All() {
		if shared, made := m.LinkAccess(l.ID).FindACL(a); made && l.ID != link {
			isShared, isMade = isShared || shared, true
		}
	}
	return isShared, isMade
}

func changeLinkQuota(m *meta.Image, link meta.UUID, q *LinkQuota) (records []byte, refused *Error) {
	own := m.LinkAccess(link).Quotas()
	was, isMade := own[q.Quota]
	value, isHere := m.Quotas().ByEntity[q.Quota.Entity][q.Quota.Key]
	isAsMade := isMade && isHere && value == was // LeftQuota is the value of no quota
	switch {
	case q.Action == AddAccess && (isMade != isHere || isMade && !isAsMade):
		return nil, nil // somebody else has set, changed or removed it
	case q.Action == AddAccess:
		return setLinkQuota(m, link, q)
	case !isMade:
		return nil, nil
	case q.Action == RemoveAccess && isAsMade:
		records = meta.Append(nil, meta.QuotaUnset{Entity: q.Quota.Entity, Key: q.Quota.Key})
	case q.Action != RemoveAccess && q.Action != ForgetAccess:
		return nil, refuse(InvalidRequest, "There is no change %q of quotas of links.", q.Action)
	}
	return meta.Append(records, meta.LinkQuotaUnset{Link: link, QuotaID: q.Quota}), nil
}

func setLinkQuota(m *meta.Image, link meta.UUID, q *LinkQuota) (records []byte, refused *Error) {
	own := m.LinkAccess(link).Quotas()
	was, isMade := own[q.Quota]
	switch {
	case isMade && was == q.Value:
		return nil, nil
	case !isMade && len(own) >= meta.MaxLinkQuotas:
		return nil, refuse(PolicyViolation, "A link sets at most %d quotas: have it follow fewer principals and client ids.", meta.MaxLinkQuotas)
	case m.Quotas().ByEntity[q.Quota.Entity] == nil && len(m.Quotas().ByEntity) >= maxQuotaEntities:
		return nil, refuse(PolicyViolation, "A cluster has quotas for at most %d entities: remove those that are not used.", maxQuotaEntities)
	}
	e := &q.Quota.Entity
	for _, name := range []meta.QuotaName{e.User, e.ClientID} {
		if len(name.Name) > maxQuotaName {
			return nil, refuse(InvalidRequest, "A name of an entity has at most %d bytes.", maxQuotaName)
		}
	}
	records, refused = alterEntity(m, *e, []QuotaOp{{Key: string(q.Quota.Key), Value: q.Value}})
	if refused != nil {
		return nil, refused
	}
	return meta.Append(records, meta.LinkQuotaSet{Link: link, QuotaID: q.Quota, Value: q.Value}), nil
}
