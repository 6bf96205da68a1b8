package mirror

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror/follow"
	"github.com/leatstream/leat/internal/mirror/names"
	"github.com/leatstream/leat/internal/mirror/progress"
	"github.com/leatstream/leat/internal/mirror/source"
)

// These are the keys of a link's settings. Those that a client of Kafka has, too, have its names.
const (
	keyBrokers    = "bootstrap.servers" // host:port of brokers of the source, with commas between them
	keyTopics     = "topics"            // patterns of topics at the source: see names.ParseFilter
	keyExclude    = "exclude"           // patterns of those that are left out
	keyPrefix     = "prefix"            // what the names here have before those at the source
	keyRename     = "rename"            // see names.ParseMapping
	keyConfigs    = "configs"           // of topics that they have from the source: see follow.ParseOwned
	keyStart      = "start"             // earliest, latest, or a time of RFC 3339
	keyMap        = "map"               // ADVERTISED=REACHABLE, host:port each, with commas between them
	keyThrottle   = "throttle.bytes.per.second"
	keyAcceptLoss = "accept.loss"    // true: a gap, and lost tombstones, are noted and left out without a person
	keyGroups     = "groups"         // patterns of consumer groups whose positions are followed; unset: all
	keyNoGroups   = "groups.exclude" // patterns of those that are left out
	keyPositions  = "positions"      // on, or off: no positions are followed
	keyRack       = "client.rack"
	keyVia        = meta.ViaSetting // agent: agents carry the connections; unset: the nodes dial
	keyProtocol   = "security.protocol"
	keyMechanism  = "sasl.mechanism"
	keyUser       = "sasl.username"
	keyTrusted    = "ssl.truststore.certificates"
	keyChain      = "ssl.keystore.certificate.chain"
	keyNames      = "ssl.endpoint.identification.algorithm"

	// Secrets, which are sealed.
	keyPassword = "sasl.password"
	keyKey      = "ssl.keystore.key"
)

// TagSetting is the setting of a link that has the tag of its source, if that is a Leat. Who makes the link finds it out.
const TagSetting = "source.tag"

// AheadSetting is the setting of a link that has by how many ms the clock of the source has been ahead of those here, if it was. The task that follows positions finds it out.
const AheadSetting = "source.clock.ahead.ms"

// Settings are those of a link.
type Settings struct {
	Brokers []string
	Topics  *names.Filter
	Names   *names.Mapping
	Owned   *follow.Owned
	Tag     uint32 // of the source; 0: it has none
	// Groups are the consumer groups whose positions are followed; nil: none are.
	Groups *names.Filter
	policy
	access

	reach     map[string]string
	rack      string
	viaAgent  bool // agents of the link carry the connections
	protocol  string
	tls       *tls.Config
	mechanism string
	user      string
	password  string
}

// policy is those settings that say how partitions are mirrored.
type policy struct {
	start      int64 // see progress.Settings.Start
	acceptLoss bool
	throttle   int64 // bytes per second that the link may read, over all nodes; 0: as many as there are
}

// policyOf is the policy of a link; what is wrong in it, which Check refuses, has its default.
func policyOf(list []meta.LinkSetting) policy {
	p := newParser(list)
	_, _ = p.readStart(), p.readRates()
	return p.s.policy
}

// EncodeSecrets encodes what a link keeps sealed.
func EncodeSecrets(list []meta.LinkSetting) ([]byte, error) {
	if len(list) == 0 {
		return nil, nil
	}
	set := map[string]string{}
	for _, s := range list {
		set[s.Key] = s.Value
	}
	return json.Marshal(set)
}

// ParseSettings reads the settings of a link, and its secrets (see EncodeSecrets). An error says which of them is wrong, and has no secret.
func ParseSettings(list []meta.LinkSetting, secrets []byte) (*Settings, error) {
	p := newParser(list)
	if len(secrets) > 0 {
		if err := json.Unmarshal(secrets, &p.set); err != nil {
			return nil, errors.New("the secrets of the link are damaged")
		}
	}
	for _, read := range []func() error{p.readBrokers, p.readTopics, p.readGroups, p.readAccess, p.readStart, p.readMap, p.readRates, p.readLogin, p.readTLS} {
		if err := read(); err != nil {
			return nil, err
		}
	}
	if len(p.set) > 0 {
		return nil, fmt.Errorf("a link has no setting %q", slices.Sorted(maps.Keys(p.set))[0])
	}
	return p.s, nil
}

