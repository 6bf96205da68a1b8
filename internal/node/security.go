package node

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/broker"
	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
)

// security is who clients are, and what they may do. It never changes after a start.
type security struct {
	authorizer *auth.Authorizer // nil: every client may do everything
	logins     []*broker.Login  // of the listeners that ask for one
	users      *auth.Users
	secured    *secured // nil: the node is not secured, or was not at its first start
	securing   *securing
	settings   map[string]config.LoginSettings
	supers     []auth.Principal
	isOpen     bool // resources without ACLs may be used by everybody
	delegation delegation
	keys       sealingKeys
}

// prepareSecurity reads the settings of logins and of the authorizer, and refuses those by which less would be protected than they say.
func prepareSecurity(n *Node) error {
	s := &n.security
	s.settings = map[string]config.LoginSettings{}
	s.users = auth.NewUsers(n.image.Load)
	var err error
	if s.delegation, err = prepareDelegation(n); err != nil {
		return err
	}
	var tokens *auth.Tokens
	if s.delegation.key != nil {
		tokens = auth.NewTokens(n.image.Load, s.delegation.key, s.users)
	}
	for _, name := range n.addresses.names {
		if n.addresses.protected[name] == config.Plaintext && !n.cfg.Secure {
			s.securing.prepareLogin(name, tokens)
		}
		if !n.addresses.protected[name].AsksForLogin() {
			continue
		}
		l, err := n.static.Login(name)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrConfig, err)
		}
		mechanisms, err := mechanismsOf(&l, s.users, tokens)
		if err != nil {
			return err
		}
		s.settings[name] = l
		s.logins = append(s.logins, broker.NewLogin(broker.LoginConfig{
			Listener: name, Mechanisms: mechanisms, MaxFrame: l.MaxFrame, Delay: l.Delay, MaxLifetime: l.MaxLifetime,
		}))
		if slices.Contains(l.Mechanisms, config.MechanismPlain) && !n.addresses.protected[name].UsesTLS() {
			n.loggers.loggerOf(rootLogger).Warn("passwords go over the network in clear text", "listener", name, "why", "it has PLAIN without TLS")
		}
	}
	if err := n.static.CheckLogins(len(s.logins) > 0); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	encrypted := slices.DeleteFunc(slices.Clone(n.addresses.names), func(name string) bool { return !n.addresses.protected[name].UsesTLS() })
	if err := n.static.CheckClientAuth(n.addresses.names, encrypted); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return s.prepareAuthorizer(n)
}

// mechanismsOf makes the mechanisms of a listener, in the order in which they are set.
func mechanismsOf(l *config.LoginSettings, users *auth.Users, tokens *auth.Tokens) (list []auth.Mechanism, err error) {
	for _, name := range l.Mechanisms {
		switch name {
		case config.MechanismPlain:
			plain := auth.NewPlainOf(users)
			if l.PlainUsers != nil {
				plain = auth.NewPlain(auth.FixedPasswords(l.PlainUsers).Check)
			}
			list = append(list, plain)
		case config.MechanismScramSHA256:
			list = append(list, auth.NewScram(meta.ScramSHA256, users, tokens))
		case config.MechanismScramSHA512:
			list = append(list, auth.NewScram(meta.ScramSHA512, users, tokens))
		case config.MechanismOAuth:
			o, err := newOAuth(&l.OAuth)
			if err != nil {
				return nil, err
			}
			list = append(list, o)
		}
	}
	return list, nil
}

