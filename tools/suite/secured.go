package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/leatstream/leat/tools/suite/server"
	"github.com/leatstream/leat/tools/suite/workload"
)

// A secured program has four listeners: the one of all programs, where clients do not log in, and are authorised as User:ANONYMOUS; one where they
// log in; one with TLS, and one that asks for their certificates as well. ACLs decide.

// The users of a secured program. admin may do everything.
const (
	adminUser, adminPassword   = "admin", "admins-password"
	clientUser, clientPassword = "alice", "password-of-alice"

	tokenIssuer, tokenAudience = "https://issuer.example.com", "kafka"
	delegationKey              = "the key of all delegation tokens"
)

// otherACLs are those that are about others than the client: 1,000 users, each with a prefix.
const otherACLs = 1000

// leatSecuredProgram starts the leat at path as a secured program.
func leatSecuredProgram(path string) *server.Program {
	return &server.Program{
		About: "leat up --data DIR --listen OPEN=ADDR --listen IN=SASL_PLAINTEXT://ADDR --listen TLS=SSL://ADDR --listen CERT=SSL://ADDR --http off " +
			"--bootstrap-user admin --bootstrap-password-file FILE, keys and certificates in PEM files" + strings.Join(settings(" --set "), ""),
		Prepare: prepareSecured,
		Command: func(dir, addr string) (string, []string) {
			s, _ := workload.ReadSecured(dir) // Prepare has written it; a node without it does not start
			if s == nil {
				s = &workload.Secured{}
			}
			args := []string{
				"up", "--data", dir, "--listen", "OPEN=" + addr, "--listen", "IN=SASL_PLAINTEXT://" + s.Login, "--listen", "TLS=SSL://" + s.TLS, "--listen", "CERT=SSL://" + s.Certificate,
				"--http", "off", "--log-level", "warn", "--bootstrap-user", adminUser, "--bootstrap-password-file", filepath.Join(workload.SecuredFolder(dir), "admin.txt"),
			}
			args = append(args, settings("--set=")...)
			for _, set := range append(storeSettings(dir), "delegation.token.secret.key="+delegationKey) {
				args = append(args, "--set="+set)
			}
			return path, args
		},
		Furnish: furnishSecured,
	}
}

// storeSettings are the settings of both brokers about certificates and tokens.
func storeSettings(dir string) []string {
	in := func(name string) string { return filepath.Join(workload.SecuredFolder(dir), name) }
	return []string{
		"ssl.keystore.type=PEM", "ssl.keystore.location=" + in(workload.SecuredServer),
		"listener.name.cert.ssl.client.auth=required", "listener.name.cert.ssl.truststore.type=PEM", "listener.name.cert.ssl.truststore.location=" + in(workload.SecuredCA),
		"listener.name.cert.ssl.keystore.type=PEM", "listener.name.cert.ssl.keystore.location=" + in(workload.SecuredServer),
		"listener.name.in.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
		"sasl.oauthbearer.jwks.endpoint.url=" + keysURL(dir), "sasl.oauthbearer.expected.issuer=" + tokenIssuer, "sasl.oauthbearer.expected.audience=" + tokenAudience,
	}
}

func keysURL(dir string) string {
	return "file://" + filepath.Join(workload.SecuredFolder(dir), workload.SecuredKeys)
}

