package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// The configs of logins.
const (
	enabledMechanisms = "sasl.enabled.mechanisms"
	jaasConfig        = "sasl.jaas.config"
	clientAuth        = "ssl.client.auth"
	maxReauth         = "connections.max.reauth.ms"
	oauthPrefix       = "sasl.oauthbearer."
	groupClaimName    = "leat.sasl.oauthbearer.groups.claim.name"
)

// The SASL mechanisms that are served.
const (
	MechanismPlain       = "PLAIN"
	MechanismScramSHA256 = "SCRAM-SHA-256"
	MechanismScramSHA512 = "SCRAM-SHA-512"
	MechanismOAuth       = "OAUTHBEARER"
)

// LoginSettings say how the clients of a listener log in.
type LoginSettings struct {
	Mechanisms []string
	// PlainUsers are the users of PLAIN and their passwords; nil: they are the users of the cluster.
	PlainUsers  map[string]string
	MaxFrame    int                      // bytes of a request before a login
	Delay       time.Duration            // of the answer to a failed login
	MaxLifetime map[string]time.Duration // of a login, by mechanism; 0: as long as the connection
	OAuth       OAuthSettings
}

// OAuthSettings say which tokens are accepted.
type OAuthSettings struct {
	JWKS                       string   // the URL of the keys of the issuer
	CA                         string   // the file of certificates by which the issuer is trusted; "": those of the system
	Audience                   []string // one of which a token must have; none: any token will do
	Issuer                     string   // "": any
	ScopeClaim, SubClaim       string
	GroupClaim                 string // the claim with the groups that a user is in
	ClockSkew                  time.Duration
	Refresh                    time.Duration // between two times at which the keys are read
	RetryBackoff, MostRetrying time.Duration // the first and the longest pause after a failure
}

// Login reads how the clients of a listener log in. The error says what is wrong with the settings.
func (s *Static) Login(listener string) (LoginSettings, error) {
	c := s.ForListener(listener)
	l := LoginSettings{
		Mechanisms: c.Names(enabledMechanisms), MaxLifetime: map[string]time.Duration{},
		MaxFrame: int(c.number("", "sasl.server.max.receive.size")), Delay: c.millis("", "connection.failed.authentication.delay.ms"),
	}
	_, isGiven := s.given[enabledMechanisms]
	if _, isOwn := c.Value("", enabledMechanisms); !isOwn && !isGiven {
		l.Mechanisms = []string{MechanismScramSHA256, MechanismScramSHA512}
	}
	if slices.Contains(l.Mechanisms, "GSSAPI") {
		return l, refusedConfig("%s: GSSAPI needs Kerberos, which is not served; name others, as in %s=%s", enabledMechanisms, enabledMechanisms, MechanismScramSHA512)
	}
	if len(l.Mechanisms) == 0 {
		return l, refusedConfig("listener %s asks for a login, and %s is empty: name a mechanism, as in %s=%s", listener, enabledMechanisms, enabledMechanisms, MechanismScramSHA512)
	}
	for _, m := range l.Mechanisms {
		l.MaxLifetime[m] = max(c.millis(m, maxReauth), 0)
		if err := l.readJAAS(c, listener, m); err != nil {
			return l, err
		}
	}
	if slices.Contains(l.Mechanisms, MechanismOAuth) {
		l.OAuth = c.readOAuth()
		if err := l.OAuth.check(listener); err != nil {
			return l, err
		}
	}
	return l, nil
}

// number is the value of a number that the table has checked.
func (c ListenerConfigs) number(mechanism, key string) int64 {
	text, _ := c.Value(mechanism, key)
	v, err := brokerTable.byName[key].parseValue(text)
	if err != nil {
		panic("BUG: " + key + " was not checked")
	}
	return v.n
}

func (c ListenerConfigs) millis(mechanism, key string) time.Duration {
	return Millis(c.number(mechanism, key))
}

// loginModules are the modules of mechanisms.
var loginModules = map[string]string{
	MechanismPlain: PlainLoginModule, MechanismScramSHA256: ScramLoginModule, MechanismScramSHA512: ScramLoginModule, MechanismOAuth: OAuthLoginModule,
}

// readJAAS reads the entry of a mechanism's login module. Only that of PLAIN has users.
func (l *LoginSettings) readJAAS(c ListenerConfigs, listener, mechanism string) error {
	key := ListenerKey{strings.ToLower(listener), strings.ToLower(mechanism), jaasConfig}.String()
	text, _ := c.Value(mechanism, jaasConfig)
	if text == "" {
		return nil
	}
	j, err := ParseJAAS(text)
	if err != nil {
		return refusedConfig("%s: %v", key, err)
	}
	if want := loginModules[mechanism]; j.Module != want {
		return refusedConfig("%s: the login module of %s is %s", key, mechanism, want)
	}
	users := map[string]string{}
	for _, option := range slices.Sorted(maps.Keys(j.Options)) {
		user, isUser := strings.CutPrefix(option, "user_")
		switch {
		case option == "username", option == "password": // with which a broker of Kafka logs in at others
		case mechanism != MechanismPlain || !isUser:
			return refusedConfig("%s: the option %s has no effect here", key, option)
		case user == "" || j.Options[option] == "":
			return refusedConfig("%s: a user has a name and a password, as in user_alice=\"...\"", key)
		default:
			users[user] = j.Options[option]
		}
	}
	if mechanism == MechanismPlain && len(users) > 0 {
		l.PlainUsers = users
	}
	return nil
}