// settingsParser takes settings out of the set one after another.
type settingsParser struct {
	set map[string]string
	s   *Settings
}

func newParser(list []meta.LinkSetting) *settingsParser {
	p := &settingsParser{set: map[string]string{}, s: &Settings{policy: policy{start: progress.Earliest}, protocol: "PLAINTEXT"}}
	for _, s := range list {
		p.set[s.Key] = s.Value
	}
	return p
}

func (p *settingsParser) take(key string) string {
	v := strings.TrimSpace(p.set[key])
	delete(p.set, key)
	return v
}

func (p *settingsParser) readBrokers() error {
	for part := range strings.SplitSeq(p.take(keyBrokers), ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		if err := checkAddress(part); err != nil {
			return fmt.Errorf("%s: %w", keyBrokers, err)
		}
		p.s.Brokers = append(p.s.Brokers, part)
	}
	if len(p.s.Brokers) == 0 {
		return fmt.Errorf("%s is missing: it has host:port of brokers of the source", keyBrokers)
	}
	return nil
}

func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if n, e := strconv.ParseUint(port, 10, 16); err != nil || e != nil || n == 0 || host == "" {
		return fmt.Errorf("%.100q is not host:port", address)
	}
	return nil
}

func (p *settingsParser) readTopics() (err error) {
	if p.s.Topics, err = names.ParseFilter(p.take(keyTopics), p.take(keyExclude)); err != nil {
		return err
	}
	if p.s.Names, err = names.ParseMapping(p.take(keyPrefix), p.take(keyRename)); err != nil {
		return err
	}
	p.s.Owned, err = follow.ParseOwned(p.take(keyConfigs))
	return err
}

func (p *settingsParser) readGroups() error {
	include, exclude := p.take(keyGroups), p.take(keyNoGroups)
	if include == "" {
		include = "*"
	}
	filter, err := names.ParseFilter(include, exclude)
	if err != nil {
		return fmt.Errorf("%s, %s: %w", keyGroups, keyNoGroups, err)
	}
	switch text := p.take(keyPositions); text {
	case "", "on":
		p.s.Groups = filter
	case "off":
	default:
		return fmt.Errorf("%s is %.40q, and neither on nor off", keyPositions, text)
	}
	if text := p.take(AheadSetting); text != "" {
		if n, err := strconv.ParseInt(text, 10, 64); err != nil || n < 0 {
			return fmt.Errorf("%s is %.40q, and no number of ms", AheadSetting, text)
		}
	}
	return nil
}

func (p *settingsParser) readAccess() (err error) {
	p.s.access, err = readAccess(p.set, p.s.Names)
	return err
}

func (p *settingsParser) readStart() error {
	switch text := p.take(keyStart); text {
	case "", "earliest":
		p.s.start = progress.Earliest
	case "latest":
		p.s.start = progress.Latest
	default:
		at, err := time.Parse(time.RFC3339, text)
		if err != nil || at.UnixMilli() < 0 {
			return fmt.Errorf("%s is %.60q, and neither earliest, latest nor a time such as 2026-12-01T08:00:00Z", keyStart, text)
		}
		p.s.start = at.UnixMilli()
	}
	return nil
}

func (p *settingsParser) readMap() error {
	p.s.reach = map[string]string{}
	for part := range strings.SplitSeq(p.take(keyMap), ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		from, to, ok := strings.Cut(part, "=")
		if !ok {
			return fmt.Errorf("%s: %.100q is not ADVERTISED=REACHABLE", keyMap, part)
		}
		if err := errors.Join(checkAddress(from), checkAddress(to)); err != nil {
			return fmt.Errorf("%s: %w", keyMap, err)
		}
		p.s.reach[from] = to
	}
	return nil
}