// kafkaSecuredProgram starts a node of Apache Kafka as a secured program. Its controller's listener has a login as well, since ANONYMOUS is a client here.
func kafkaSecuredProgram(kafka string) *server.Program {
	java := javaOf(kafka)
	const (
		authorizer = "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer"
		module     = "org.apache.kafka.common.security."
	)
	return &server.Program{
		About: aboutKafka(kafka) + strings.Join(settings(" "), "") + " " + authorizer + " super.users=User:admin, the same listeners and files as Leat, and PLAIN for its controller",
		Prepare: func(ctx context.Context, dir, addr string) error {
			if err := prepareSecured(ctx, dir, addr); err != nil {
				return err
			}
			s, err := workload.ReadSecured(dir)
			if err != nil {
				return err
			}
			controller, err := server.FreeAddress()
			if err != nil {
				return err
			}
			plainUsers := fmt.Sprintf("%splain.PlainLoginModule required username=%q password=%q user_%s=%q user_%s=%q;", module,
				adminUser, adminPassword, adminUser, adminPassword, clientUser, clientPassword)
			listeners := fmt.Sprintf("OPEN://%s,IN://%s,TLS://%s,CERT://%s", addr, s.Login, s.TLS, s.Certificate)
			lines := append([]string{
				"process.roles=broker,controller", "node.id=1", "controller.quorum.voters=1@" + controller, "listeners=" + listeners + ",CONTROLLER://" + controller,
				"advertised.listeners=" + listeners, "controller.listener.names=CONTROLLER", "inter.broker.listener.name=IN",
				"listener.security.protocol.map=OPEN:PLAINTEXT,IN:SASL_PLAINTEXT,TLS:SSL,CERT:SSL,CONTROLLER:SASL_PLAINTEXT",
				"sasl.mechanism.controller.protocol=PLAIN", "sasl.mechanism.inter.broker.protocol=PLAIN", "listener.name.controller.sasl.enabled.mechanisms=PLAIN",
				"listener.name.controller.plain.sasl.jaas.config=" + plainUsers, "listener.name.in.plain.sasl.jaas.config=" + plainUsers,
				"listener.name.in.scram-sha-256.sasl.jaas.config=" + module + "scram.ScramLoginModule required;",
				"listener.name.in.scram-sha-512.sasl.jaas.config=" + module + "scram.ScramLoginModule required;",
				"listener.name.in.oauthbearer.sasl.jaas.config=" + module + "oauthbearer.OAuthBearerLoginModule required;",
				"listener.name.in.oauthbearer.sasl.server.callback.handler.class=" + module + "oauthbearer.OAuthBearerValidatorCallbackHandler",
				authorizer, "super.users=User:" + adminUser, "delegation.token.secret.key=" + delegationKey,
				"log.dirs=" + filepath.Join(dir, "log"), "offsets.topic.replication.factor=1", "transaction.state.log.replication.factor=1", "transaction.state.log.min.isr=1",
			}, storeSettings(dir)...)
			lines = append(lines, settings("")...)
			if err := os.WriteFile(filepath.Join(dir, "server.properties"), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
				return err
			}
			return runFormat(ctx, java(dir, "kafka.tools.StorageTool", "format", "-t", newClusterID(), "-c"))
		},
		Command: func(dir, _ string) (string, []string) {
			return "java", java(dir, "-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls="+keysURL(dir),
				"-Dorg.apache.kafka.sasl.oauthbearer.allowed.files="+filepath.Join(workload.SecuredFolder(dir), workload.SecuredKeys), "kafka.Kafka")
		},
		Furnish: furnishSecured,
	}
}

// prepareSecured makes the folder of a secured program: its addresses, keys, certificates and tokens.
func prepareSecured(_ context.Context, dir, _ string) error {
	folder := workload.SecuredFolder(dir)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	s := &workload.Secured{User: clientUser, Password: clientPassword}
	for _, addr := range []*string{&s.Login, &s.TLS, &s.Certificate} {
		var err error
		if *addr, err = server.FreeAddress(); err != nil {
			return err
		}
	}
	if err := writeCertificates(folder); err != nil {
		return err
	}
	keys, token, err := makeToken()
	if err != nil {
		return err
	}
	s.JWT = token
	return errors.Join(os.WriteFile(filepath.Join(folder, workload.SecuredKeys), keys, 0o600), os.WriteFile(filepath.Join(folder, "admin.txt"), []byte(adminPassword), 0o600), s.Write(dir))
}

// writeCertificates makes an authority, and by it the certificates of the broker and of a client. All keys are of P-256.
func writeCertificates(folder string) error {
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	write := func(name string, serial int64, subject string, isAuthority bool) error {
		key, made := authorityKey, authority
		if !isAuthority {
			if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
				return err
			}
			made = &x509.Certificate{
				SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: subject}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0), DNSNames: []string{"localhost"},
				KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			}
		}
		der, err := x509.CreateCertificate(rand.Reader, made, authority, &key.PublicKey, authorityKey)
		if err != nil {
			return err
		}
		text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		if !isAuthority {
			secret, err := x509.MarshalPKCS8PrivateKey(key)
			if err != nil {
				return err
			}
			text = append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), text...)
		}
		return os.WriteFile(filepath.Join(folder, name), text, 0o600)
	}
	return errors.Join(write(workload.SecuredCA, 1, "", true), write(workload.SecuredServer, 2, "localhost", false), write(workload.SecuredClient, 3, clientUser, false))
}

