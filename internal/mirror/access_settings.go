package mirror

import (
	"fmt"
	"slices"
	"strings"

	"github.com/leatstream/leat/internal/mirror/follow"
	"github.com/leatstream/leat/internal/mirror/names"
)

// These are the keys of the settings that say which ACLs and quotas of a source a link follows: none, unless it is asked to, since they widen rights here.
const (
	keyPrincipals      = "principals"         // patterns of principals whose ACLs and quotas are followed, such as User:app-*; unset: all
	keyNotPrincipals   = "principals.exclude" // patterns of those that are left out
	keyMapPrincipals   = "principals.map"     // other names for them here: see follow.ParsePrincipals
	keyACLs            = "acls"               // on or off
	keyACLGroups       = "acls.groups"        // patterns of consumer groups whose ACLs are followed; unset: all
	keyACLNotGroups    = "acls.groups.exclude"
	keyTransactions    = "acls.transactional.ids" // patterns of transactional ids whose ACLs are followed; unset: all
	keyNotTransactions = "acls.transactional.ids.exclude"
	keyAllNames        = "acls.all.names"    // true: an ACL for all topics, groups or transactional ids of the source is one for all here
	keyQuotas          = "quotas"            // on or off
	keyClients         = "quotas.client.ids" // patterns of client ids whose quotas are followed; unset: all
	keyNotClients      = "quotas.client.ids.exclude"
	keyDefaults        = "quotas.defaults" // true: quotas for all users or client ids of the source without one of their own are for all here
)

// access is those settings that say which ACLs and quotas are followed.
type access struct {
	acls   *follow.ACLRules   // nil: none
	quotas *follow.QuotaRules // nil: none
	idle   []string           // keys of settings that are set, and have no effect
}

// readAccess takes them out of a set of settings. here gives topics their names.
func readAccess(set map[string]string, here *names.Mapping) (a access, err error) {
	take := func(key string) string {
		v := strings.TrimSpace(set[key])
		delete(set, key)
		return v
	}
	isSet := map[string]bool{}
	for _, key := range []string{
		keyPrincipals, keyNotPrincipals, keyMapPrincipals, keyACLGroups, keyACLNotGroups, keyTransactions, keyNotTransactions, keyAllNames, keyClients, keyNotClients, keyDefaults,
	} {
		_, isSet[key] = set[key]
	}
	on, err := readSwitches(take)
	if err != nil {
		return a, err
	}
	filters := map[string]*names.Filter{}
	for key, not := range map[string]string{keyPrincipals: keyNotPrincipals, keyACLGroups: keyACLNotGroups, keyTransactions: keyNotTransactions, keyClients: keyNotClients} {
		include := take(key)
		if include == "" {
			include = "*"
		}
		if filters[key], err = names.ParseFilter(include, take(not)); err != nil {
			return a, fmt.Errorf("%s: %w", key, err)
		}
	}
	renamed, err := follow.ParsePrincipals(take(keyMapPrincipals))
	if err != nil {
		return a, fmt.Errorf("%s: %w", keyMapPrincipals, err)
	}
	if on.acls {
		a.acls = &follow.ACLRules{Principals: filters[keyPrincipals], Groups: filters[keyACLGroups], TransactionalIDs: filters[keyTransactions], Names: here, Renamed: renamed, AllNames: on.allNames}
	}
	if on.quotas {
		a.quotas = &follow.QuotaRules{Principals: filters[keyPrincipals], ClientIDs: filters[keyClients], Renamed: renamed, Defaults: on.defaults}
	}
	for key, is := range isSet {
		isOfACLs := slices.Contains([]string{keyACLGroups, keyACLNotGroups, keyTransactions, keyNotTransactions, keyAllNames}, key)
		isOfQuotas := slices.Contains([]string{keyClients, keyNotClients, keyDefaults}, key)
		if is && (!on.acls || isOfQuotas) && (!on.quotas || isOfACLs) {
			a.idle = append(a.idle, key)
		}
	}
	slices.Sort(a.idle)
	return a, nil
}

// switches are what is switched on.
type switches struct{ acls, quotas, allNames, defaults bool }

func readSwitches(take func(key string) string) (s switches, err error) {
	for _, one := range []struct {
		key, yes, no string
		is           *bool
	}{{keyACLs, "on", "off", &s.acls}, {keyQuotas, "on", "off", &s.quotas}, {keyAllNames, "true", "false", &s.allNames}, {keyDefaults, "true", "false", &s.defaults}} {
		switch text := take(one.key); text {
		case "", one.no:
		case one.yes:
			*one.is = true
		default:
			return s, fmt.Errorf("%s is %.40q, and neither %s nor %s", one.key, text, one.yes, one.no)
		}
	}
	return s, nil
}
