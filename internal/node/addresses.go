package node

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/leatstream/leat/internal/config"
)

// plaintext is Kafka's name of a listener without encryption.
const plaintext = "PLAINTEXT"

// protocolsOfListeners are the security protocols as messages list them.
const protocolsOfListeners = "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"

// The broker configs about listeners, besides the node's own settings.
const (
	protocolMap      = "listener.security.protocol.map"
	interListener    = "inter.broker.listener.name"
	interProtocol    = "security.inter.broker.protocol"
	controllerConfig = "controller.listener.names"
)

// endpoint is an address and the listener that it belongs to.
type endpoint struct {
	name       string // of the listener, in capitals as Kafka has it
	unnamed    bool   // it was given without a name, and has that of the default listener
	protocol   string // of the listener, in capitals, if it was given as NAME=PROTOCOL://HOST:PORT; "": the map of protocols has it
	kafkaStyle bool   // it was given as NAME://HOST:PORT, as in Kafka
	host       string // "": all addresses of this machine
	port       int
}

// String is the endpoint in the form in which it was given.
func (e endpoint) String() string {
	addr := net.JoinHostPort(e.host, strconv.Itoa(e.port))
	switch {
	case e.protocol != "":
		return e.name + "=" + e.protocol + "://" + addr
	case e.kafkaStyle:
		return e.kafkaForm()
	case e.unnamed || e.name == plaintext:
		return addr
	}
	return e.name + "=" + addr
}

// kafkaForm is the endpoint in the form of Kafka's configs.
func (e endpoint) kafkaForm() string {
	return e.name + "://" + net.JoinHostPort(e.host, strconv.Itoa(e.port))
}

