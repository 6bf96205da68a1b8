package controller

import "github.com/leatstream/leat/internal/meta"

// claimACL notes that somebody who is not a link asks for an ACL: no link that has made it removes it any more.
func claimACL(records []byte, m *meta.Image, a meta.ACL) []byte {
	for _, l := range m.Links().All() {
		if isShared, isMade := m.LinkAccess(l.ID).FindACL(a); isMade && !isShared {
			records = meta.Append(records, meta.LinkACLSet{Link: l.ID, LinkACL: meta.LinkACL{ACL: a, IsShared: true}})
		}
	}
	return records
}

// claimQuota notes that somebody who is not a link sets or removes a quota: no link that has set it changes it any more.
func claimQuota(records []byte, m *meta.Image, id meta.QuotaID) []byte {
	for _, l := range m.Links().All() {
		if value, isMade := m.LinkAccess(l.ID).Quotas()[id]; isMade && value != meta.LeftQuota {
			records = meta.Append(records, meta.LinkQuotaSet{Link: l.ID, QuotaID: id, Value: meta.LeftQuota})
		}
	}
	return records
}
