package interop

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// keycloakEnv names a directory with Keycloak, instead of that in the cache.
const keycloakEnv = "LEAT_KEYCLOAK"

// keycloakKit holds Keycloak, 160 MB to download.
var keycloakKit = kit{
	name:   "keycloak",
	needs:  javaKit.needs,
	inputs: []string{"java/keycloak/pom.xml"},
	fill: func(ctx context.Context, dir string) error {
		return command(ctx, dir, nil, "mvn", "-B", "-q", "dependency:unpack-dependencies", "-DoutputDirectory=.")
	},
}

const (
	keycloakTime = 5 * time.Minute // its first start compiles what it is made of
	robotSecret  = "robots-secret"
	pagesSecret  = "pages-secret"
	carolsWord   = "carols-password"
)

// keycloak is an issuer: Keycloak in its mode for developers, with a database in memory.
type keycloak struct {
	url    string // of its realm
	ca     string // the file with the certificate of its authority
	client *http.Client
}

// startKeycloak starts Keycloak with a realm of one user, carol in the group ops, until the test ends. pages is where users log in.
func startKeycloak(t *testing.T, pages string) *keycloak {
	t.Helper()
	home := os.Getenv(keycloakEnv)
	if home == "" {
		found, err := filepath.Glob(filepath.Join(keycloakKit.have(t), "keycloak-*"))
		if err != nil || len(found) != 1 {
			t.Fatalf("the download has %v, %v", found, err)
		}
		home = found[0]
	}
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "keycloak"), os.DirFS(home)); err != nil { // it writes there
		t.Fatal(err)
	}
	ports, err := freePorts(3)
	if err != nil {
		t.Fatal(err)
	}
	ours := newAuthority(t, dir, "issuer")
	pair := filepath.Join(dir, "keycloak.pem")
	ours.issue(t, pair, pkix.Name{CommonName: "keycloak"}, "localhost", "127.0.0.1")
	at := fmt.Sprintf("https://localhost:%d", ports[0])
	imported := filepath.Join(dir, "keycloak", "data", "import")
	if err := os.MkdirAll(imported, 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(imported, "people-realm.json"), asJSON(t, keycloakRealm(pages)))
	said := &tail{}
	cmd := exec.CommandContext(t.Context(), "bash", filepath.Join(dir, "keycloak", "bin", "kc.sh"), "start-dev", "--import-realm", "--db=dev-mem", "--cache=local", "--http-host=127.0.0.1",
		"--hostname="+at, fmt.Sprintf("--https-port=%d", ports[0]), fmt.Sprintf("--http-management-port=%d", ports[1]), fmt.Sprintf("--http-port=%d", ports[2]), "--https-certificate-file="+pair, "--https-certificate-key-file="+pair)
	cmd.Env = append(os.Environ(), "JAVA_OPTS_KC_HEAP=-Xms64m -Xmx512m", "JAVA_OPTS_APPEND=-XX:TieredStopAtLevel=1")
	cmd.Stdout, cmd.Stderr = said, said
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // what it said tells why
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt) // an error means that it has ended
		<-ended
	})
	text, err := os.ReadFile(ours.ca)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	k := &keycloak{url: at + "/realms/people", ca: ours.ca, client: &http.Client{Jar: jar, Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}}
	for until := time.Now().Add(keycloakTime); ; time.Sleep(250 * time.Millisecond) {
		status, _, err := k.get(t, k.url+"/.well-known/openid-configuration")
		if err == nil && status == http.StatusOK {
			return k
		}
		if time.Now().After(until) || closed(ended) {
			t.Fatalf("Keycloak does not serve: %d, %v\n%s", status, err, said)
		}
	}
}

// keycloakRealm is the realm as Keycloak imports it.
func keycloakRealm(pages string) map[string]any {
	mapper := func(name, kind string, config map[string]string) map[string]any {
		return map[string]any{"name": name, "protocol": "openid-connect", "protocolMapper": kind, "config": config}
	}
	groups := mapper("groups", "oidc-group-membership-mapper", map[string]string{"claim.name": "groups", "full.path": "false", "id.token.claim": "true", "access.token.claim": "true"})
	return map[string]any{
		"realm": "people", "enabled": true,
		"groups": []any{map[string]any{"name": "ops"}},
		"users": []any{map[string]any{
			"username": "carol", "enabled": true, "email": "carol@example.com", "emailVerified": true, "firstName": "Carol", "lastName": "C", "groups": []string{"/ops"},
			"credentials": []any{map[string]any{"type": "password", "value": carolsWord, "temporary": false}},
		}},
		"clients": []any{
			map[string]any{
				"clientId": "pages", "enabled": true, "secret": pagesSecret, "standardFlowEnabled": true, "redirectUris": []string{pages + "/login/oidc/callback"},
				"attributes": map[string]string{"pkce.code.challenge.method": "S256"}, "protocolMappers": []any{groups},
			},
			map[string]any{"clientId": "other", "enabled": true, "secret": robotSecret, "standardFlowEnabled": false, "serviceAccountsEnabled": true},
			map[string]any{
				"clientId": "robot", "enabled": true, "secret": robotSecret, "standardFlowEnabled": false, "serviceAccountsEnabled": true,
				"protocolMappers": []any{mapper("audience", "oidc-audience-mapper", map[string]string{"included.custom.audience": audience, "access.token.claim": "true"})},
			},
		},
	}
}

