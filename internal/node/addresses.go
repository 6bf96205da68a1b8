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
	kafkaStyle bool   // it was given as NAME://HOST:PORT, as in Kafka
	host       string // "": all addresses of this machine
	port       int
}

// String is the endpoint in the form in which it was given.
func (e endpoint) String() string {
	addr := net.JoinHostPort(e.host, strconv.Itoa(e.port))
	switch {
	case e.kafkaStyle:
		return e.kafkaForm()
	case e.name == plaintext:
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
	if !strings.Contains(s, "://") {
		return endpoint{}, fmt.Errorf("%w: %q is not of the form NAME://HOST:PORT, as in %s://:%d", ErrConfig, s, plaintext, DefaultPort)
	}
	return parseEndpoint(s)
}

// parseEndpoint reads HOST:PORT, :PORT, a port alone, NAME=HOST:PORT, or Kafka's NAME://HOST:PORT.
func parseEndpoint(s string) (endpoint, error) {
	e := endpoint{name: plaintext}
	rest := s
	if name, after, ok := strings.Cut(s, "://"); ok {
		e.name, e.kafkaStyle, rest = name, true, bareIPv6.ReplaceAllString(after, "[$1]:$2")
	} else if name, after, ok := strings.Cut(s, "="); ok {
		e.name, rest = name, after
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
	if err != nil {
		return e, err
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
	listen    []endpoint          // none: the default port of the loopback addresses
	advertise map[string]endpoint // by listener; clients of a listener without one are told the address to which they have connected
	names     []string            // of all listeners; the first is the one for other nodes
	protocols string              // listener.security.protocol.map; "": the default
}

// planAddresses reads the addresses of a Config, and refuses those that contradict each other,
// as Kafka does.
func planAddresses(c *Config) (addresses, error) {
	a := addresses{advertise: map[string]endpoint{}, names: []string{plaintext}}
	if len(c.Listen) > 0 {
		a.names = nil
	}
	for _, s := range c.Listen {
		e, err := parseEndpoint(s)
		if err != nil {
			return a, err
		}
		if err := a.addListener(e); err != nil {
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
		if err := a.addAdvertised(e); err != nil {
			return a, err
		}
	}
	return a, a.orderNames(c.Settings)
}

// addListener adds an endpoint to listen on unless it conflicts with another one. Addresses
// without a name may be many: all are of listener PLAINTEXT.
func (a *addresses) addListener(e endpoint) error {
	for _, other := range a.listen {
		switch {
		case e.port == other.port && e.port != 0 && hostsOverlap(e.host, other.host):
			return fmt.Errorf("%w: %s and %s are the same port of one address: give each listener a port of its own", ErrConfig, other, e)
		case e.name == other.name && (e.name != plaintext || e.kafkaStyle) && !areTwoFamilies(e.host, other.host):
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
		listen = []endpoint{{name: plaintext, host: "127.0.0.1", port: DefaultPort}, {name: plaintext, host: "::1", port: DefaultPort}}
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

// checkProtocols refuses listeners with a protocol other than PLAINTEXT. The name of an
// endpoint in Kafka's form must be in the map of protocols, as in Kafka, and that of the default
// listener too; other names are added to it.
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
		listen = []endpoint{{name: plaintext, kafkaStyle: true, port: DefaultPort}}
	}
	for _, e := range listen {
		protocol, known := protocols[e.name]
		switch {
		case slices.Contains(splitNames(settings[controllerConfig]), e.name):
			return fmt.Errorf("%w: listener %s is one for controllers (%s): here nodes and clients share their listeners; leave both out", ErrConfig, e.name, controllerConfig)
		case !known && e.kafkaStyle:
			return fmt.Errorf("%w: no security protocol is defined for listener %s: add %s:PLAINTEXT to %s", ErrConfig, e.name, e.name, protocolMap)
		case known && protocol != plaintext:
			return fmt.Errorf("%w: listener %s asks for %s, which is not served yet: only PLAINTEXT listeners are, without encryption and authentication", ErrConfig, e.name, protocol)
		case !known:
			protocols[e.name] = plaintext
			text, given = strings.TrimPrefix(text+","+e.name+":"+plaintext, ","), true
		}
	}
	if given {
		a.protocols = text
	}
	return nil
}

// parseProtocols reads a map of listeners' names and their protocols. As in Kafka it may end with a
// comma and repeat a pair.
func parseProtocols(text string) (map[string]string, error) {
	protocols := map[string]string{}
	pairs := strings.Split(strings.TrimSpace(text), ",")
	for len(pairs) > 0 && strings.TrimSpace(pairs[len(pairs)-1]) == "" {
		pairs = pairs[:len(pairs)-1]
	}
	for i, pair := range pairs {
		name, protocol, ok := strings.Cut(strings.TrimSpace(pair), ":")
		name, protocol = strings.ToUpper(strings.TrimSpace(name)), strings.ToUpper(strings.TrimSpace(protocol))
		if !ok || !listenerName.MatchString(name) || !slices.Contains([]string{plaintext, "SSL", "SASL_PLAINTEXT", "SASL_SSL"}, protocol) {
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
	if e.name == plaintext && !e.kafkaStyle && len(a.names) == 1 {
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

// isAdvertised tells whether a listener has an advertised address.
func (a *addresses) isAdvertised(listener string) bool {
	_, ok := a.advertise[listener]
	return ok
}
