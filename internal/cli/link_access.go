package cli

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/mirror/follow"
	"github.com/leatstream/leat/internal/mirror/names"
)

// linkAccess says by flags which ACLs and quotas of a source a link follows.
type linkAccess struct {
	acls, quotas                                     string
	principals, notPrincipals, mapped                []string
	groups, notGroups, transactions, notTransactions []string
	clients, notClients                              []string
	allNames, defaults                               bool
}

// accessKeys are the settings of that.
func accessKeys() []string {
	return []string{
		aclsKey, allNamesKey, aclGroupsKey, aclNotGroupsKey, transactionsKey, notTransactionsKey, principalsKey, notPrincipalsKey, mapPrincipalsKey, quotasKey, clientsKey, notClientsKey, defaultsKey,
	}
}

func (l *linkAccess) addFlags(a *app, cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&l.acls, "acls", "", `"on": ACLs of the source for mirrored topics, and for groups and transactional ids, are made here, too (default: off, since it widens rights here)`)
	f.StringVar(&l.quotas, "quotas", "", `"on": quotas of the source are set here, too (default: off)`)
	lists := map[string]*[]string{
		"principals": &l.principals, "exclude-principals": &l.notPrincipals, "acl-groups": &l.groups, "acl-exclude-groups": &l.notGroups, "acl-transactional-ids": &l.transactions,
		"acl-exclude-transactional-ids": &l.notTransactions, "quota-client-ids": &l.clients, "quota-exclude-client-ids": &l.notClients,
	}
	for name, of := range map[string]string{
		"principals": "principals whose ACLs and quotas are followed, such as 'User:app-*'; may be repeated (default: all)", "exclude-principals": "principals whose ACLs and quotas are not followed; may be repeated",
		"acl-groups": "consumer groups whose ACLs are followed; may be repeated (default: all)", "acl-exclude-groups": "consumer groups whose ACLs are not followed; may be repeated",
		"acl-transactional-ids":         "transactional ids whose ACLs are followed; may be repeated (default: all)",
		"acl-exclude-transactional-ids": "transactional ids whose ACLs are not followed; may be repeated",
		"quota-client-ids":              "client ids whose quotas are followed; may be repeated (default: all)",
		"quota-exclude-client-ids":      "client ids whose quotas are not followed; may be repeated",
	} {
		f.StringArrayVar(lists[name], name, nil, "a `pattern` of "+of)
	}
	f.StringArrayVar(&l.mapped, "map-principal", nil, "another name here for a principal of the source, as `SOURCE=HERE`; may be repeated")
	f.BoolVar(&l.allNames, "acl-all-names", false, "follow ACLs for all topics, groups or transactional ids of the source, which are then for all here")
	f.BoolVar(&l.defaults, "quota-defaults", false, "follow quotas for all users or client ids of the source, which are then for all here")
	for name := range lists {
		a.completeFlag(cmd, name, completeNothing)
	}
	a.completeFlag(cmd, "map-principal", completeNothing)
	for _, name := range []string{"acls", "quotas"} {
		a.completeFlag(cmd, name, completeWords("on", "off"))
	}
}

// readWish puts what the flags say into the settings of a link.
func (l *linkAccess) readWish(cmd *cobra.Command, w *linkWish) error {
	for _, one := range [][2]string{{aclsKey, l.acls}, {quotasKey, l.quotas}} {
		switch key, text := one[0], one[1]; text {
		case "":
		case "on", "off":
			w.set[key] = text
		default:
			return usagef("--%s %s: write on or off", key, text)
		}
	}
	for key, list := range map[string][]string{
		principalsKey: l.principals, notPrincipalsKey: l.notPrincipals, aclGroupsKey: l.groups, aclNotGroupsKey: l.notGroups, transactionsKey: l.transactions, notTransactionsKey: l.notTransactions,
		clientsKey: l.clients, notClientsKey: l.notClients,
	} {
		if len(list) == 0 {
			continue
		}
		w.set[key] = strings.Join(list, ",")
		if _, err := names.ParseFilter(w.set[key], ""); err != nil {
			return usagef("%s: %v", linkFlagOf(key), err)
		}
	}
	if len(l.mapped) > 0 {
		text, err := joinPrincipals(l.mapped)
		if err != nil {
			return err
		}
		w.set[mapPrincipalsKey] = text
	}
	for key, one := range map[string]struct {
		name string
		is   bool
	}{allNamesKey: {"acl-all-names", l.allNames}, defaultsKey: {"quota-defaults", l.defaults}} {
		if cmd.Flag(one.name).Changed {
			w.set[key] = strconv.FormatBool(one.is)
		}
	}
	return nil
}

// joinPrincipals makes the setting of renames as people write them, with or without the type of a principal.
func joinPrincipals(list []string) (string, error) {
	const user = auth.UserType + ":"
	var all []string
	for _, text := range list {
		at := strings.LastIndex(text, "="+user)
		if at < 0 {
			at = strings.LastIndexByte(text, '=')
		}
		if at < 0 {
			return "", usagef("--map-principal %s: write it as SOURCE=HERE, such as alice=north-alice", text)
		}
		from, to := text[:at], text[at+1:]
		if !strings.HasPrefix(from, user) {
			from = user + from
		}
		if !strings.HasPrefix(to, user) {
			to = user + to
		}
		all = append(all, from+"="+to)
	}
	joined := strings.Join(all, ";")
	if _, err := follow.ParsePrincipals(joined); err != nil {
		return "", usagef("--map-principal: %v", err)
	}
	return joined, nil
}
