package follow

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror/names"
)

// maxExpanded is how many ACLs of single topics a plan makes of those for all topics of the source.
const maxExpanded = 10_000

// ACLRules say which ACLs and roles of a source a link follows. They never give more here than at the source: what denies is followed wherever it matters for what allows.
type ACLRules struct {
	// Principals are those whose ACLs are followed, such as User:app-*. ACLs of others that deny what is allowed to these are followed, too: User:* may be among either.
	Principals *names.Filter
	// Groups and TransactionalIDs are the names of those resources; nil: ACLs for them are not followed. ACLs for topics are, for those that are mirrored. Those for the cluster, for users and for
	// tokens never are: they are about this cluster.
	Groups, TransactionalIDs *names.Filter
	Names                    *names.Mapping
	Renamed                  map[string]string // the principals here by those at the source; others keep their names
	// AllNames says that an ACL for all topics, groups or transactional ids of the source is one for all here, also for those that have nothing to do with the source.
	AllNames bool
}

// ACLAction is what a step does.
type ACLAction uint8

// The actions.
const (
	AddACL    ACLAction = iota + 1
	RemoveACL           // one that the link has made
	ForgetACL           // it is gone already, and need not be kept among what the link has made
	LeaveACL            // one that the link has made stays, and is not the link's any more
)

// ACLStep does something with an ACL.
type ACLStep struct {
	Action ACLAction
	ACL    meta.ACL
}

// String is the step as a sentence.
func (s ACLStep) String() string {
	text := auth.FormatACL(&s.ACL)
	switch s.Action {
	case AddACL:
		return "Add " + text + "."
	case RemoveACL:
		return "Remove " + text + "."
	case LeaveACL:
		return "Leave " + text + ", which is not the link's any more."
	default:
		return "Forget " + text + ", which is gone."
	}
}

// aclPlanner compares the ACLs of two clusters.
type aclPlanner struct {
	Plan[ACLStep]
	rules    *ACLRules
	state    *ACLState
	mirrored []string // at the source, in order
	wanted   map[meta.ACL]struct{}
	expanded int
	allows   []meta.ACL // those of the source that are followed
	wide     []string   // what is left out since it is for all names
}

// ACLState is what ACLs are planned by.
type ACLState struct {
	Source   []meta.ACL     // all of the source
	Mirrored []string       // the topics of the source that are mirrored, by their names there
	Promoted []string       // the topics that were mirrored and are ordinary ones, by their names here: what the link has made for them stays
	Here     []meta.ACL     // all of this cluster
	Made     []meta.LinkACL // that the link has added, whether they are still there or not
}

// ACLs plans which ACLs are added and removed. One that somebody has removed here is not added again, and one that somebody else has asked for, too, is not removed. A source that has none at all,
// although the link has made some, removes nothing: its authorizer may be off.
func ACLs(r *ACLRules, s *ACLState) Plan[ACLStep] {
	p := aclPlanner{rules: r, state: s, mirrored: slices.Sorted(slices.Values(s.Mirrored)), wanted: map[meta.ACL]struct{}{}}
	if len(s.Source) == 0 && len(s.Made) > 0 {
		p.warn("The source has no ACLs, and the link has made %d here: they stay, in case the source has only switched its authorizer off.", len(s.Made))
		return p.Plan
	}
	p.chooseAll(s.Source)
	p.compare()
	p.warnOf(p.wide, "is for all of the source, and is not followed, since it would be for all here", "are for all of the source, and are not followed, since they would be for all here")
	p.warnOfOthers(s.Source)
	p.warnOfRenames(s.Source)
	p.warnOfHosts()
	return p.Plan
}

