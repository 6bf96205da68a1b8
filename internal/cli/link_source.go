package cli

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatstream/leat/internal/admin"
	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror/names"
)

// The keys of a link's settings: see cluster.LinkRequest.
const (
	serversKey   = "bootstrap.servers"
	topicsKey    = "topics"
	excludeKey   = "exclude"
	prefixKey    = "prefix"
	renameKey    = "rename"
	startKey     = "start"
	mapKey       = "map"
	throttleKey  = "throttle.bytes.per.second"
	lossKey      = "accept.loss"
	rackKey      = "client.rack"
	aheadKey     = "source.clock.ahead.ms"
	groupsKey    = "groups"
	noGroupsKey  = "groups.exclude"
	positionsKey = "positions"
	viaKey       = meta.ViaSetting
	protocolKey  = "security.protocol"
	mechanismKey = "sasl.mechanism"
	userKey      = "sasl.username"
	trustedKey   = "ssl.truststore.certificates"
	chainKey     = "ssl.keystore.certificate.chain"
	algorithmKey = "ssl.endpoint.identification.algorithm"

	principalsKey      = "principals"
	notPrincipalsKey   = "principals.exclude"
	mapPrincipalsKey   = "principals.map"
	aclsKey            = "acls"
	aclGroupsKey       = "acls.groups"
	aclNotGroupsKey    = "acls.groups.exclude"
	transactionsKey    = "acls.transactional.ids"
	notTransactionsKey = "acls.transactional.ids.exclude"
	allNamesKey        = "acls.all.names"
	quotasKey          = "quotas"
	clientsKey         = "quotas.client.ids"
	notClientsKey      = "quotas.client.ids.exclude"
	defaultsKey        = "quotas.defaults"
)

// loginKeys are the settings that say how a link reaches and logs in at its source. They are replaced together.
func loginKeys() []string {
	return []string{protocolKey, mechanismKey, userKey, trustedKey, chainKey, algorithmKey}
}

// linkFlagOf is the flag that sets a setting; "": several flags together do.
func linkFlagOf(key string) string {
	return map[string]string{
		serversKey: "--from", topicsKey: "--topics", excludeKey: "--exclude", prefixKey: "--prefix", renameKey: "--rename", startKey: "--start", mapKey: "--map",
		throttleKey: "--throttle", lossKey: "--accept-loss", rackKey: "--rack", viaKey: "--via", groupsKey: "--groups", noGroupsKey: "--exclude-groups", positionsKey: "--positions",
		aclsKey: "--acls", quotasKey: "--quotas", principalsKey: "--principals", notPrincipalsKey: "--exclude-principals",
		mapPrincipalsKey: "--map-principal", aclGroupsKey: "--acl-groups", aclNotGroupsKey: "--acl-exclude-groups", transactionsKey: "--acl-transactional-ids",
		notTransactionsKey: "--acl-exclude-transactional-ids", allNamesKey: "--acl-all-names", clientsKey: "--quota-client-ids", notClientsKey: "--quota-exclude-client-ids", defaultsKey: "--quota-defaults",
	}[key]
}

// linkSource is which cluster a link reads from, what of it, and how it logs in there, as flags say.
type linkSource struct {
	from, topics, exclude, rename, reach []string
	groups, noGroups                     []string
	prefix, start, rack, positions, via  string
	throttle                             int64
	acceptsLoss                          bool
	access                               linkAccess

	clientConfig, user, passwordFile, mechanism, ca string
	tls, allowsPlainText                            bool
}

// sourceLoginFlags are the flags of a login at the source.
func sourceLoginFlags() []string {
	return []string{"source-config", "source-user", "source-password-file", "source-mechanism", "source-tls", "source-ca"}
}