func (p *settingsParser) readRates() error {
	p.s.rack = p.take(keyRack)
	switch text := p.take(keyVia); text {
	case "":
	case meta.ViaAgent:
		p.s.viaAgent = true
	default:
		return fmt.Errorf("%s is %.40q, and not %s", keyVia, text, meta.ViaAgent)
	}
	if text := p.take(TagSetting); text != "" {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return fmt.Errorf("%s is %.40q, and no tag of a cluster", TagSetting, text)
		}
		p.s.Tag = uint32(n)
	}
	if text := p.take(keyThrottle); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < leastThrottle {
			return fmt.Errorf("%s is %.40q, and not a number of at least %d", keyThrottle, text, leastThrottle)
		}
		p.s.throttle = n
	}
	switch text := p.take(keyAcceptLoss); text {
	case "", "false":
	case "true":
		p.s.acceptLoss = true
	default:
		return fmt.Errorf("%s is %.40q, and neither true nor false", keyAcceptLoss, text)
	}
	return nil
}

func (p *settingsParser) readLogin() error {
	s := p.s
	s.mechanism, s.user, s.password = p.take(keyMechanism), p.take(keyUser), p.set[keyPassword]
	delete(p.set, keyPassword)
	if text := p.take(keyProtocol); text != "" {
		s.protocol = strings.ToUpper(text)
	}
	switch s.protocol {
	case "PLAINTEXT", "SSL":
		if s.user != "" || s.mechanism != "" || s.password != "" {
			return fmt.Errorf("there is a login, and %s is %s, which has none: SASL_SSL has one", keyProtocol, s.protocol)
		}
		return nil
	case "SASL_PLAINTEXT", "SASL_SSL":
	default:
		return fmt.Errorf("%s is %.40q, and none of PLAINTEXT, SSL, SASL_PLAINTEXT and SASL_SSL", keyProtocol, s.protocol)
	}
	if s.mechanism == "" {
		s.mechanism = "SCRAM-SHA-512"
	}
	if s.user == "" || s.password == "" {
		return fmt.Errorf("%s needs %s and a password", s.protocol, keyUser)
	}
	_, err := source.NewLogin(s.mechanism, s.user, s.password)
	return err
}

func (p *settingsParser) readTLS() error {
	s, trusted, chain, key := p.s, p.take(keyTrusted), p.take(keyChain), p.take(keyKey)
	algorithm, isGiven := p.set[keyNames]
	delete(p.set, keyNames)
	if s.protocol != "SSL" && s.protocol != "SASL_SSL" {
		if trusted != "" || chain != "" || key != "" {
			return fmt.Errorf("there are certificates, and %s is %s, which does not encrypt", keyProtocol, s.protocol)
		}
		return nil
	}
	s.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	if trusted != "" {
		s.tls.RootCAs = x509.NewCertPool()
		if !s.tls.RootCAs.AppendCertsFromPEM([]byte(trusted)) {
			return fmt.Errorf("%s has no certificate in PEM", keyTrusted)
		}
	}
	if (chain == "") != (key == "") {
		return fmt.Errorf("%s and %s go together", keyChain, keyKey)
	}
	if chain != "" {
		own, err := tls.X509KeyPair([]byte(chain), []byte(key))
		if err != nil {
			return fmt.Errorf("%s and its key, which must not be encrypted, cannot be used: they are no pair in PEM", keyChain)
		}
		s.tls.Certificates = []tls.Certificate{own}
	}
	if isGiven && strings.TrimSpace(algorithm) == "" {
		skipNames(s.tls)
	}
	return nil
}

// skipNames has a connection accept a certificate of any name, if somebody who is trusted has made it.
func skipNames(c *tls.Config) {
	roots := c.RootCAs
	c.InsecureSkipVerify = true
	c.VerifyConnection = func(st tls.ConnectionState) error {
		if len(st.PeerCertificates) == 0 {
			return errors.New("the broker shows no certificate")
		}
		o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
		for _, c := range st.PeerCertificates[1:] {
			o.Intermediates.AddCert(c)
		}
		_, err := st.PeerCertificates[0].Verify(o)
		return err
	}
}

// sourceConfig is how the source is reached.
func (s *Settings) sourceConfig(clientID string) (*source.Config, error) {
	c := &source.Config{Brokers: s.Brokers, ClientID: clientID, Rack: s.rack, TLS: s.tls, Reach: s.reach}
	if s.mechanism == "" {
		return c, nil
	}
	login, err := source.NewLogin(s.mechanism, s.user, s.password)
	c.SASL = login
	return c, err
}