// warnOfOthers tells of ACLs of those who are followed that no link follows: those that are about the source itself, and those that this version does not know.
func (p *aclPlanner) warnOfOthers(source []meta.ACL) {
	var own, unknown []string
	for _, a := range slices.SortedFunc(slices.Values(source), compareACLs) {
		switch {
		case !p.rules.Principals.Has(a.Principal):
		case !a.IsComplete():
			unknown = append(unknown, fmt.Sprintf("An ACL of %s on %.60q (resource type %d, pattern type %d, operation %d, permission %d)", a.Principal, a.Name, a.Resource, a.Pattern, a.Operation, a.Permission))
		case a.Resource == meta.ClusterResource || a.Resource == meta.DelegationTokenResource || a.Resource == meta.UserResource:
			own = append(own, auth.FormatACL(&a))
		}
	}
	p.warnOf(own, "is about the source itself, and is not followed: grant it here by hand if it is needed", "are about the source itself, and are not followed: grant here by hand what is needed")
	p.warnOf(unknown, "is not known to this version, and is not followed", "are not known to this version, and are not followed")
}

// chooseAll finds the ACLs that are wanted here. What allows comes first, since what denies is followed where it matters for that.
func (p *aclPlanner) chooseAll(source []meta.ACL) {
	sorted := slices.SortedFunc(slices.Values(source), compareACLs)
	for i := range sorted {
		if a := &sorted[i]; a.Permission == meta.Allow && p.isChosen(a) {
			p.choose(a)
		}
	}
	for i := range sorted {
		if a := &sorted[i]; a.Permission == meta.Deny && p.isChosen(a) {
			p.choose(a)
		}
	}
}

// filterOf is the filter of a type of resources; false: ACLs for it are not followed.
func (p *aclPlanner) filterOf(t meta.ResourceType) (*names.Filter, bool) {
	switch t {
	case meta.GroupResource:
		return p.rules.Groups, p.rules.Groups != nil
	case meta.TransactionalIDResource:
		return p.rules.TransactionalIDs, p.rules.TransactionalIDs != nil
	default:
		return nil, t == meta.TopicResource
	}
}

// isChosen tells whether the rules are for an ACL of the source.
func (p *aclPlanner) isChosen(a *meta.ACL) bool {
	f, ok := p.filterOf(a.Resource)
	if !ok || !a.IsComplete() {
		return false
	}
	if a.Permission == meta.Deny && slices.ContainsFunc(p.allows, func(o meta.ACL) bool { return mayMeet(&o, a) }) {
		return true
	}
	return p.rules.Principals.Has(a.Principal) && (isAnyName(a) || p.isMirrored(a, f))
}

func isAnyName(a *meta.ACL) bool { return a.Pattern == meta.LiteralPattern && a.Name == meta.AnyName }

// isMirrored tells whether the resources of an ACL are mirrored, or some of them.
func (p *aclPlanner) isMirrored(a *meta.ACL, f *names.Filter) bool {
	if a.Resource != meta.TopicResource {
		return f.Has(a.Name)
	}
	at, found := slices.BinarySearch(p.mirrored, a.Name)
	if a.Pattern == meta.PrefixedPattern {
		return at < len(p.mirrored) && strings.HasPrefix(p.mirrored[at], a.Name)
	}
	return found
}

// mayMeet tells whether two ACLs are for some resource and some user that are the same.
func mayMeet(a, b *meta.ACL) bool {
	if a.Principal != b.Principal && a.Principal != meta.AnyPrincipal && b.Principal != meta.AnyPrincipal {
		return false
	}
	isIn := func(a, b *meta.ACL) bool {
		return b.Pattern == meta.PrefixedPattern && strings.HasPrefix(a.Name, b.Name)
	}
	return a.Resource == b.Resource && (isAnyName(a) || isAnyName(b) || a.Name == b.Name || isIn(a, b) || isIn(b, a))
}

// choose adds what an ACL of the source is here.
func (p *aclPlanner) choose(a *meta.ACL) {
	here := *a
	if to, ok := p.rules.Renamed[a.Principal]; ok {
		here.Principal = to
	}
	switch {
	case isAnyName(a):
		if !p.chooseAnyName(a, here) {
			return
		}
	case a.Resource != meta.TopicResource:
		p.want(here)
	case a.Pattern == meta.PrefixedPattern:
		p.wantPrefix(here, a.Name)
	default:
		here.Name = p.rules.Names.Here(a.Name)
		p.want(here)
	}
	if a.Permission == meta.Allow {
		p.allows = append(p.allows, *a)
	}
}