// makeToken makes a set of keys, and a token for the client that one of them has signed: RS256, as most issuers do.
func makeToken() (keys []byte, token string, err error) {
	const bits = 2048
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, "", err
	}
	encode := base64.RawURLEncoding.EncodeToString
	keys, err = json.Marshal(map[string]any{"keys": []map[string]string{{
		"kty": "RSA", "kid": "1", "use": "sig", "alg": "RS256", "n": encode(key.N.Bytes()), "e": encode(big.NewInt(int64(key.E)).Bytes()),
	}}})
	if err != nil {
		return nil, "", err
	}
	now := time.Now().Unix()
	const day = 24 * 60 * 60
	head, err := json.Marshal(map[string]string{"alg": "RS256", "kid": "1", "typ": "JWT"})
	if err != nil {
		return nil, "", err
	}
	body, err := json.Marshal(map[string]any{"iss": tokenIssuer, "aud": tokenAudience, "sub": clientUser, "scope": "kafka", "iat": now - 1, "exp": now + day})
	if err != nil {
		return nil, "", err
	}
	signed := encode(head) + "." + encode(body)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		return nil, "", err
	}
	return keys, signed + "." + encode(signature), nil
}

// furnishSecured makes the user, the ACLs and the delegation token of a secured program that runs.
func furnishSecured(ctx context.Context, srv *server.Server) error {
	s, err := workload.ReadSecured(srv.Dir)
	if err != nil {
		return err
	}
	const within = time.Minute
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if err := awaitListeners(ctx, s.Login, s.TLS, s.Certificate); err != nil {
		return err
	}
	as := func(m sasl.Mechanism) (*kgo.Client, error) {
		return kgo.NewClient(kgo.SeedBrokers(s.Login), kgo.SASL(m))
	}
	admin, err := as(plain.Auth{User: adminUser, Pass: adminPassword}.AsMechanism())
	if err != nil {
		return err
	}
	defer admin.Close()
	adm := kadm.NewClient(admin)
	for _, m := range []kadm.ScramMechanism{kadm.ScramSha256, kadm.ScramSha512} {
		const iterations = 4096
		made, err := adm.AlterUserSCRAMs(ctx, nil, []kadm.UpsertSCRAM{{User: clientUser, Mechanism: m, Iterations: iterations, Password: clientPassword}})
		if err = errors.Join(err, made.Error()); err != nil {
			return err
		}
	}
	if err := grant(ctx, admin); err != nil {
		return err
	}
	// The user logs in as soon as the broker has read what was made.
	user, err := as(scram.Auth{User: clientUser, Pass: clientPassword}.AsSha256Mechanism())
	if err != nil {
		return err
	}
	defer user.Close()
	ask := kmsg.NewPtrCreateDelegationTokenRequest()
	ask.MaxLifetimeMillis = -1
	token, err := ask.RequestWith(ctx, user)
	for err != nil && ctx.Err() == nil {
		time.Sleep(50 * time.Millisecond)
		token, err = ask.RequestWith(ctx, user)
	}
	if err != nil {
		return err
	}
	if token.ErrorCode != 0 {
		return fmt.Errorf("no delegation token was made: code %d", token.ErrorCode)
	}
	s.TokenID, s.TokenHMAC = token.TokenID, base64.StdEncoding.EncodeToString(token.HMAC)
	return s.Write(srv.Dir)
}

// awaitListeners waits until all listeners of a broker are open: Apache Kafka opens one after another.
func awaitListeners(ctx context.Context, addrs ...string) error {
	for _, addr := range addrs {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		for err != nil && ctx.Err() == nil {
			time.Sleep(10 * time.Millisecond)
			conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		}
		if err != nil {
			return err
		}
		if err := conn.Close(); err != nil {
			return err
		}
	}
	return nil
}

// grant lets the client without a login use the topics of the suite, and others use theirs.
func grant(ctx context.Context, admin *kgo.Client) error {
	mine := kadm.NewACLs().Allow("User:ANONYMOUS").AllowHosts("*").Topics("bench").Groups("bench").ResourcePatternType(kadm.ACLPatternPrefixed).Operations(kadm.OpAll)
	made, err := kadm.NewClient(admin).CreateACLs(ctx, mine)
	if err != nil {
		return err
	}
	for _, m := range made {
		if m.Err != nil {
			return m.Err
		}
	}
	req := kmsg.NewPtrCreateACLsRequest()
	for i := range otherACLs {
		one := kmsg.NewCreateACLsRequestCreation()
		one.ResourceType, one.ResourceName, one.ResourcePatternType = kmsg.ACLResourceTypeTopic, fmt.Sprintf("team.%04d.", i), kmsg.ACLResourcePatternTypePrefixed
		one.Principal, one.Host, one.Operation, one.PermissionType = fmt.Sprintf("User:team-%04d", i), "*", kmsg.ACLOperationRead, kmsg.ACLPermissionTypeAllow
		req.Creations = append(req.Creations, one)
	}
	resp, err := req.RequestWith(ctx, admin)
	if err != nil {
		return err
	}
	for _, r := range resp.Results {
		if r.ErrorCode != 0 {
			return fmt.Errorf("no ACL was made: code %d", r.ErrorCode)
		}
	}
	return nil
}