func (s *linkSource) addFlags(a *app, cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&s.topics, "topics", nil, "a `pattern` of the source's topics: a name, a prefix as in 'orders-*', or a regular expression as in 're:^web-'; may be repeated (default: all topics)")
	f.StringArrayVar(&s.exclude, "exclude", nil, "a `pattern` of topics that are left out; may be repeated")
	f.StringVar(&s.prefix, "prefix", "", "what the topics' names begin with here, before those at the source")
	f.StringArrayVar(&s.rename, "rename", nil, "another name for a topic, as `SOURCE=HERE`, which then gets no prefix; may be repeated")
	f.StringVar(&s.start, "start", "", `where new mirrors begin: "earliest", "latest", or a `+"`time`"+` such as 2026-12-01T08:00:00Z or -2d (default: earliest)`)
	f.StringArrayVar(&s.reach, "map", nil, "where a broker is reached in place of the address that it advertises, as `ADVERTISED=REACHABLE`, host:port each; may be repeated")
	f.Int64Var(&s.throttle, "throttle", 0, "how many bytes per second all nodes together read from the source (default: as many as they can)")
	f.BoolVar(&s.acceptsLoss, "accept-loss", false, "note losses and go on, and wait for nobody to accept them")
	f.StringVar(&s.rack, "rack", "", "where the nodes here are, in the source's words: replicas near them are read")
	f.StringArrayVar(&s.groups, "groups", nil, "a `pattern` of the source's consumer groups whose positions are followed, as of --topics; may be repeated (default: all groups)")
	f.StringArrayVar(&s.noGroups, "exclude-groups", nil, "a `pattern` of groups that are left out; may be repeated")
	f.StringVar(&s.positions, "positions", "", `whether positions of consumer groups follow the source: "on" or "off" (default: on)`)
	f.StringVar(&s.via, "via", "", `how the source is reached: "`+meta.ViaAgent+`" by agents that run beside it ("leat link agent"), for one that cannot be dialled (default: the nodes dial it)`)
	s.addLoginFlags(a, cmd)
	s.access.addFlags(a, cmd)
	a.completeFlag(cmd, "start", completeWords("earliest", "latest"))
	a.completeFlag(cmd, "positions", completeWords("on", "off"))
	a.completeFlag(cmd, "via", completeWords(meta.ViaAgent))
	for _, name := range []string{"topics", "exclude", "prefix", "rename", "map", "throttle", "rack", "groups", "exclude-groups"} {
		a.completeFlag(cmd, name, completeNothing)
	}
}

// addLoginFlags adds the flags that say where the source is, and how to log in there.
func (s *linkSource) addLoginFlags(a *app, cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&s.from, "from", nil, "brokers of the source, as host:port; may be repeated")
	f.StringVar(&s.clientConfig, "source-config", "", "a Java client.properties: the source's brokers, how to log in there, what to trust")
	f.StringVar(&s.user, "source-user", "", "the user to log in as at the source")
	f.StringVar(&s.passwordFile, "source-password-file", "", "file whose first line is that user's password")
	f.StringVar(&s.mechanism, "source-mechanism", "", "SASL mechanism at the source: SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN (default "+defaultMechanism+")")
	f.BoolVar(&s.tls, "source-tls", false, "encrypt, and check the certificates of the source's brokers")
	f.StringVar(&s.ca, "source-ca", "", "PEM file of the certificates to trust there, in place of those that the nodes' systems trust; implies --source-tls")
	f.BoolVar(&s.allowsPlainText, "source-allow-plain-text-password", false, "let PLAIN send the password without TLS")
	for _, name := range sourceLoginFlags()[1:] {
		cmd.MarkFlagsMutuallyExclusive("source-config", name)
	}
	a.completeFlag(cmd, "source-mechanism", completeWords(config.MechanismScramSHA512, config.MechanismScramSHA256, config.MechanismPlain))
	for _, name := range []string{"from", "source-user"} {
		a.completeFlag(cmd, name, completeNothing)
	}
}

// linkWish is what flags ask for.
type linkWish struct {
	set     map[string]string
	secrets cluster.LinkSecrets // nil: nothing was said of a login
}

// settings are those of the wish, in the order of their keys.
func (w *linkWish) settings() (list []meta.LinkSetting) {
	for _, key := range slices.Sorted(maps.Keys(w.set)) {
		list = append(list, meta.LinkSetting{Key: key, Value: w.set[key]})
	}
	return list
}

// readWish reads the flags that were given, and the files that they name.
func (s *linkSource) readWish(cmd *cobra.Command) (*linkWish, error) {
	w := &linkWish{set: map[string]string{}}
	if slices.ContainsFunc(sourceLoginFlags(), func(name string) bool { return cmd.Flag(name).Changed }) {
		if err := s.readLogin(w); err != nil {
			return nil, err
		}
	}
	lists := map[string][]string{serversKey: s.from, topicsKey: s.topics, excludeKey: s.exclude, renameKey: s.rename, mapKey: s.reach, groupsKey: s.groups, noGroupsKey: s.noGroups}
	for key, list := range lists {
		if len(list) > 0 {
			w.set[key] = strings.Join(list, ",")
		}
	}
	for key, text := range map[string]string{prefixKey: s.prefix, rackKey: s.rack, positionsKey: s.positions, viaKey: s.via} {
		if text != "" {
			w.set[key] = text
		}
	}
	if cmd.Flag("throttle").Changed {
		if s.throttle <= 0 {
			return nil, usagef("--throttle %d: give a number of bytes per second; \"leat link alter NAME --unset %s\" ends it", s.throttle, throttleKey)
		}
		w.set[throttleKey] = strconv.FormatInt(s.throttle, 10)
	}
	if cmd.Flag("accept-loss").Changed {
		w.set[lossKey] = strconv.FormatBool(s.acceptsLoss)
	}
	if s.via != "" && s.via != meta.ViaAgent {
		return nil, usagef("--via %s: write --via %s, or leave it out to have the nodes dial the source", s.via, meta.ViaAgent)
	}
	if s.start != "" {
		at, err := parseStart(s.start, time.Now())
		if err != nil {
			return nil, err
		}
		w.set[startKey] = at
	}
	if err := s.access.readWish(cmd, w); err != nil {
		return nil, err
	}
	return w, w.check()
}

