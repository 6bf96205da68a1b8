package config

import (
	"slices"
	"strings"
)

// Protocol is how a listener protects its connections, by Kafka's number.
type Protocol int16

// The protocols of listeners.
const (
	Plaintext     Protocol = 0
	SSL           Protocol = 1
	SASLPlaintext Protocol = 2
	SASLSSL       Protocol = 3
)

// protocolNames are Kafka's names of the protocols, by number.
var protocolNames = [...]string{"PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"}

// ParseProtocol finds a protocol by Kafka's name, in capitals or not.
func ParseProtocol(name string) (p Protocol, ok bool) {
	i := slices.Index(protocolNames[:], strings.ToUpper(name))
	return Protocol(max(i, 0)), i >= 0
}

// String is Kafka's name.
func (p Protocol) String() string {
	if p < 0 || int(p) >= len(protocolNames) {
		return "unknown"
	}
	return protocolNames[p]
}

// UsesTLS tells whether the connections of a listener are encrypted.
func (p Protocol) UsesTLS() bool { return p == SSL || p == SASLSSL }

// AsksForLogin tells whether the clients of a listener must log in with SASL before they do anything else.
func (p Protocol) AsksForLogin() bool { return p == SASLPlaintext || p == SASLSSL }

// storeType accepts the forms of files with keys and certificates, in capitals or not.
func storeType(v value) string { return oneOf("JKS", "PKCS12", "PEM")(value{s: strings.ToUpper(v.s)}) }

// tlsProtocols accepts versions of TLS that are served.
func tlsProtocols(v value) string {
	for _, name := range v.l {
		if name != "TLSv1.2" && name != "TLSv1.3" {
			return "Only TLSv1.2 and TLSv1.3 are served, older versions are not safe"
		}
	}
	if len(v.l) == 0 {
		return "At least one of TLSv1.2 and TLSv1.3 is needed"
	}
	return ""
}

// listenerPrefix begins the names of configs that are set for one listener.
const listenerPrefix = "listener.name."

// ListenerKey is the name of a config that is set for one listener: listener.name.NAME.KEY, or, for one of the
// listener's SASL mechanisms, listener.name.NAME.MECHANISM.KEY. The names in it are in small letters.
type ListenerKey struct{ Listener, Mechanism, Key string }

// mechanismNames are the SASL mechanisms that a ListenerKey may have.
var mechanismNames = []string{"plain", "scram-sha-256", "scram-sha-512", "oauthbearer", "gssapi"}

// ParseListenerKey reads the name of a config that is set for one listener. ok is false for any other name, and for a
// config that all listeners have in common.
func ParseListenerKey(name string) (k ListenerKey, ok bool) {
	rest, ok := strings.CutPrefix(name, listenerPrefix)
	if !ok || rest != strings.ToLower(rest) {
		return k, false
	}
	for at := range len(rest) {
		if rest[at] != '.' || at == 0 || !isForListener(rest[at+1:]) {
			continue
		}
		k.Listener, k.Key = rest[:at], rest[at+1:]
		before, last, found := cutLast(k.Listener)
		if found && slices.Contains(mechanismNames, last) && isForMechanism(k.Key) {
			k.Listener, k.Mechanism = before, last
		}
		return k, true
	}
	return k, false
}

// cutLast cuts a name at its last dot.
func cutLast(name string) (before, last string, found bool) {
	at := strings.LastIndexByte(name, '.')
	if at <= 0 {
		return name, "", false
	}
	return name[:at], name[at+1:], true
}

// isForListener tells whether a broker config may have another value for each listener.
func isForListener(key string) bool {
	return brokerTable.byName[key] != nil &&
		(strings.HasPrefix(key, "ssl.") || strings.HasPrefix(key, "sasl.") || isForOAuth(key) || key == "principal.builder.class" || key == "connections.max.reauth.ms" || key == "max.connection.creation.rate")
}

// isForMechanism tells whether a broker config may have another value for each SASL mechanism of a listener.
func isForMechanism(key string) bool {
	return strings.HasPrefix(key, "sasl.") || isForOAuth(key) || key == "connections.max.reauth.ms"
}

// isForOAuth tells whether a config that Kafka does not have is about tokens.
func isForOAuth(key string) bool { return key == groupClaimName || key == issuerCA }

// String is the whole name.
func (k ListenerKey) String() string {
	if k.Mechanism != "" {
		return listenerPrefix + k.Listener + "." + k.Mechanism + "." + k.Key
	}
	return listenerPrefix + k.Listener + "." + k.Key
}

// findForListener is the config of a name that is set for one listener; nil: there is none.
func findForListener(name string) *Def {
	k, ok := ParseListenerKey(name)
	if !ok {
		return nil
	}
	d := *brokerTable.byName[k.Key]
	d.Name, d.Default, d.Null, d.synonyms = name, "", true, nil
	d.Doc = "For one listener: " + d.Doc
	return &d
}

// ListenerConfigs are the values that one listener has for configs which may differ between listeners.
type ListenerConfigs struct {
	view     View
	listener string // in small letters
}

// ForListener are the values for a listener, whose name may have capitals.
func (v View) ForListener(name string) ListenerConfigs {
	return ListenerConfigs{v, strings.ToLower(name)}
}

// Value is the value of a config. What is set for the listener wins over what is set for all, and, if mechanism is not "", what is
// set for that SASL mechanism of the listener wins over both. isOwn tells that the value was set for the listener or the mechanism.
func (c ListenerConfigs) Value(mechanism, key string) (value string, isOwn bool) {
	names := []string{ListenerKey{Listener: c.listener, Key: key}.String()}
	if mechanism != "" {
		names = slices.Insert(names, 0, ListenerKey{c.listener, strings.ToLower(mechanism), key}.String())
	}
	for _, name := range names {
		for src := BrokerSource; src <= StaticSource; src++ {
			if value, ok := c.view.lookUp(src, name); ok {
				return strings.TrimSpace(value), true
			}
		}
	}
	if found := c.view.findValues([]synonym{{name: key}}); len(found) > 0 {
		return strings.TrimSpace(found[0].Value), false
	}
	return "", false
}

// Text is the value of a config for the listener.
func (c ListenerConfigs) Text(key string) string {
	value, _ := c.Value("", key)
	return value
}

// Names is the value of a list for the listener.
func (c ListenerConfigs) Names(key string) []string { return splitList(c.Text(key)) }

// isSetAtStart tells whether a config of logins does not change while a node runs, as it does in Kafka.
func isSetAtStart(key string) bool {
	if k, ok := ParseListenerKey(key); ok {
		key = k.Key
	}
	return key == "sasl.enabled.mechanisms" || key == "sasl.jaas.config"
}
