package controller

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/meta"
)

// accessWorld is two links and some people, who change the same few ACLs and quotas, with what must be so.
type accessWorld struct {
	*linksRig

	rng   *rand.Rand
	links []meta.UUID
	acls  []meta.ACL
	// asked has the ACLs that a person has asked for and not removed since, and removed those that a person has removed and that a link has made and not forgotten.
	asked   map[meta.ACL]bool
	removed map[meta.ACL]map[meta.UUID]bool

	quotas []meta.QuotaID
	values map[meta.QuotaID]float64 // what a person has set last; 0: it was removed
	isSet  map[meta.QuotaID]bool    // a person has set or removed it, and no link has set it since
}

func newAccessWorld(t *testing.T, seed uint64) *accessWorld {
	t.Helper()
	w := &accessWorld{
		linksRig: newLinksRig(t, meta.LatestLevel), rng: rand.New(rand.NewPCG(seed, 1)),
		asked: map[meta.ACL]bool{}, removed: map[meta.ACL]map[meta.UUID]bool{}, values: map[meta.QuotaID]float64{}, isSet: map[meta.QuotaID]bool{},
	}
	for i := range byte(2) {
		l := linkTo(i+1, string('a'+rune(i)))
		w.must(creation(l))
		w.links = append(w.links, l.ID)
	}
	for _, user := range []string{"User:a", "User:b", "User:c"} {
		w.acls = append(w.acls, readACL(user, "t"))
		w.removed[w.acls[len(w.acls)-1]] = map[meta.UUID]bool{}
		w.quotas = append(w.quotas, meta.QuotaID{Entity: meta.QuotaEntity{User: meta.NamedQuota(user[5:])}, Key: meta.ProducerByteRate})
	}
	return w
}

// stepACL has a link or a person change an ACL.
func (w *accessWorld) stepACL() {
	w.Helper()
	a, link := w.acls[w.rng.IntN(len(w.acls))], w.links[w.rng.IntN(2)]
	switch w.rng.IntN(6) {
	case 0:
		records, results := createACLs(w.m, []meta.ACL{a, a})
		if results[0] != nil || results[1] != nil {
			w.Fatal(results)
		}
		w.apply(records)
		w.asked[a] = true
		clear(w.removed[a])
	case 1:
		records, _ := deleteACLs(w.m, []auth.Filter{{Resource: a.Resource, Name: &a.Name, Pattern: a.Pattern, Principal: &a.Principal, Host: &a.Host, Operation: a.Operation, Permission: a.Permission}})
		if w.m.ACLs().Has(a) {
			for _, l := range w.links {
				if _, isMade := w.m.LinkAccess(l).FindACL(a); isMade {
					w.removed[a][l] = true
				}
			}
		}
		w.apply(records)
		delete(w.asked, a)
	case 2, 3:
		w.must(&LinksChange{Kind: ChangeLinkACLs, LinkID: link, ACLs: []LinkACL{{AddAccess, a}}})
		if len(w.removed[a]) == 0 && !w.m.ACLs().Has(a) {
			w.Fatalf("%+v was not added", a)
		}
		if len(w.removed[a]) > 0 {
			w.removed[a][link] = true
		}
	default:
		others := w.links[1]
		if link == others {
			others = w.links[0]
		}
		_, isOthers := w.m.LinkAccess(others).FindACL(a)
		_, isMade := w.m.LinkAccess(link).FindACL(a)
		w.must(&LinksChange{Kind: ChangeLinkACLs, LinkID: link, ACLs: []LinkACL{{RemoveAccess, a}}})
		if delete(w.removed[a], link); isMade && !isOthers && !w.asked[a] && w.m.ACLs().Has(a) {
			w.Fatalf("%+v is still there", a)
		} else if isOthers && len(w.removed[a]) == 0 && !w.m.ACLs().Has(a) {
			w.Fatalf("%+v is another link's, too", a)
		}
		if _, isMade := w.m.LinkAccess(link).FindACL(a); isMade {
			w.Fatal("the link still has it")
		}
	}
	for _, a := range w.acls {
		if w.asked[a] && !w.m.ACLs().Has(a) {
			w.Fatalf("a person has asked for %+v, and it is gone", a)
		}
		for link := range w.removed[a] {
			if _, isMade := w.m.LinkAccess(link).FindACL(a); isMade && w.m.ACLs().Has(a) {
				w.Fatalf("a person has removed %+v, and it is back", a)
			}
		}
	}
}

