package interop

import (
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
)

// The listeners of the secured broker, besides INSIDE, by which the suite itself comes as User:ANONYMOUS, a super user.
const (
	loginListener   = "LOGIN"   // asks for a login by any mechanism, over TLS
	certListener    = "CERTS"   // asks for a certificate of the client, and for no login
	shortListener   = "SHORT"   // a login lasts for reauthMS; its certificate is replaced while clients are connected
	strangeListener = "STRANGE" // has a certificate of another authority
	renamedListener = "RENAMED" // has a certificate of the same authority for another name
)

const (
	otherHost = "broker.example" // the name in the certificate of RENAMED
	reauthMS  = 4000             // how long a login lasts on SHORT
	keySetURL = "sasl.oauthbearer.jwks.endpoint.url"
	adminUser = "admin" // a super user
)

// secured is a broker that asks its clients who they are, and lets them do what ACLs grant. All tests of security share it.
type secured struct {
	*broker
	dir         string
	ours, other *authority
	issuer      issuer // that the broker trusts
	forger      issuer // with the same names and another key
}

var renewal sync.Mutex // held while the certificate of SHORT is replaced

var theSecured *secured // the shared one; guarded by brokers.mu

// sharedSecured returns the secured broker, which is started at first use.
func sharedSecured(t *testing.T) *secured {
	t.Helper()
	if os.Getenv(addrEnv) != "" {
		t.Skip("needs a broker with TLS and logins; " + addrEnv + " names a running one")
	}
	brokers.mu.Lock()
	defer brokers.mu.Unlock()
	if theSecured != nil {
		if closed(theSecured.done) {
			t.Fatalf("the broker has died:\n%s", theSecured.log)
		}
		return theSecured
	}
	dir, err := os.MkdirTemp("", "leat-interop-") //nolint:usetesting // it outlives the test that comes first
	if err != nil {
		t.Fatal(err)
	}
	s := &secured{dir: dir, ours: newAuthority(t, dir, "authority"), other: newAuthority(t, dir, "stranger"), issuer: newIssuer(t), forger: newIssuer(t)}
	c, err := startCluster(t, dir, clusterPlan{nodes: 1, set: s.settings(t), more: []listener{
		{loginListener, "SASL_SSL"},
		{certListener, "SSL"},
		{shortListener, "SASL_SSL"},
		{strangeListener, "SASL_SSL"},
		{renamedListener, "SASL_SSL"},
	}})
	if err != nil {
		_ = os.RemoveAll(dir)
		t.Fatal(err)
	}
	if brokers.started == nil {
		brokers.started = map[string]*cluster{}
	}
	brokers.started["secured"] = c
	s.broker = c.nodes[0]
	s.addUser(t, adminUser)
	s.grant(t, "*", kadm.NewACLs().ResourcePatternType(kadm.ACLPatternPrefixed).Groups("none").Operations(kadm.OpRead))
	theSecured = s
	return s
}

// settings writes the certificates and keys, and returns the settings of the broker, in Kafka's names.
func (s *secured) settings(t *testing.T) []string {
	t.Helper()
	servers := map[string]string{}
	for _, l := range []string{"", shortListener, strangeListener, renamedListener} {
		signer, host := s.ours, "localhost"
		switch l {
		case strangeListener:
			signer = s.other
		case renamedListener:
			host = otherHost
		}
		servers[l] = filepath.Join(s.dir, "server-"+strings.ToLower(l)+".pem")
		signer.issue(t, servers[l], pkix.Name{CommonName: "broker 1"}, host)
	}
	keys := filepath.Join(s.dir, "keys.json")
	writeFile(t, keys, s.issuer.keySet(t))
	set := []string{
		quick,
		"authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
		"super.users=User:ANONYMOUS;User:" + adminUser,
		"sasl.enabled.mechanisms=" + strings.Join(mechanisms, ","),
		"ssl.keystore.type=PEM", "ssl.keystore.location=" + servers[""],
		"ssl.truststore.type=PEM", "ssl.truststore.location=" + s.ours.ca,
		keySetURL + "=file://" + keys, "sasl.oauthbearer.expected.audience=" + audience, "sasl.oauthbearer.expected.issuer=" + issuerName,
		"listener.name.certs.ssl.client.auth=required",
		"ssl.principal.mapping.rules=RULE:^CN=([^,]+),OU=clients$/$1/,DEFAULT",
	}
	for _, l := range []string{shortListener, strangeListener, renamedListener} {
		set = append(set, "listener.name."+strings.ToLower(l)+".ssl.keystore.location="+servers[l])
	}
	for _, m := range mechanisms {
		set = append(set, fmt.Sprintf("listener.name.short.%s.connections.max.reauth.ms=%d", strings.ToLower(m), reauthMS))
	}
	if runsKafka() {
		set = append(set, s.kafkaLogins()...)
	}
	return set
}

