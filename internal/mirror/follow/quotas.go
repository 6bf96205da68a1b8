package follow

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror/names"
)

// QuotaRules say which quotas of a source a link follows: those of users and client ids. Quotas of addresses never are: addresses are of a site.
type QuotaRules struct {
	Principals *names.Filter     // such as User:app-*; nil: quotas with a user are not followed
	ClientIDs  *names.Filter     // nil: quotas with a client id are not followed
	Renamed    map[string]string // the principals here by those at the source, as in ACLRules; others keep their names
	// Defaults says that quotas for all users or client ids without one of their own are followed, which are for all here, also for those that have nothing to do with the source.
	Defaults bool
}

// QuotaStep sets a quota, or removes one.
type QuotaStep struct {
	Quota     meta.QuotaID
	Value     float64 // to set, unless Removes
	Removes   bool    // the quota is one that the link has set
	IsForgone bool    // it is removed already, or changed here, and is only no longer one that the link has set
}

// String is the step as a sentence.
func (s QuotaStep) String() string {
	switch {
	case s.IsForgone:
		return fmt.Sprintf("Forget %v.", formatQuota(s.Quota))
	case s.Removes:
		return fmt.Sprintf("Remove %v.", formatQuota(s.Quota))
	default:
		return fmt.Sprintf("Set %s to %v.", formatQuota(s.Quota), s.Value)
	}
}

// formatQuota is a quota as a part of a sentence.
func formatQuota(q meta.QuotaID) string {
	var parts []string
	for _, part := range []struct {
		kind string
		name meta.QuotaName
	}{{"user", q.Entity.User}, {"client id", q.Entity.ClientID}, {"address", q.Entity.IP}} {
		switch {
		case part.name.Is && part.name.Name == "":
			parts = append(parts, "each "+part.kind)
		case part.name.Is:
			parts = append(parts, part.kind+" "+part.name.Name)
		}
	}
	return fmt.Sprintf("%s of %s", q.Key, strings.Join(parts, " with "))
}

// Quotas plans which quotas are set and removed. source are all of the source, here all of this cluster, and made those that the link has set, with the values, or meta.LeftQuota. What somebody has set,
// changed or removed here stays so. As with ACLs, a source that has no quotas at all removes nothing.
func Quotas(r *QuotaRules, source, here, made map[meta.QuotaID]float64) Plan[QuotaStep] {
	var p Plan[QuotaStep]
	if len(source) == 0 && len(made) > 0 {
		p.warn("The source has no quotas, and the link has set %d here: they stay.", len(made))
		return p
	}
	wanted := map[meta.QuotaID]float64{}
	var defaults, merged, changed, others []string
	for _, q := range slices.SortedFunc(maps.Keys(source), compareQuotas) {
		to, isDefault, ok := r.mapQuota(q)
		switch other, isTwice := wanted[to]; {
		case !q.Entity.HasKey(q.Key) || q.Entity.IP.Is:
			others = append(others, formatQuota(q))
		case !ok:
		case isDefault && !r.Defaults:
			defaults = append(defaults, formatQuota(q))
		case isTwice && other != source[q]:
			merged = append(merged, formatQuota(to))
			wanted[to] = min(other, source[q])
		default:
			wanted[to] = source[q]
		}
	}
	for _, q := range slices.SortedFunc(maps.Keys(wanted), compareQuotas) {
		have, isHere := here[q]
		was, isMade := made[q]
		switch {
		case isHere && have == wanted[q]:
		case isMade && isHere && have == was, !isMade && !isHere:
			p.Steps = append(p.Steps, QuotaStep{Quota: q, Value: wanted[q]})
		default:
			changed = append(changed, formatQuota(q))
		}
	}
	for _, q := range slices.SortedFunc(maps.Keys(made), compareQuotas) {
		if _, ok := wanted[q]; !ok {
			have, isHere := here[q]
			p.Steps = append(p.Steps, QuotaStep{Quota: q, Removes: true, IsForgone: !isHere || have != made[q]})
		}
	}
	p.warnOf(changed, "was set, changed or removed here by somebody else, and stays so", "were set, changed or removed here by somebody else, and stay so")
	p.warnOf(slices.Compact(slices.Sorted(slices.Values(merged))), "is of several users of the source, and has the smallest value of theirs", "are of several users of the source, and have the smallest values of theirs")
	p.warnOf(others, "is of an address, or of a kind that there is not here, and is not followed", "are of addresses, or of kinds that there are not here, and are not followed")
	p.warnOf(defaults, "is not followed, since it would be for all here", "are not followed, since they would be for all here")
	return p
}

// mapQuota finds what a quota of the source is here. isDefault says that it is for all who have none of their own; ok is false if the rules are not for it.
func (r *QuotaRules) mapQuota(q meta.QuotaID) (to meta.QuotaID, isDefault, ok bool) {
	e := &q.Entity
	if !e.HasKey(q.Key) || e.IP.Is || !isFollowed(e.User, "User:", r.Principals) || !isFollowed(e.ClientID, "", r.ClientIDs) {
		return q, false, false
	}
	if renamed, ok := r.Renamed["User:"+e.User.Name]; ok && e.User.Is && e.User.Name != "" {
		e.User.Name = strings.TrimPrefix(renamed, "User:")
	}
	return q, e.User.Is && e.User.Name == "" || e.ClientID.Is && e.ClientID.Name == "" && !e.User.Is, true
}

func isFollowed(n meta.QuotaName, before string, f *names.Filter) bool {
	return !n.Is || f != nil && (n.Name == "" || f.Has(before+n.Name))
}

func compareQuotas(a, b meta.QuotaID) int {
	return cmp.Or(compareNames(a.Entity.User, b.Entity.User), compareNames(a.Entity.ClientID, b.Entity.ClientID), compareNames(a.Entity.IP, b.Entity.IP), strings.Compare(string(a.Key), string(b.Key)))
}

func compareNames(a, b meta.QuotaName) int {
	if a.Is != b.Is {
		if a.Is {
			return 1
		}
		return -1
	}
	return strings.Compare(a.Name, b.Name)
}
