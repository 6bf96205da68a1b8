package config

import (
	"fmt"
	"strings"
)

// StandardAuthorizer is the only value of authorizer.class.name that has clients authorised: Kafka's name of the authorizer whose rules
// are built in.
const StandardAuthorizer = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"

// The configs of the authorizer.
const (
	authorizerClass = "authorizer.class.name"
	superUsers      = "super.users"
	allowEveryone   = "allow.everyone.if.no.acl.found"
)

// Authorization says whether clients are authorised, and how.
type Authorization struct {
	On           bool
	ForLogins    bool   // it is on because clients log in, and not because it was asked for
	SuperUsers   string // type:name pairs with semicolons between them
	AllowUnruled bool   // everybody may use a resource for which there are no ACLs
}

// readAuthorization reads the values that were given. Where clients log in on any listener, those of all listeners are authorised,
// unless the operator says otherwise by an empty class.
func readAuthorization(given map[string]string, haveLogins bool) Authorization {
	class, isSet := given[authorizerClass]
	byLogins := haveLogins && !isSet
	return Authorization{
		On:           byLogins || strings.TrimSpace(class) == StandardAuthorizer,
		ForLogins:    byLogins,
		SuperUsers:   strings.TrimSpace(given[superUsers]),
		AllowUnruled: strings.EqualFold(strings.TrimSpace(given[allowEveryone]), "true"),
	}
}

// checkAuthorization refuses settings by which an operator would believe that something is protected that is not, and those by which
// nobody could change anything any more.
func checkAuthorization(given map[string]string, a Authorization) error {
	everyone, isSet := given[allowEveryone]
	switch {
	case a.ForLogins && a.SuperUsers == "" && !a.AllowUnruled:
		return refusedConfig("a listener asks for a login, so that ACLs decide for all clients, and %s is not set: without a super user nobody could create the first ACL; "+
			"set it to the user who is to administer the cluster, as in %s=User:admin, or make one with --bootstrap-user NAME:PASSWORD", superUsers, superUsers)
	case a.On && a.SuperUsers == "" && !a.AllowUnruled:
		return refusedConfig("%s needs %s: without a super user nobody could create the first ACL; set it to the user who is to administer the cluster, as in %s=User:admin",
			authorizerClass, superUsers, superUsers)
	case !a.On && a.SuperUsers != "":
		return refusedConfig("%s=%s asks for ACLs, and nothing would be protected by it: set %s=%s, too", superUsers, a.SuperUsers, authorizerClass, StandardAuthorizer)
	case !a.On && isSet && !strings.EqualFold(strings.TrimSpace(everyone), "true"):
		return refusedConfig("%s=%s asks for ACLs, and nothing would be protected by it: set %s=%s, too", allowEveryone, everyone, authorizerClass, StandardAuthorizer)
	}
	return nil
}

// findDangers returns sentences about values that leave the cluster open, though they name its protection.
func findDangers(given map[string]string, a Authorization) (sentences []string) {
	if class, isSet := given[authorizerClass]; isSet && strings.TrimSpace(class) == "" {
		sentences = append(sentences, authorizerClass+" is empty, so every client may do everything")
	}
	if a.On && a.AllowUnruled {
		sentences = append(sentences, fmt.Sprintf("%s is true, so every client may do everything with topics, groups and transactional ids for which there are no ACLs, and with the cluster while it has none", allowEveryone))
	}
	return sentences
}

// principalList accepts type:name pairs with semicolons between them.
func principalList(v value) string {
	for one := range strings.SplitSeq(v.s, ";") {
		if one = strings.TrimSpace(one); one == "" {
			continue
		}
		if typ, name, found := strings.Cut(one, ":"); !found || typ == "" || name == "" {
			return "expected a string in format principalType:principalName but got " + one
		}
	}
	return ""
}