// parseStart reads where new mirrors begin.
func parseStart(text string, now time.Time) (string, error) {
	p, err := admin.ParsePosition(text, now)
	switch {
	case err == nil && p.Kind == admin.AtStart:
		return "earliest", nil
	case err == nil && p.Kind == admin.AtEnd:
		return "latest", nil
	case err == nil && p.Kind == admin.AtTime:
		return time.UnixMilli(p.N).UTC().Format("2006-01-02T15:04:05.999Z07:00"), nil
	}
	return "", usagef("--start %s: write earliest, latest, or a time such as 2026-12-01T08:00:00Z or -2d", text)
}

// check refuses what no link can have.
func (w *linkWish) check() error {
	for at := range strings.SplitSeq(w.set[serversKey], ",") {
		if err := checkHostPort(strings.TrimSpace(at)); err != nil && w.set[serversKey] != "" {
			return usagef("--from %s: %v", w.set[serversKey], err)
		}
	}
	if _, err := names.ParseFilter(w.set[topicsKey], w.set[excludeKey]); err != nil {
		return usagef("--topics and --exclude: %v", err)
	}
	if _, err := names.ParseFilter(w.set[groupsKey], w.set[noGroupsKey]); err != nil {
		return usagef("--groups and --exclude-groups: %v", err)
	}
	if text := w.set[positionsKey]; text != "" && text != "on" && text != "off" {
		return usagef("--positions %s: write on or off", text)
	}
	if _, err := names.ParseMapping(w.set[prefixKey], w.set[renameKey]); err != nil {
		return usagef("--prefix and --rename: %v", err)
	}
	if w.set[mapKey] == "" {
		return nil
	}
	for pair := range strings.SplitSeq(w.set[mapKey], ",") {
		advertised, reachable, ok := strings.Cut(strings.TrimSpace(pair), "=")
		if !ok {
			return usagef("--map %s: write it as ADVERTISED=REACHABLE, such as kafka-1:9092=10.8.0.5:9092", pair)
		}
		for _, at := range []string{advertised, reachable} {
			if err := checkHostPort(at); err != nil {
				return usagef("--map %s: %v", pair, err)
			}
		}
	}
	return nil
}

// checkHostPort refuses an address that has no host or no port.
func checkHostPort(at string) error {
	host, port, err := net.SplitHostPort(at)
	if n, e := strconv.ParseUint(port, 10, 16); err != nil || e != nil || n == 0 || host == "" {
		return usagef("%q is not an address: write host:port", at)
	}
	return nil
}

// readLogin reads how a link logs in: from a client.properties, or from flags, which say the same in fewer words.
func (s *linkSource) readLogin(w *linkWish) error {
	w.secrets = cluster.LinkSecrets{}
	p := map[string]string{}
	from := ""
	if s.clientConfig != "" {
		text, err := readFile(s.clientConfig)
		if err != nil {
			return err
		}
		if p, err = config.ParseProperties(string(text)); err != nil {
			return usagef("--source-config %s: %v", s.clientConfig, err)
		}
		if servers := strings.TrimSpace(p[serversKey]); servers != "" {
			w.set[serversKey] = servers
		}
		from = "--source-config " + s.clientConfig + ": "
	} else {
		s.fillProperties(p)
	}
	protocol, ok := config.ParseProtocol(p[protocolKey])
	if p[protocolKey] != "" && !ok {
		return usagef("%ssecurity.protocol=%s is none of PLAINTEXT, SSL, SASL_PLAINTEXT and SASL_SSL", from, p[protocolKey])
	}
	w.set[protocolKey] = protocol.String()
	if protocol.UsesTLS() {
		if err := w.readTLS(p); err != nil {
			return usagef("%s%v", from, err)
		}
	}
	if !protocol.AsksForLogin() {
		return nil
	}
	user, password, err := s.readUser(p)
	if err != nil {
		return err
	}
	mechanism := p[mechanismKey]
	switch {
	case mechanism == config.MechanismPlain && !protocol.UsesTLS() && !s.allowsPlainText:
		return usagef("%sPLAIN sends the password as it is, and without TLS everybody on the way to the source could read it: log in over TLS, by SCRAM, or allow it with --source-allow-plain-text-password", from)
	case mechanism != config.MechanismPlain && mechanism != config.MechanismScramSHA256 && mechanism != config.MechanismScramSHA512:
		return usagef("%sa link does not log in by %q: SCRAM-SHA-512, SCRAM-SHA-256 and PLAIN are possible, which last for as long as the link", from, mechanism)
	}
	w.set[mechanismKey], w.set[userKey] = mechanism, user
	w.secrets = append(w.secrets, meta.LinkSetting{Key: cluster.PasswordKey, Value: password})
	return nil
}