func (k *keycloak) get(t *testing.T, at string) (status int, text string, err error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/html,*/*;q=0.5")
	return k.do(req)
}

func (k *keycloak) do(req *http.Request) (status int, text string, err error) {
	resp, err := k.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

func (k *keycloak) post(t *testing.T, at string, form url.Values) (status int, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, at, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	status, text, err = k.do(req)
	if err != nil {
		t.Fatal(err)
	}
	return status, text
}

// tokenFile has Keycloak give a token to a program, by the client-credentials grant.
func (k *keycloak) tokenFile(t *testing.T, id, secret string) string {
	t.Helper()
	status, text := k.post(t, k.url+"/protocol/openid-connect/token", url.Values{"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {secret}})
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil || status != http.StatusOK || answer.Token == "" {
		t.Fatalf("no token: %d, %s", status, text)
	}
	file := filepath.Join(t.TempDir(), "token")
	writeFile(t, file, []byte(answer.Token))
	return file
}

var keycloakForm = regexp.MustCompile(`<form[^>]* action="([^"]+)"`)

// TestKeycloak proves that programs log in by OAUTHBEARER with tokens that Keycloak gives them by the client-credentials grant, in Java by Kafka's own login, too; that a user
// logs in at the pages of HTTP through Keycloak's form, by code flow, and may there what its group may; and that a token of another audience logs nobody in.
func TestKeycloak(t *testing.T) {
	if runsKafka() {
		t.Skip("it is about logins at Leat")
	}
	free, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	pages := fmt.Sprintf("http://127.0.0.1:%d", free[0])
	k := startKeycloak(t, pages)
	set := []string{"--http", strings.TrimPrefix(pages, "http://")}
	for _, s := range []string{
		"sasl.enabled.mechanisms=SCRAM-SHA-512,OAUTHBEARER", keySetURL + "=" + k.url + "/protocol/openid-connect/certs", "sasl.oauthbearer.expected.audience=" + audience,
		"sasl.oauthbearer.expected.issuer=" + k.url, "sasl.oauthbearer.sub.claim.name=preferred_username", "leat.sasl.oauthbearer.ca.location=" + k.ca,
		"super.users=User:admin;User:service-account-robot;Group:ops",
		"leat.http.oidc.issuer.url=" + k.url, "leat.http.oidc.client.id=pages", "leat.http.oidc.client.secret=" + pagesSecret, "leat.http.oidc.redirect.url=" + pages,
	} {
		set = append(set, "--set", s)
	}
	n := startSecured(t, set...)
	t.Run("franz-go", func(t *testing.T) {
		cl, err := franzClient(request{Addr: n.addr, Login: &login{CA: n.ca, Mechanism: byToken, Token: k.tokenFile(t, "robot", robotSecret)}}, kgo.DefaultProduceTopic("tokens"), kgo.AllowAutoTopicCreation())
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		if err := cl.ProduceSync(t.Context(), kgo.StringRecord("by Keycloak")).FirstErr(); err != nil {
			t.Error(err)
		}
	})
	t.Run("Java", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "client.properties")
		properties := func(secret string) {
			writeFile(t, file, fmt.Appendf(nil, "security.protocol=SASL_SSL\nssl.truststore.type=PEM\nssl.truststore.location=%s\nsasl.mechanism=OAUTHBEARER\n"+
				"sasl.login.callback.handler.class=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginCallbackHandler\nsasl.oauthbearer.token.endpoint.url=%s/protocol/openid-connect/token\n"+
				"sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required clientId=\"robot\" clientSecret=\"%s\" ssl.truststore.type=\"PEM\" ssl.truststore.location=\"%s\";\n",
				n.ca, k.url, secret, k.ca))
		}
		run := func() (string, error) {
			cmd := java(t, 128, topicsTool, "--bootstrap-server", n.addr, "--command-config", file, "--create", "--if-not-exists", "--topic", "by-java")
			cmd.Env = append(os.Environ(), "JDK_JAVA_OPTIONS=-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls="+k.url+"/protocol/openid-connect/token")
			out, err := cmd.CombinedOutput()
			return string(out), err
		}
		properties(robotSecret)
		if out, err := run(); err != nil || !strings.Contains(out, "Created topic by-java") {
			t.Errorf("%v: %s", err, out)
		}
		properties("wrong")
		if out, err := run(); err == nil {
			t.Errorf("a program without a token: %s", out)
		}
	})
	t.Run("pages", func(t *testing.T) {
		status, page, err := k.get(t, pages+"/login/oidc?next=/metrics")
		form := keycloakForm.FindStringSubmatch(page)
		if err != nil || status != http.StatusOK || form == nil {
			t.Fatalf("Keycloak shows no form: %d, %v, %s", status, err, page)
		}
		at := html.UnescapeString(form[1])
		if status, page = k.post(t, at, url.Values{"username": {"carol"}, "password": {"wrong"}}); strings.Contains(page, "leat_") {
			t.Fatalf("a wrong password shows the metrics: %d", status)
		}
		if form = keycloakForm.FindStringSubmatch(page); form == nil {
			t.Fatalf("Keycloak shows no form again: %d, %s", status, page)
		}
		status, page = k.post(t, html.UnescapeString(form[1]), url.Values{"username": {"carol"}, "password": {carolsWord}})
		if status != http.StatusOK || !strings.Contains(page, `leat_logins_total{listener="http",mechanism="OIDC",result="success"} 1`) {
			t.Fatalf("carol does not see the metrics: %d, %.2000s", status, page)
		}
		if _, page, err = k.get(t, pages+"/login"); err != nil || !strings.Contains(page, "logged in as <strong>carol</strong>") {
			t.Errorf("the page says %v, %s", err, page)
		}
	})
	t.Run("another audience", func(t *testing.T) {
		cl, err := franzClient(request{Addr: n.addr, Login: &login{CA: n.ca, Mechanism: byToken, Token: k.tokenFile(t, "other", robotSecret)}}, kgo.RequestRetries(0), kgo.RetryTimeout(5*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := cl.Ping(ctx); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a token for others: %v", err)
		}
	})
}