// stepQuota has a link or a person change a quota.
func (w *accessWorld) stepQuota() {
	w.Helper()
	q, link, value := w.quotas[w.rng.IntN(len(w.quotas))], w.links[w.rng.IntN(2)], float64(1+w.rng.IntN(3))
	present := func() float64 { return w.m.Quotas().ByEntity[q.Entity][q.Key] }
	was := present()
	own, isMade := w.m.LinkAccess(link).Quotas()[q]
	isOwn := isMade && own != meta.LeftQuota
	change := func(action AccessAction, value float64) {
		w.Helper()
		w.must(&LinksChange{Kind: ChangeLinkQuotas, LinkID: link, Quotas: []LinkQuota{{action, q, value}}})
	}
	person := func(op QuotaOp) {
		w.Helper()
		records, results := alterQuotas(w.m, []QuotaChange{{Entity: []QuotaPart{{Type: QuotaUser, Name: &q.Entity.User.Name}}, Ops: []QuotaOp{op}}})
		if results[0] != nil {
			w.Fatal(results[0])
		}
		w.apply(records)
		w.values[q], w.isSet[q] = op.Value, true
	}
	switch w.rng.IntN(6) {
	case 0:
		person(QuotaOp{Key: string(q.Key), Value: value})
	case 1:
		person(QuotaOp{Key: string(q.Key), Remove: true})
	case 2, 3:
		change(AddAccess, value)
		if was == 0 && !isMade { // nobody has one, and a person's removal is one of something else
			w.isSet[q] = false
		}
		if !w.isSet[q] && isOwn && present() != value {
			w.Fatalf("%+v is not %v", q, value)
		}
	case 4:
		change(ForgetAccess, 0)
		if present() != was {
			w.Fatalf("%+v has changed", q)
		}
		if isOwn {
			w.values[q], w.isSet[q] = was, true // nobody's: no link may change it
		}
	default:
		change(RemoveAccess, 0)
		if !w.isSet[q] && isOwn && present() != 0 {
			w.Fatalf("%+v is still there", q)
		}
	}
	for _, q := range w.quotas {
		if got := w.m.Quotas().ByEntity[q.Entity][q.Key]; w.isSet[q] && got != w.values[q] {
			w.Fatalf("a person has set %+v to %v, and it is %v", q, w.values[q], got)
		}
	}
}

// TestAccessOfLinks proves, in random worlds of two links and people who change the same ACLs and quotas, that what a person has asked for is never removed or changed by a link, also if a link had made the
// very same before, that what a person has removed is not made again, and that a link removes what it has made alone.
func TestAccessOfLinks(t *testing.T) {
	for seed := range uint64(30) {
		w := newAccessWorld(t, seed)
		for range 300 {
			w.stepACL()
			w.stepQuota()
		}
	}
}

// TestAccessIsKeptWhenALinkEnds proves that the ACLs and quotas of a link that is removed stay, and that another link takes them for those of a person.
func TestAccessIsKeptWhenALinkEnds(t *testing.T) {
	w := newAccessWorld(t, 1)
	one, two := w.links[0], w.links[1]
	acls := &LinksChange{Kind: ChangeLinkACLs, LinkID: one, ACLs: []LinkACL{{AddAccess, w.acls[0]}, {AddAccess, w.acls[1]}}}
	quotas := &LinksChange{Kind: ChangeLinkQuotas, LinkID: one, Quotas: []LinkQuota{{AddAccess, w.quotas[0], 5}}}
	if w.ask(&LinksChange{Kind: ChangeLinkACLs, LinkID: one, ACLs: []LinkACL{{AddAccess, meta.ACL{}}, {AddAccess, w.acls[2]}}})[0] == nil || !w.m.ACLs().Has(w.acls[2]) {
		t.Error("what cannot be is not refused, or with it what can")
	}
	w.must(acls)
	w.must(quotas)
	w.must(&LinksChange{Kind: RemoveLink, LinkID: one})
	w.must(&LinksChange{Kind: ChangeLinkACLs, LinkID: two, ACLs: []LinkACL{{AddAccess, w.acls[0]}}})
	w.must(&LinksChange{Kind: ChangeLinkACLs, LinkID: two, ACLs: []LinkACL{{RemoveAccess, w.acls[0]}}})
	w.must(&LinksChange{Kind: ChangeLinkQuotas, LinkID: two, Quotas: []LinkQuota{{RemoveAccess, w.quotas[0], 0}}})
	if w.m.ACLs().Len() != 3 || w.m.Quotas().ByEntity[w.quotas[0].Entity][w.quotas[0].Key] != 5 || w.m.LinkAccess(one) != nil || w.m.LinkAccess(two) != nil {
		t.Error("something is gone, or has an owner")
	}
	w.refuses("a link that is gone", acls, UnknownLink, "no link of the id")
	for _, value := range []float64{0, -1} {
		w.refuses("no quota", &LinksChange{Kind: ChangeLinkQuotas, LinkID: two, Quotas: []LinkQuota{{AddAccess, w.quotas[1], value}}}, InvalidRequest, "greater than 0")
	}
	w.refuses("a long name", &LinksChange{Kind: ChangeLinkQuotas, LinkID: two, Quotas: []LinkQuota{{AddAccess, meta.QuotaID{
		Entity: meta.QuotaEntity{User: meta.NamedQuota(strings.Repeat("x", 1025))}, Key: meta.ProducerByteRate,
	}, 1}}}, InvalidRequest, "1024 bytes")
	before := meta.Encode(w.m)
	if got := w.ask(&LinksChange{Kind: ChangeLinkACLs, LinkID: two, ACLs: slices.Repeat([]LinkACL{{AddAccess, w.acls[0]}}, 5)}); len(got) != 5 || !bytes.Equal(before, meta.Encode(w.m)) {
		t.Errorf("%v", got)
	}
}
