package follow_test

import (
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror/follow"
)

func quotaOf(user, client string, key meta.QuotaKey) meta.QuotaID {
	q := meta.QuotaID{Key: key}
	if user != "-" {
		q.Entity.User = meta.NamedQuota(user)
	}
	if client != "-" {
		q.Entity.ClientID = meta.NamedQuota(client)
	}
	return q
}

// TestQuotas proves what is set, removed and left alone here for the quotas of a source.
func TestQuotas(t *testing.T) {
	const in, out = meta.ProducerByteRate, meta.ConsumerByteRate
	type quotas = map[meta.QuotaID]float64
	address := meta.QuotaID{Entity: meta.QuotaEntity{IP: meta.NamedQuota("10.0.0.1")}, Key: meta.ConnectionRate}
	for _, c := range []struct {
		name               string
		rules              follow.QuotaRules
		source, here, made quotas
		steps, warns       []string
	}{
		{
			name:   "users, client ids, both, and what is not followed",
			rules:  follow.QuotaRules{Principals: filter("User:*", "User:root"), ClientIDs: filter("c*", "")},
			source: quotas{quotaOf("a", "-", in): 5, quotaOf("root", "-", in): 5, quotaOf("-", "c1", out): 6, quotaOf("-", "d", out): 6, quotaOf("a", "c1", in): 7, quotaOf("a", "", in): 8, address: 9},
			steps: []string{
				"Set consumer_byte_rate of client id c1 to 6.", "Set producer_byte_rate of user a to 5.", "Set producer_byte_rate of user a with each client id to 8.",
				"Set producer_byte_rate of user a with client id c1 to 7.",
			},
			warns: []string{"connection_creation_rate of address 10.0.0.1 is of an address, or of a kind that there is not here, and is not followed."},
		},
		{
			name:   "quotas for all who have none of their own",
			rules:  follow.QuotaRules{Principals: filter("*", ""), ClientIDs: filter("*", "")},
			source: quotas{quotaOf("", "-", in): 5, quotaOf("-", "", in): 5},
			warns:  []string{"producer_byte_rate of each client id, producer_byte_rate of each user are not followed, since they would be for all here."},
		},
		{
			name:   "these, too",
			rules:  follow.QuotaRules{Principals: filter("*", ""), Defaults: true},
			source: quotas{quotaOf("", "-", in): 5, quotaOf("-", "", in): 5},
			steps:  []string{"Set producer_byte_rate of each user to 5."},
		},
		{
			name:   "users with other names here, of whom two become one",
			rules:  follow.QuotaRules{Principals: filter("*", ""), Renamed: map[string]string{"User:a": "User:x", "User:b": "User:x", "User:c": "User:x"}},
			source: quotas{quotaOf("a", "-", in): 5, quotaOf("b", "-", in): 4, quotaOf("c", "-", in): 6},
			steps:  []string{"Set producer_byte_rate of user x to 4."},
			warns:  []string{"producer_byte_rate of user x is of several users of the source, and has the smallest value of theirs."},
		},
		{
			name:   "what is here already, was changed at the source, changed or removed here, or is of somebody else",
			rules:  follow.QuotaRules{Principals: filter("*", "")},
			source: quotas{quotaOf("same", "-", in): 5, quotaOf("there", "-", in): 6, quotaOf("here", "-", in): 5, quotaOf("gone", "-", in): 5, quotaOf("other", "-", in): 5},
			here:   quotas{quotaOf("same", "-", in): 5, quotaOf("there", "-", in): 5, quotaOf("here", "-", in): 9, quotaOf("other", "-", in): 9, quotaOf("old", "-", in): 5, quotaOf("own", "-", in): 5, quotaOf("old2", "-", in): 9},
			made: quotas{
				quotaOf("same", "-", in): 5, quotaOf("there", "-", in): 5, quotaOf("here", "-", in): 5, quotaOf("gone", "-", in): 5, quotaOf("old", "-", in): 5, quotaOf("old2", "-", in): 5, quotaOf("old3", "-", in): 5,
			},
			steps: []string{
				"Set producer_byte_rate of user there to 6.", "Remove producer_byte_rate of user old.", "Forget producer_byte_rate of user old2.", "Forget producer_byte_rate of user old3.",
			},
			warns: []string{"producer_byte_rate of user gone, producer_byte_rate of user here, producer_byte_rate of user other were set, changed or removed here by somebody else, and stay so."},
		},
		{
			name:   "what a person has set since, to the very same value",
			rules:  follow.QuotaRules{Principals: filter("*", "")},
			source: quotas{quotaOf("a", "-", in): 6, quotaOf("b", "-", in): 6}, here: quotas{quotaOf("a", "-", in): 5, quotaOf("c", "-", in): 5},
			made:  quotas{quotaOf("a", "-", in): meta.LeftQuota, quotaOf("b", "-", in): meta.LeftQuota, quotaOf("c", "-", in): meta.LeftQuota},
			steps: []string{"Forget producer_byte_rate of user c."},
			warns: []string{"producer_byte_rate of user a, producer_byte_rate of user b were set, changed or removed here by somebody else, and stay so."},
		},
		{
			name: "a source without any", rules: follow.QuotaRules{Principals: filter("*", "")}, here: quotas{quotaOf("a", "-", in): 5}, made: quotas{quotaOf("a", "-", in): 5},
			warns: []string{"The source has no quotas, and the link has set 1 here: they stay."},
		},
	} {
		p := follow.Quotas(&c.rules, c.source, c.here, c.made)
		if diff := cmp.Diff(append([]string{}, c.steps...), p.Sentences()); diff != "" {
			t.Errorf("%s: steps: %s", c.name, diff)
		}
		if diff := cmp.Diff(c.warns, p.Warnings); diff != "" {
			t.Errorf("%s: warnings: %s", c.name, diff)
		}
	}
}

// TestQuotasSettle proves for random quotas that after the steps there are no more, and that no quota is touched that the link has not set.
func TestQuotasSettle(t *testing.T) {
	name := rapid.SampledFrom([]string{"-", "", "a", "b", "c"})
	quota := rapid.Custom(func(t *rapid.T) meta.QuotaID {
		return quotaOf(name.Draw(t, "user"), name.Draw(t, "client"), meta.ProducerByteRate)
	})
	quotas := rapid.MapOfN(quota, rapid.SampledFrom([]float64{1, 2}), 0, 6)
	rapid.Check(t, func(t *rapid.T) {
		r := &follow.QuotaRules{Principals: filter("*", "User:c"), ClientIDs: filter("a,b", ""), Renamed: map[string]string{"User:a": "User:b"}, Defaults: rapid.Bool().Draw(t, "defaults")}
		there, local, made := quotas.Draw(t, "source"), quotas.Draw(t, "here"), quotas.Draw(t, "made")
		p := follow.Quotas(r, there, local, made)
		then, madeThen := maps.Clone(local), maps.Clone(made)
		for _, s := range p.Steps {
			was, isHere := then[s.Quota]
			if set, isMade := madeThen[s.Quota]; isHere && !s.IsForgone && (!isMade || set != was) {
				t.Fatalf("%v is of a quota of somebody else", s)
			}
			switch {
			case s.IsForgone:
				delete(madeThen, s.Quota)
			case s.Removes:
				delete(madeThen, s.Quota)
				delete(then, s.Quota)
			default:
				then[s.Quota], madeThen[s.Quota] = s.Value, s.Value
			}
		}
		if again := follow.Quotas(r, there, then, madeThen); len(again.Steps) > 0 {
			t.Fatalf("then there is more to do: %v", again.Steps)
		}
	})
}