// kafkaLogins are the settings by which Apache Kafka logs clients in; users of PLAIN are not those of SCRAM there.
func (*secured) kafkaLogins() (set []string) {
	const modules = "org.apache.kafka.common.security."
	users := modules + "plain.PlainLoginModule required"
	for _, c := range visitors() {
		for _, user := range []string{c.name, "slow." + c.name} {
			users += fmt.Sprintf(" user_%s=%q", user, password(user))
		}
	}
	for _, l := range []string{loginListener, shortListener, strangeListener, renamedListener} {
		prefix := "listener.name." + strings.ToLower(l) + "."
		set = append(set,
			prefix+"plain.sasl.jaas.config="+users+";",
			prefix+"scram-sha-256.sasl.jaas.config="+modules+"scram.ScramLoginModule required;",
			prefix+"scram-sha-512.sasl.jaas.config="+modules+"scram.ScramLoginModule required;",
			prefix+"oauthbearer.sasl.jaas.config="+modules+"oauthbearer.OAuthBearerLoginModule required;",
			prefix+"oauthbearer.sasl.server.callback.handler.class="+modules+"oauthbearer.OAuthBearerValidatorCallbackHandler",
		)
	}
	return set
}

// at is the address of a listener.
func (s *secured) at(listener string) string { return "localhost:" + s.ports[listener] }

// password is that of a user. Its signs mean something in the messages of SCRAM and in configs.
func password(user string) string { return user + "'s =,; secret" }

// addUser makes a user who can log in by SCRAM, and, on Leat, by PLAIN.
func (s *secured) addUser(t *testing.T, user string) {
	t.Helper()
	adm := admin(t, s.broker)
	for _, m := range []kadm.ScramMechanism{kadm.ScramSha256, kadm.ScramSha512} {
		_, err := adm.AlterUserSCRAMs(t.Context(), nil, []kadm.UpsertSCRAM{{User: user, Mechanism: m, Iterations: 4096, Password: password(user)}})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// addClient makes a user who may use topics that begin with NAME.open., and read those that begin with NAME.readable.
func (s *secured) addClient(t *testing.T, user string) {
	t.Helper()
	s.addUser(t, user)
	prefixed := kadm.NewACLs().ResourcePatternType(kadm.ACLPatternPrefixed)
	s.grant(t, user, prefixed.Topics(user+".open.").Operations(kadm.OpRead, kadm.OpWrite))
	s.grant(t, user, prefixed.Topics(user+".readable.").Operations(kadm.OpRead))
}

// grant allows a user what the ACLs name.
func (s *secured) grant(t *testing.T, user string, acls *kadm.ACLBuilder) {
	t.Helper()
	made, err := admin(t, s.broker).CreateACLs(t.Context(), acls.Allow("User:"+user).AllowHosts())
	for _, m := range made {
		err = errors.Join(err, m.Err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// login is the login of a user by a mechanism.
func (s *secured) login(t *testing.T, user, mechanism string) *login {
	t.Helper()
	l := &login{CA: s.ours.ca, Mechanism: mechanism, User: user, Password: password(user)}
	if mechanism == byToken {
		l.Password, l.Token = "", s.tokenFile(t, s.issuer, user)
	}
	return l
}

// badLogin is the same with a wrong password, or with a token that another issuer has signed.
func (s *secured) badLogin(t *testing.T, user, mechanism string) *login {
	t.Helper()
	l := s.login(t, user, mechanism)
	if mechanism == byToken {
		l.Token = s.tokenFile(t, s.forger, user)
	} else {
		l.Password += "."
	}
	return l
}

func (*secured) tokenFile(t *testing.T, from issuer, user string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	writeFile(t, path, from.token(t, user))
	return path
}

// certificate is the login of a user by a certificate of an authority.
func (s *secured) certificate(t *testing.T, from *authority, user string) *login {
	t.Helper()
	path := filepath.Join(t.TempDir(), "client.pem")
	from.issue(t, path, pkix.Name{CommonName: user, OrganizationalUnit: []string{"clients"}})
	return &login{CA: s.ours.ca, Certificate: path}
}

// metric sums the series of a metric of Leat that have all of these labels, each as name="value".
func (b *broker) metric(t *testing.T, name string, labels ...string) (sum int) {
	t.Helper()
	answer, err := http.Get("http://" + b.aside + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^`+name+`\{(.*)\} (\d+)$`).FindAllSubmatch(text, -1) {
		have := strings.Split(string(m[1]), ",")
		if slices.ContainsFunc(labels, func(l string) bool { return !slices.Contains(have, l) }) {
			continue
		}
		n, err := strconv.Atoi(string(m[2]))
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}