func (c ListenerConfigs) readOAuth() OAuthSettings {
	text := func(key string) string {
		value, _ := c.Value(MechanismOAuth, oauthPrefix+key)
		return value
	}
	groupClaim, _ := c.Value(MechanismOAuth, groupClaimName)
	ca, _ := c.Value(MechanismOAuth, issuerCA)
	return OAuthSettings{
		CA:   ca,
		JWKS: text("jwks.endpoint.url"), Audience: splitList(text("expected.audience")), Issuer: text("expected.issuer"),
		ScopeClaim: text("scope.claim.name"), SubClaim: text("sub.claim.name"), GroupClaim: groupClaim,
		ClockSkew:    time.Duration(c.number(MechanismOAuth, oauthPrefix+"clock.skew.seconds")) * time.Second,
		Refresh:      c.millis(MechanismOAuth, oauthPrefix+"jwks.endpoint.refresh.ms"),
		RetryBackoff: c.millis(MechanismOAuth, oauthPrefix+"jwks.endpoint.retry.backoff.ms"),
		MostRetrying: c.millis(MechanismOAuth, oauthPrefix+"jwks.endpoint.retry.backoff.max.ms"),
	}
}

func (o *OAuthSettings) check(listener string) error {
	switch {
	case o.JWKS == "":
		return refusedConfig("listener %s has %s, and %sjwks.endpoint.url is not set: without the keys of the issuer no token can be trusted", listener, MechanismOAuth, oauthPrefix)
	case !strings.HasPrefix(o.JWKS, "https://") && !strings.HasPrefix(o.JWKS, "file:/"):
		return refusedConfig("%sjwks.endpoint.url: keys are read from an https:// or file:/ URL only, since whoever could change them on the way could log in as anybody", oauthPrefix)
	case len(o.Audience) == 0:
		return refusedConfig("listener %s has %s, and %sexpected.audience is not set: a token that was made for another service would be accepted", listener, MechanismOAuth, oauthPrefix)
	case o.Issuer == "":
		return refusedConfig("listener %s has %s, and %sexpected.issuer is not set: a token of any issuer whose keys are in that set would be accepted", listener, MechanismOAuth, oauthPrefix)
	}
	return nil
}

// CheckLogins refuses settings of logins that have no effect, in which an operator would trust. haveLogins tells that clients of a listener must
// log in.
func (s *Static) CheckLogins(haveLogins bool) error {
	for _, key := range slices.Sorted(maps.Keys(s.given)) {
		k, _ := ParseListenerKey(key)
		if key == jaasConfig || k.Key == jaasConfig && k.Mechanism == "" {
			return refusedConfig("%s has no effect: the login module is one of a mechanism of a listener, as in listener.name.sasl_ssl.plain.%s", key, jaasConfig)
		}
	}
	if _, ok := s.given[enabledMechanisms]; ok && !haveLogins {
		return refusedConfig("%s asks for a login, and no listener does, so nothing would be protected by it: give a listener the protocol SASL_SSL or SASL_PLAINTEXT, as in --listen NAME=SASL_SSL://HOST:PORT",
			enabledMechanisms)
	}
	return nil
}

// CheckClientAuth refuses an ssl.client.auth that asks clients for certificates where no listener with TLS, or not the one it is set for, could.
func (s *Static) CheckClientAuth(names, encrypted []string) error {
	has := func(list []string, name string) bool {
		return slices.ContainsFunc(list, func(n string) bool { return strings.EqualFold(n, name) })
	}
	for _, key := range slices.Sorted(maps.Keys(s.given)) {
		k, isOwn := ParseListenerKey(key)
		isFeigned := key == clientAuth && len(encrypted) == 0 || isOwn && k.Key == clientAuth && has(names, k.Listener) && !has(encrypted, k.Listener)
		if value := s.given[key]; isFeigned && value != "none" && value != "" {
			return refusedConfig("%s=%s asks for TLS, and its listener has none, so nothing would be protected by it: give a listener the protocol SSL or SASL_SSL, as in --listen NAME=SSL://HOST:PORT", key, value)
		}
	}
	return nil
}

// DelegationSettings say how delegation tokens are made. They never print the key.
type DelegationSettings struct {
	Key         DelegationKey
	MaxLifetime time.Duration // how long a token can be renewed
	ExpiryTime  time.Duration // how long it can be used until it must be renewed
	CheckEvery  time.Duration // how often those that have ended are removed
}

// DelegationKey is delegation.token.secret.key; "": there are no tokens.
type DelegationKey string

// Format prints nothing of the key, whatever the verb.
func (DelegationKey) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, "[hidden]") }

// DelegationTokens reads how delegation tokens are made.
func (s *Static) DelegationTokens() DelegationSettings {
	c := s.ForListener("")
	millis := func(key string) time.Duration { return c.millis("", "delegation.token."+key) }
	return DelegationSettings{
		Key:         DelegationKey(strings.TrimSpace(s.given["delegation.token.secret.key"])),
		MaxLifetime: millis("max.lifetime.ms"), ExpiryTime: millis("expiry.time.ms"), CheckEvery: millis("expiry.check.interval.ms"),
	}
}

// mechanismList accepts the SASL mechanisms that are served.
func mechanismList(v value) string {
	for _, m := range v.l {
		if m != "GSSAPI" && loginModules[m] == "" { // GSSAPI is refused where a listener would have it
			return aboutItem + m + "\x00the mechanisms are PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER"
		}
	}
	return ""
}
