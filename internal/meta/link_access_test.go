package meta

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"
)

// TestLinkAccess proves that an image tells exactly what a link has made, in a snapshot, too, that images of before stay as they were, and that the end of a link ends that and nothing else.
func TestLinkAccess(t *testing.T) {
	one, two := linkOf(1, "one"), linkOf(2, "two")
	quota := QuotaID{QuotaEntity{User: NamedQuota("alice")}, ProducerByteRate}
	m, _ := applyStep(t, Empty(), Append(Append(Append(nil, LevelSet{LatestLevel}), LinkSet{one}), LinkSet{two}))
	begin := Encode(m)
	var b []byte
	for i := range 300 {
		a := acl(fmt.Sprint("User:", i), "orders")
		b = Append(Append(b, ACLSet{a}), LinkACLSet{one.ID, LinkACL{ACL: a}})
	}
	b = Append(b, QuotaSet{quota.Entity, quota.Key, 5})
	m, _ = applyStep(t, m, Append(b, LinkQuotaSet{one.ID, quota, 5}))
	shared := acl("User:7", "orders")
	next, _ := applyStep(t, m, Append(Append(nil, LinkACLSet{one.ID, LinkACL{shared, true}}), LinkACLSet{two.ID, LinkACL{shared, true}}))
	if isShared, isMade := m.LinkAccess(one.ID).FindACL(shared); isShared || !isMade || m.LinkAccess(two.ID) != nil {
		t.Error("the image of before has changed")
	}
	if isShared, isMade := next.LinkAccess(one.ID).FindACL(shared); !isShared || !isMade || next.LinkAccess(one.ID).Len() != 300 || next.LinkAccess(two.ID).Len() != 1 {
		t.Errorf("%v, %v", isShared, isMade)
	}
	if got := next.LinkAccess(one.ID).Quotas(); !maps.Equal(got, map[QuotaID]float64{quota: 5}) {
		t.Errorf("%v", got)
	}
	loaded, _ := applyStep(t, Empty(), Encode(next))
	if !bytes.Equal(Encode(loaded), Encode(next)) || len(slices.Collect(loaded.LinkAccess(one.ID).ACLs())) != 300 {
		t.Error("a snapshot has lost what a link has made")
	}
	ended, _ := applyStep(t, next, Append(nil, LinkRemoved{one.ID}))
	if ended.LinkAccess(one.ID) != nil || ended.LinkAccess(two.ID).Len() != 1 || ended.ACLs().Len() != 300 || len(ended.Quotas().ByEntity) != 1 {
		t.Error("the end of a link has ended something else, or not what it has made")
	}
	if next.LinkAccess(one.ID).Len() != 300 {
		t.Error("the image of before has changed")
	}
	b = nil
	for i := range 300 {
		a := acl(fmt.Sprint("User:", i), "orders")
		b = Append(Append(b, ACLUnset{a}), LinkACLUnset{one.ID, a})
	}
	b = Append(Append(b, QuotaUnset(quota)), LinkQuotaUnset{one.ID, quota})
	if m, _ = applyStep(t, m, b); !bytes.Equal(Encode(m), begin) {
		t.Error("something is left")
	}
	m, _ = applyStep(t, m, Append(Append(nil, LinkACLSet{one.ID, LinkACL{ACL: shared}}), LinkQuotaSet{one.ID, quota, LeftQuota}))
	checkRefused(
		t, m,
		LinkACLSet{UUID{15: 9}, LinkACL{ACL: shared}},
		LinkACLSet{one.ID, LinkACL{ACL: shared}},
		LinkACLSet{one.ID, LinkACL{ACL: ACL{Principal: "User:a"}}},
		LinkACLUnset{one.ID, acl("User:8", "orders")},
		LinkACLUnset{two.ID, shared},
		LinkQuotaSet{one.ID, quota, math.NaN()},
		LinkQuotaSet{one.ID, quota, math.Inf(1)},
		LinkQuotaSet{one.ID, quota, -1},
		LinkQuotaSet{one.ID, QuotaID{quota.Entity, ConnectionRate}, 1},
		LinkQuotaUnset{one.ID, QuotaID{quota.Entity, ConsumerByteRate}},
		LinkQuotaUnset{two.ID, quota},
	)
}