// fillProperties writes what flags say as the lines of a client.properties.
func (s *linkSource) fillProperties(p map[string]string) {
	encrypts, logsIn := s.tls || s.ca != "", s.user != "" || s.passwordFile != "" || s.mechanism != ""
	protocol := config.Plaintext
	switch {
	case encrypts && logsIn:
		protocol = config.SASLSSL
	case encrypts:
		protocol = config.SSL
	case logsIn:
		protocol = config.SASLPlaintext
	}
	p[protocolKey] = protocol.String()
	if logsIn {
		p[mechanismKey] = defaultMechanism
		if s.mechanism != "" {
			p[mechanismKey] = s.mechanism
		}
	}
	if s.ca != "" {
		p["ssl.truststore.location"], p["ssl.truststore.type"] = s.ca, "PEM"
	}
}

// readUser reads who logs in, and the password.
func (s *linkSource) readUser(p map[string]string) (user, password string, err error) {
	if s.clientConfig == "" {
		if s.user == "" || s.passwordFile == "" {
			return "", "", usagef("a login at the source needs --source-user and --source-password-file")
		}
		text, err := readFile(s.passwordFile)
		if err != nil {
			return "", "", err
		}
		line, _, _ := strings.Cut(string(text), "\n")
		if password = strings.TrimSuffix(line, "\r"); password == "" {
			return "", "", usagef("--source-password-file %s: its first line, which is the password, is empty", s.passwordFile)
		}
		return s.user, password, nil
	}
	j, err := config.ParseJAAS(p["sasl.jaas.config"])
	switch {
	case err != nil:
		return "", "", usagef("--source-config %s: sasl.jaas.config: %v", s.clientConfig, err)
	case strings.EqualFold(j.Options["tokenauth"], "true"):
		return "", "", usagef("--source-config %s: a delegation token ends, and a link goes on: log in as a user", s.clientConfig)
	case j.Options["username"] == "" || j.Options["password"] == "":
		return "", "", usagef("--source-config %s: sasl.jaas.config: username and password are missing", s.clientConfig)
	}
	return j.Options["username"], j.Options["password"], nil
}

// readTLS reads whom a link trusts, and its own certificate. The files are read here, since nodes cannot.
func (w *linkWish) readTLS(p map[string]string) error {
	own, trusted, err := tlsOf(p)
	if err != nil {
		return err
	}
	if trusted != "" {
		w.set[trustedKey] = trusted
	}
	if algorithm, given := p[algorithmKey]; given && algorithm == "" {
		w.set[algorithmKey] = ""
	}
	if len(own.Certificates) == 0 {
		return nil
	}
	chain, key, err := encodeCertificate(&own.Certificates[0])
	if err != nil {
		return err
	}
	w.set[chainKey] = chain
	w.secrets = append(w.secrets, meta.LinkSetting{Key: cluster.KeyKey, Value: key})
	return nil
}

// encodeCertificate writes a certificate with those behind it, and its key, as PEM.
func encodeCertificate(c *tls.Certificate) (chain, key string, err error) {
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return "", "", usagef("the key of the certificate is of a kind that cannot be kept")
	}
	var b strings.Builder
	for _, raw := range c.Certificate {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}))
	}
	return b.String(), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), nil
}

// sourcePrincipal is who a link is at its source, as Kafka names clients.
func sourcePrincipal(settings map[string]string) string {
	if user := settings[userKey]; user != "" {
		return auth.UserType + ":" + user
	}
	block, _ := pem.Decode([]byte(settings[chainKey]))
	if block == nil {
		return auth.Anonymous().String()
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return auth.Anonymous().String()
	}
	name, err := auth.FormatSubject(c.RawSubject)
	if err != nil {
		return auth.Anonymous().String()
	}
	return auth.UserType + ":" + name
}
