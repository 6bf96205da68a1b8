package auth

import (
	"fmt"
	"strings"
)

// UserType is the type of the principals of all users.
const UserType = "User"

// GroupType is the type of the principals that stand for all users in a group.
const GroupType = "Group"

// Principal is who a client is, as Kafka names it.
type Principal struct{ Type, Name string }

// User is the principal of a user.
func User(name string) Principal { return Principal{UserType, name} }

// Anonymous is the principal of clients that were not asked who they are.
func Anonymous() Principal { return User("ANONYMOUS") }

// String is the principal as ACLs have it: "User:alice".
func (p Principal) String() string { return p.Type + ":" + p.Name }

// ParsePrincipal parses what String has made.
func ParsePrincipal(s string) (Principal, error) {
	typ, name, found := strings.Cut(s, ":")
	if !found || typ == "" || name == "" {
		return Principal{}, fmt.Errorf("expected a string in format principalType:principalName but got %s", s)
	}
	return Principal{typ, name}, nil
}

// ParsePrincipals parses a list of principals that are separated by semicolons, as super.users has it.
func ParsePrincipals(list string) ([]Principal, error) {
	var all []Principal
	for one := range strings.SplitSeq(list, ";") {
		if one = strings.TrimSpace(one); one == "" {
			continue
		}
		p, err := ParsePrincipal(one)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}