func (p *aclPlanner) want(a meta.ACL) { p.wanted[a] = struct{}{} }

// wantPrefix adds an ACL for the topics of the source that begin with a prefix: here they begin with that of the link, too, but for those that are renamed. If another topic got a name that begins so, what
// allows is for the single topics.
func (p *aclPlanner) wantPrefix(a meta.ACL, prefix string) {
	before := p.rules.Names.Prefix() + prefix
	isSingle := func(topic string) bool {
		return p.rules.Names.IsRenamed(topic) && strings.HasPrefix(p.rules.Names.Here(topic), before) && !strings.HasPrefix(topic, prefix)
	}
	mustBeSingle := a.Permission == meta.Allow && slices.ContainsFunc(p.mirrored, isSingle)
	at, _ := slices.BinarySearch(p.mirrored, prefix)
	for _, topic := range p.mirrored[at:] {
		if !strings.HasPrefix(topic, prefix) {
			break
		}
		if mustBeSingle || p.rules.Names.IsRenamed(topic) {
			one := a
			one.Pattern, one.Name = meta.LiteralPattern, p.rules.Names.Here(topic)
			p.want(one)
		}
	}
	if !mustBeSingle && before != "" {
		a.Pattern, a.Name = meta.PrefixedPattern, before
		p.want(a)
	}
}

// chooseAnyName adds what an ACL for all names of the source is here. It tells whether the ACL is followed.
func (p *aclPlanner) chooseAnyName(a *meta.ACL, here meta.ACL) bool {
	isTopic := a.Resource == meta.TopicResource
	switch {
	case p.rules.AllNames:
		p.want(here)
	case isTopic && p.rules.Names.Prefix() != "":
		p.wantPrefix(here, "")
	case isTopic && p.expanded+len(p.mirrored) <= maxExpanded:
		p.expanded += len(p.mirrored)
		for _, topic := range p.mirrored {
			one := here
			one.Name = p.rules.Names.Here(topic)
			p.want(one)
		}
		if a.Permission == meta.Deny {
			p.denyPrefixes(here)
		}
	case a.Permission == meta.Deny:
		p.want(here) // rather too much is denied than too little
	default:
		p.wide = append(p.wide, auth.FormatACL(a))
		return false
	}
	return true
}

// denyPrefixes adds an ACL that denies what those allow that are for prefixes: they are for topics here that are no mirrors, too.
func (p *aclPlanner) denyPrefixes(deny meta.ACL) {
	for i := range p.allows {
		if a := &p.allows[i]; a.Resource == deny.Resource && a.Pattern == meta.PrefixedPattern {
			p.wantPrefix(deny, a.Name)
		}
	}
}

// compare finds the steps. They never allow more in between than before and after: what denies is added first and removed last.
func (p *aclPlanner) compare() {
	isHere, isMade := map[meta.ACL]bool{}, map[meta.ACL]bool{}
	for _, a := range p.state.Here {
		isHere[a] = true
	}
	var ours []meta.LinkACL
	for _, a := range slices.SortedFunc(slices.Values(p.state.Made), func(a, b meta.LinkACL) int { return compareACLs(a.ACL, b.ACL) }) {
		ours, isMade[a.ACL] = append(ours, a), true
	}
	wanted := slices.SortedFunc(maps.Keys(p.wanted), compareACLs)
	addAll := func(permission meta.Permission) {
		for _, a := range wanted {
			if a.Permission == permission && !isHere[a] && !isMade[a] {
				p.Steps = append(p.Steps, ACLStep{AddACL, a})
			}
		}
	}
	endAll := func(action ACLAction, isDue func(a *meta.LinkACL) bool) {
		for i := range ours {
			if a := &ours[i]; !has(p.wanted, a.ACL) && isDue(a) {
				p.Steps = append(p.Steps, ACLStep{action, a.ACL})
			}
		}
	}
	isKept := func(a *meta.LinkACL) bool { return a.IsShared || p.isForPromoted(&a.ACL) }
	addAll(meta.Deny)
	endAll(RemoveACL, func(a *meta.LinkACL) bool { return isHere[a.ACL] && !isKept(a) && a.Permission == meta.Allow })
	addAll(meta.Allow)
	endAll(RemoveACL, func(a *meta.LinkACL) bool { return isHere[a.ACL] && !isKept(a) && a.Permission == meta.Deny })
	endAll(LeaveACL, func(a *meta.LinkACL) bool { return isHere[a.ACL] && isKept(a) })
	endAll(ForgetACL, func(a *meta.LinkACL) bool { return !isHere[a.ACL] })
	var drift []string
	for i := range ours {
		if a := &ours[i]; has(p.wanted, a.ACL) && !isHere[a.ACL] {
			drift = append(drift, auth.FormatACL(&a.ACL))
		}
	}
	p.warnOf(drift, "was removed here, and the link does not add it again", "were removed here, and the link does not add them again")
}