var (
	listenerName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,100}$`)
	hostName     = regexp.MustCompile(`^[0-9A-Za-z._:%-]*$`)
	// bareIPv6 is an IPv6 address without brackets, and a port: Kafka's form allows it.
	bareIPv6 = regexp.MustCompile(`^([0-9A-Fa-f]*:[0-9A-Za-z._:%-]*):([0-9]+)$`)
)

// parseKafkaEndpoint reads NAME://HOST:PORT, the only form that Kafka's own configs have.
func parseKafkaEndpoint(s string) (endpoint, error) {
	if before, _, ok := strings.Cut(s, "://"); !ok || strings.Contains(before, "=") {
		return endpoint{}, fmt.Errorf("%w: %q is not of the form NAME://HOST:PORT, as in %s://:%d", ErrConfig, s, plaintext, DefaultPort)
	}
	return parseEndpoint(s)
}

// parseEndpoint reads HOST:PORT, :PORT, a port alone, NAME=HOST:PORT, NAME=PROTOCOL://HOST:PORT, or Kafka's NAME://HOST:PORT.
func parseEndpoint(s string) (endpoint, error) {
	e := endpoint{name: plaintext}
	rest := s
	if name, after, ok := strings.Cut(s, "://"); ok {
		if own, protocol, both := strings.Cut(name, "="); both {
			p, known := config.ParseProtocol(protocol)
			if !known {
				return e, fmt.Errorf("%w: %q: %q is no security protocol: write %s", ErrConfig, s, protocol, protocolsOfListeners)
			}
			name, e.protocol = own, p.String()
		}
		e.name, e.kafkaStyle, rest = name, e.protocol == "", bareIPv6.ReplaceAllString(after, "[$1]:$2")
	} else if name, after, ok := strings.Cut(s, "="); ok {
		e.name, rest = name, after
	} else {
		e.unnamed = true
	}
	if !listenerName.MatchString(e.name) {
		return e, fmt.Errorf("%w: %q: %q is no name of a listener: write NAME=HOST:PORT with letters, digits, dots, dashes and underscores in the name", ErrConfig, s, e.name)
	}
	e.name = strings.ToUpper(e.name)
	if _, err := strconv.Atoi(rest); err == nil && e.kafkaStyle {
		return e, fmt.Errorf("%w: %q needs a colon before its port, as in %s://:%s", ErrConfig, s, e.name, rest)
	}
	addr, err := parseAddress(rest)
	if err != nil {
		return e, err
	}
	host, port, _ := net.SplitHostPort(addr) // parseAddress has checked it
	if !hostName.MatchString(host) {
		return e, fmt.Errorf("%w: %q: %q is no host: write a name or an IP address, as in broker1.example.com:9092", ErrConfig, s, host)
	}
	e.host = host
	e.port, _ = strconv.Atoi(port)
	return e, nil
}

// parseAdvertised reads an endpoint that clients are told, to which they must be able to
// connect.
func parseAdvertised(s string) (endpoint, error) {
	e, err := parseEndpoint(s)
	switch {
	case err != nil:
		return e, err
	case e.protocol != "":
		return e, fmt.Errorf("%w: %q: an advertised address has no security protocol, the listener has one: write %s=HOST:PORT", ErrConfig, s, e.name)
	}
	return e, e.checkReachable(s)
}

// parseKafkaAdvertised is parseAdvertised for Kafka's own config.
func parseKafkaAdvertised(s string) (endpoint, error) {
	e, err := parseKafkaEndpoint(s)
	if err != nil {
		return e, err
	}
	return e, e.checkReachable(s)
}

// checkReachable refuses an address, given as s, to which no client could connect.
func (e endpoint) checkReachable(s string) error {
	const instead = "write the name or address by which clients reach this machine, as in broker1.example.com:9092, or leave it out: then each client is told the address to which it has connected"
	ip, _ := netip.ParseAddr(e.host)
	switch {
	case e.host == "":
		return fmt.Errorf("%w: %q needs a host that clients can reach: %s", ErrConfig, s, instead)
	case ip.IsUnspecified():
		return fmt.Errorf("%w: %q: %s stands for all addresses of a machine, and no client can connect to it: %s", ErrConfig, s, e.host, instead)
	case e.port == 0:
		return fmt.Errorf("%w: %q: no client can connect to port 0: write the port that clients reach, as in %s", ErrConfig, s, net.JoinHostPort(e.host, strconv.Itoa(DefaultPort)))
	}
	return nil
}

// addresses are the addresses on which a node listens, and those that it tells others. They
// never change.
type addresses struct {
	isSecured bool                       // the node is secured: see secured
	listen    []endpoint                 // none: the default port of the loopback addresses
	advertise map[string]endpoint        // by listener; clients of a listener without one are told the address to which they have connected
	names     []string                   // of all listeners; the first is the one for other nodes
	protocols string                     // listener.security.protocol.map; "": the default
	protected map[string]config.Protocol // by listener: how its connections are protected
}

// planAddresses reads the addresses of a Config, and refuses those that contradict each other,
// as Kafka does.
func planAddresses(c *Config) (addresses, error) {
	a := addresses{isSecured: c.Secure, advertise: map[string]endpoint{}, protected: map[string]config.Protocol{}}
	a.names = []string{a.defaultName()}
	if len(c.Listen) > 0 {
		a.names = nil
	}
	for _, s := range c.Listen {
		e, err := parseEndpoint(s)
		if err != nil {
			return a, err
		}
		if err := a.addListener(a.nameEndpoint(e)); err != nil {
			return a, err
		}
	}
	if other, own := a.findOverlap(c.HTTP); own {
		return a, fmt.Errorf("%w: %s, for clients, and %s, for health and metrics, are the same port of one address: choose another address with --http HOST:PORT, or --http off",
			ErrConfig, other, c.HTTP)
	}
	if err := a.checkProtocols(c.Settings); err != nil {
		return a, err
	}
	for _, s := range c.Advertise {
		e, err := parseAdvertised(s)
		if err != nil {
			return a, err
		}
		if err := a.addAdvertised(a.nameEndpoint(e)); err != nil {
			return a, err
		}
	}
	if err := a.orderNames(c.Settings); err != nil {
		return a, err
	}
	return a, a.checkSecured()
}

// defaultName is the name of a listener that was given none.
func (a *addresses) defaultName() string {
	if a.isSecured {
		return config.SASLSSL.String()
	}
	return plaintext
}

// nameEndpoint gives an endpoint without a name that of the default listener.
func (a *addresses) nameEndpoint(e endpoint) endpoint {
	if e.unnamed {
		e.name = a.defaultName()
	}
	return e
}

// checkSecured refuses listeners of a secured node by which data or passwords would go over a network in clear text.
func (a *addresses) checkSecured() error {
	if !a.isSecured {
		return nil
	}
	for _, e := range a.listen {
		if p := a.protected[e.name]; !p.UsesTLS() && !isLoopback(e.host) {
			return fmt.Errorf("%w: this node is secured, and listener %s would have the protocol %s, which encrypts nothing: write %s=SASL_SSL://HOST:PORT, or let it listen on 127.0.0.1 only",
				ErrConfig, e, p, e.name)
		}
	}
	if first := a.names[0]; !a.protected[first].UsesTLS() {
		return fmt.Errorf("%w: this node is secured, and the listener for other nodes, %s, has the protocol %s, which encrypts nothing: name one with SASL_SSL or SSL by %s", ErrConfig, first, a.protected[first], interListener)
	}
	return nil
}

// addListener adds an endpoint to listen on unless it conflicts with another one. Addresses
// without a name may be many: all are of listener PLAINTEXT.
func (a *addresses) addListener(e endpoint) error {
	for _, other := range a.listen {
		switch {
		case e.port == other.port && e.port != 0 && hostsOverlap(e.host, other.host):
			return fmt.Errorf("%w: %s and %s are the same port of one address: give each listener a port of its own", ErrConfig, other, e)
		case e.name == other.name && (e.name != plaintext && !e.unnamed || e.kafkaStyle || e.protocol != "") && !areTwoFamilies(e.host, other.host):
			return fmt.Errorf("%w: %s and %s have the same name: give each listener a name of its own", ErrConfig, other, e)
		}
	}
	a.listen = append(a.listen, e)
	if !slices.Contains(a.names, e.name) {
		a.names = append(a.names, e.name)
	}
	return nil
}

// findOverlap finds the endpoint on which the node listens for clients and which has the port of an address for HTTP.
func (a *addresses) findOverlap(httpAddr string) (endpoint, bool) {
	if httpAddr == "" || httpAddr == "off" {
		return endpoint{}, false
	}
	web, err := parseEndpoint(httpAddr)
	listen := a.listen
	if len(listen) == 0 {
		listen = []endpoint{{unnamed: true, name: a.defaultName(), host: "127.0.0.1", port: DefaultPort}, {unnamed: true, name: a.defaultName(), host: "::1", port: DefaultPort}}
	}
	for _, e := range listen {
		if err == nil && e.port == web.port && e.port != 0 && hostsOverlap(e.host, web.host) {
			return e, true
		}
	}
	return endpoint{}, false
}

// hostsOverlap tells whether two hosts to listen on have an address in common. It does not
// resolve names.
func hostsOverlap(a, b string) bool {
	return a == b || isEverywhere(a) || isEverywhere(b)
}

// isEverywhere tells whether a host to listen on stands for all addresses of the machine.
func isEverywhere(host string) bool {
	ip, _ := netip.ParseAddr(host)
	return host == "" || ip.IsUnspecified()
}

// areTwoFamilies tells whether one host is an IPv4 address and the other an IPv6 address. Only
// two such endpoints may be given the same name.
func areTwoFamilies(a, b string) bool {
	x, errX := netip.ParseAddr(a)
	y, errY := netip.ParseAddr(b)
	return errX == nil && errY == nil && x.Is4() != y.Is4()
}

// checkProtocols finds the security protocol of each listener. The name of an endpoint in Kafka's form must be in the map of protocols, as in
// Kafka, and that of the default listener too; other names are added to it, with the protocol of the endpoint or without protection.
func (a *addresses) checkProtocols(settings map[string]string) error {
	text, given := settings[protocolMap]
	if !given {
		text = config.Find(config.Broker, protocolMap).Default
	}
	protocols, err := parseProtocols(text)
	if err != nil {
		return err
	}
	listen := a.listen
	if len(listen) == 0 {
		listen = []endpoint{{name: a.defaultName(), kafkaStyle: true, port: DefaultPort}}
	}
	for _, e := range listen {
		protocol, known := protocols[e.name]
		switch {
		case slices.Contains(splitNames(settings[controllerConfig]), e.name):
			return fmt.Errorf("%w: listener %s is one for controllers (%s): here nodes and clients share their listeners; leave both out", ErrConfig, e.name, controllerConfig)
		case !known && e.kafkaStyle:
			return fmt.Errorf("%w: no security protocol is defined for listener %s: add %s:PROTOCOL to %s, with %s, or write --listen %s=PROTOCOL://HOST:PORT",
				ErrConfig, e.name, e.name, protocolMap, protocolsOfListeners, e.name)
		case known && e.protocol != "" && protocol.String() != e.protocol:
			return fmt.Errorf("%w: %s says that listener %s has protocol %s, and %s has %s for it: leave one of them out, or choose another name", ErrConfig, e, e.name, e.protocol, protocolMap, protocol)
		case !known:
			if protocol, known = config.ParseProtocol(e.protocol); !known && a.isSecured {
				protocol = config.SASLSSL
			} // PLAINTEXT on other nodes
			protocols[e.name] = protocol
			text, given = strings.TrimPrefix(text+","+e.name+":"+protocol.String(), ","), true
		}
		a.protected[e.name] = protocol
	}
	if given {
		a.protocols = text
	}
	return nil
}

// parseProtocols reads a map of listeners' names and their protocols. As in Kafka it may end with a
// comma and repeat a pair.
func parseProtocols(text string) (map[string]config.Protocol, error) {
	protocols := map[string]config.Protocol{}
	pairs := strings.Split(strings.TrimSpace(text), ",")
	for len(pairs) > 0 && strings.TrimSpace(pairs[len(pairs)-1]) == "" {
		pairs = pairs[:len(pairs)-1]
	}
	for i, pair := range pairs {
		name, value, ok := strings.Cut(strings.TrimSpace(pair), ":")
		name = strings.ToUpper(strings.TrimSpace(name))
		protocol, known := config.ParseProtocol(strings.TrimSpace(value))
		if !ok || !listenerName.MatchString(name) || !known {
			return nil, fmt.Errorf("%w: %s=%s: %q is not of the form NAME:PROTOCOL, as in INTERNAL:PLAINTEXT", ErrConfig, protocolMap, text, pair)
		}
		if _, twice := protocols[name]; twice && !slices.Contains(pairs[:i], pair) {
			return nil, fmt.Errorf("%w: %s=%s has listener %s twice", ErrConfig, protocolMap, text, name)
		}
		protocols[name] = protocol
	}
	return protocols, nil
}

// splitNames reads a list of listeners' names.
func splitNames(text string) (names []string) {
	for name := range strings.SplitSeq(text, ",") {
		if name = strings.ToUpper(strings.TrimSpace(name)); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// addAdvertised adds the address that clients of a listener are told. If the node has only one
// listener, an address without a name is for that one.
func (a *addresses) addAdvertised(e endpoint) error {
	if (e.unnamed || e.name == plaintext) && !e.kafkaStyle && len(a.names) == 1 {
		e.name = a.names[0]
	}
	if !slices.Contains(a.names, e.name) {
		return fmt.Errorf("%w: the advertised address %s is for listener %s, and this node has only %s: write NAME=HOST:PORT with one of these names, or add the listener",
			ErrConfig, e, e.name, strings.Join(a.names, " and "))
	}
	if other, twice := a.advertise[e.name]; twice {
		return fmt.Errorf("%w: listener %s has two advertised addresses, %s and %s: clients can be told only one of them, so leave the other out", ErrConfig, e.name, other, e)
	}
	a.advertise[e.name] = e
	return nil
}

// orderNames puts the listener for other nodes first: the one that a config names, else PLAINTEXT,
// as in Kafka, else the first one.
func (a *addresses) orderNames(settings map[string]string) error {
	name, named := settings[interListener]
	protocol, both := settings[interProtocol]
	key := interListener
	switch {
	case named && both:
		return fmt.Errorf("%w: %s and %s both say by which listener nodes talk to each other: set one of them", ErrConfig, interListener, interProtocol)
	case named:
		name = strings.ToUpper(strings.TrimSpace(name))
	case both:
		name, key = strings.TrimSpace(protocol), interProtocol
	case a.isSecured:
		at := slices.IndexFunc(a.names, func(n string) bool { return a.protected[n].UsesTLS() })
		name = a.names[max(at, 0)]
	case slices.Contains(a.names, plaintext):
		name = plaintext
	default:
		return nil
	}
	at := slices.Index(a.names, name)
	if at < 0 {
		return fmt.Errorf("%w: %s=%s: this node has no such listener, only %s", ErrConfig, key, name, strings.Join(a.names, " and "))
	}
	a.names = slices.Insert(slices.Delete(a.names, at, at+1), 0, name)
	return nil
}

// warnings are sentences about configs that are set for listeners which the node does not have, and for TLS where no listener has it.
func (a *addresses) warnings(static *config.Static) (sentences []string) {
	for _, key := range static.UnknownListeners(a.names) {
		sentences = append(sentences, key+" has no effect: this node has no such listener, only "+strings.Join(a.names, " and "))
	}
	if slices.ContainsFunc(a.names, func(n string) bool { return a.protected[n].UsesTLS() }) {
		return sentences
	}
	for _, key := range static.GivenWith("ssl.") {
		if key == "ssl.client.auth" { // it is refused, unless it asks for nothing
			continue
		}
		sentences = append(sentences, key+" has no effect: no listener has the protocol SSL or SASL_SSL")
	}
	return sentences
}

// isAdvertised tells whether a listener has an advertised address.
func (a *addresses) isAdvertised(listener string) bool {
	_, ok := a.advertise[listener]
	return ok
}