// prepareAuthorizer makes the authorizer of the node's clients, if the settings ask for one.
func (s *security) prepareAuthorizer(n *Node) error {
	first := ""
	if n.cfg.BootstrapUser.IsSet() {
		first = auth.User(n.cfg.BootstrapUser.Name).String()
	}
	a, err := n.static.Authorization(len(s.logins) > 0, first)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	for _, danger := range n.static.Dangers(a) {
		n.loggers.loggerOf(rootLogger).Warn("a setting leaves the cluster open", "why", danger)
	}
	if !a.On {
		return nil
	}
	if s.supers, err = auth.ParsePrincipals(a.SuperUsers); err != nil {
		return fmt.Errorf("%w: super.users: %w", ErrConfig, err)
	}
	for _, p := range s.supers {
		if p.Type != auth.UserType && p.Type != auth.GroupType { // types have capitals
			return fmt.Errorf("%w: super.users: %s: no client is of the type %s, so that this would have no effect: write User:%s for a user, or Group:%s for a group", ErrConfig, p, p.Type, p.Name, p.Name)
		}
	}
	s.isOpen = a.AllowUnruled
	n.static = n.static.With(map[string]string{"authorizer.class.name": config.StandardAuthorizer, "super.users": a.SuperUsers})
	s.authorizer, err = auth.New(auth.Config{Image: n.image.Load, SuperUsers: s.supers, AllowUnruled: a.AllowUnruled})
	return err
}

// makeFirstUser makes the user with which the node was started, if the cluster has never had a user. It is called on a node that is
// alone in its cluster.
func makeFirstUser(ctx context.Context, n *Node) error {
	u, err := firstUser(n)
	if err != nil || !u.IsSet() {
		return err
	}
	credentials, err := credentialsOf(u)
	if err != nil {
		return err
	}
	made, err := controller.MakeFirstUser(ctx, n.controller, credentials)
	if err != nil {
		return fmt.Errorf("cannot make the first user: %w", err)
	}
	if made {
		n.loggers.loggerOf(rootLogger).Info("the first user was made", "user", u.Name)
		recordFirstUser(n, u.Name)
	}
	return nil
}

// checkSuperUsers refuses a start with which nobody could administer the cluster: clients must log in, and no super user can.
func checkSuperUsers(n *Node) error {
	s := &n.security
	if canAdminister(n, n.image.Load()) {
		return nil
	}
	var names []string
	for _, p := range s.supers {
		names = append(names, p.String())
	}
	return fmt.Errorf("%w: super.users=%s: none of them can log in, so that nobody could administer the cluster: make the user before the listeners ask for a login, with \"leat user create\", or, "+
		"in a cluster of one node that has never had a user, start with --bootstrap-user NAME:PASSWORD", ErrConfig, strings.Join(names, ";"))
}

// canAdminister tells whether somebody can administer the cluster by this node, as far as it can be known, with the users of an image.
func canAdminister(n *Node, m *meta.Image) bool {
	s := &n.security
	return s.authorizer == nil || len(s.logins) == 0 || s.isOpen || slices.ContainsFunc(s.supers, func(p auth.Principal) bool { return canLogIn(n, m, p) })
}

// canLogIn tells whether a principal can log in on a listener of this node, or may be able to, as far as it can be known, with the users of an image.
func canLogIn(n *Node, m *meta.Image, p auth.Principal) bool {
	if p.Type == auth.GroupType { // the issuer of tokens knows who is in it
		return slices.ContainsFunc(n.addresses.names, func(name string) bool { return slices.Contains(n.settings[name].Mechanisms, config.MechanismOAuth) })
	}
	if p.Type != auth.UserType {
		return true // made by something that is not known here
	}
	byOwner := m.Credentials().ByOwner
	has := func(m meta.ScramMechanism) bool {
		return byOwner[meta.CredentialOwner{User: p.Name, Mechanism: m}] != nil
	}
	for _, name := range n.addresses.names {
		protocol := n.addresses.protected[name]
		l, asks := n.settings[name]
		switch {
		case !asks && !protocol.UsesTLS():
			if p == auth.Anonymous() {
				return true
			}
			continue
		case !asks: // by a certificate
			return true
		}
		for _, m := range l.Mechanisms {
			switch m {
			case config.MechanismPlain:
				if _, fixed := l.PlainUsers[p.Name]; fixed || l.PlainUsers == nil && (has(meta.ScramSHA256) || has(meta.ScramSHA512)) {
					return true
				}
			case config.MechanismScramSHA256:
				if has(meta.ScramSHA256) {
					return true
				}
			case config.MechanismScramSHA512:
				if has(meta.ScramSHA512) {
					return true
				}
			case config.MechanismOAuth: // only the issuer knows
				return true
			}
		}
	}
	return false
}