// isForPromoted tells whether an ACL here is for a topic that was promoted.
func (p *aclPlanner) isForPromoted(a *meta.ACL) bool {
	return a.Resource == meta.TopicResource && slices.ContainsFunc(p.state.Promoted, func(topic string) bool {
		return isAnyName(a) || a.Name == topic || a.Pattern == meta.PrefixedPattern && strings.HasPrefix(topic, a.Name)
	})
}

func has[K comparable](set map[K]struct{}, k K) bool {
	_, ok := set[k]
	return ok
}

func compareACLs(a, b meta.ACL) int {
	return cmp.Or(
		strings.Compare(a.Principal, b.Principal), cmp.Compare(a.Resource, b.Resource), strings.Compare(a.Name, b.Name), cmp.Compare(a.Pattern, b.Pattern),
		cmp.Compare(a.Operation, b.Operation), cmp.Compare(a.Permission, b.Permission), strings.Compare(a.Host, b.Host),
	)
}

// warnOfRenames tells of principals of the source that are one here, which so has the rights of both.
func (p *aclPlanner) warnOfRenames(source []meta.ACL) {
	by := map[string][]string{}
	seen := map[string]struct{}{}
	for i := range source {
		from := source[i].Principal
		if has(seen, from) || !p.rules.Principals.Has(from) {
			continue
		}
		seen[from] = struct{}{}
		to := from
		if renamed, ok := p.rules.Renamed[from]; ok {
			to = renamed
		}
		by[to] = append(by[to], from)
	}
	for _, to := range slices.Sorted(maps.Keys(by)) {
		if slices.Sort(by[to]); len(by[to]) > 1 {
			p.warn("%s of the source are all %s here, which has the rights of all.", listNames(by[to]), to)
		}
	}
}

// warnOfHosts tells of ACLs that allow something to some addresses only, which may be others at this site.
func (p *aclPlanner) warnOfHosts() {
	hosts := map[string]struct{}{}
	n := 0
	for a := range p.wanted {
		if a.Host != meta.AnyHost && a.Permission == meta.Allow {
			hosts[a.Host] = struct{}{}
			n++
		}
	}
	if n > 0 {
		p.warn("ACLs that allow something from certain addresses only (%s) are followed as they are: clients that have other addresses here need ACLs of their own.", listNames(slices.Sorted(maps.Keys(hosts))))
	}
}

// ParsePrincipals reads a list of renames, source=here, with semicolons between them, since the names in certificates have commas. The last = counts.
func ParsePrincipals(list string) (map[string]string, error) {
	all := map[string]string{}
	for item := range strings.SplitSeq(list, ";") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		at := strings.LastIndex(item, "=User:")
		if !strings.HasPrefix(item, "User:") || at <= len("User:") || len(item) == at+len("=User:") {
			return nil, fmt.Errorf("the principals %.60q have to be User:source=User:here", item)
		}
		from, to := item[:at], item[at+1:]
		if other, ok := all[from]; ok && other != to {
			return nil, fmt.Errorf("%s is renamed to %s and to %s", from, other, to)
		}
		if from == meta.AnyPrincipal || to == meta.AnyPrincipal {
			return nil, fmt.Errorf("%s cannot be renamed: all users are all users here", from)
		}
		all[from] = to
	}
	return all, nil
}
