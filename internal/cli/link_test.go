package cli

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/cobra"

	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror/progress"
	"github.com/leatstream/leat/internal/peer"
)

// linkFake is a node that answers requests about links as a test says, and keeps them.
type linkFake struct {
	node  linkNode
	in    io.Reader // nil: there is nothing to read
	asked []cluster.LinkRequest
}

// newLinkFake makes a node of the cluster "here" that keeps secrets.
func newLinkFake(serve func(q *cluster.LinkRequest) (cluster.LinkAnswer, *controller.Error, error)) *linkFake {
	f := &linkFake{node: linkNode{cluster: "here", addresses: []string{"one.here:9092", "other:1"}, keepsSecrets: true}}
	f.node.serve = func(_ context.Context, q *cluster.LinkRequest) (cluster.LinkAnswer, *controller.Error, error) {
		f.asked = append(f.asked, *q)
		return serve(q)
	}
	return f
}

// answerLinks makes a node that has the same answer to everything.
func answerLinks(a cluster.LinkAnswer) *linkFake {
	return newLinkFake(func(*cluster.LinkRequest) (cluster.LinkAnswer, *controller.Error, error) { return a, nil, nil })
}

// run runs a verb about links, as the program does.
func (f *linkFake) run(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e strings.Builder
	a := &app{in: strings.NewReader(""), out: &o, err: &e}
	if f.in != nil {
		a.in = f.in
	}
	root := &cobra.Command{Use: "leat", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(a.newLink(func(cmd *cobra.Command, fn func(ctx context.Context, n *linkNode) error) error {
		return fn(cmd.Context(), &f.node)
	}))
	root.SetFlagErrorFunc(explainFlag)
	root.SetArgs(append([]string{"link"}, args...))
	root.SetOut(&o)
	root.SetErr(&e)
	a.prepareVerb(root)
	cmd, err := root.ExecuteContextC(t.Context())
	return a.reportEnd(cmd, err), o.String(), e.String()
}

// expect runs a verb, and checks how it ends and what it says.
func (f *linkFake) expect(t *testing.T, code int, line string, says ...string) (out string) {
	t.Helper()
	got, out, errs := f.run(t, strings.Fields(line)...)
	if got != code {
		t.Errorf("leat link %s ends with %d, want %d:\n%s%s", line, got, code, out, errs)
	}
	for _, want := range says {
		if !strings.Contains(out+errs, want) {
			t.Errorf("leat link %s does not say %q:\n%s%s", line, want, out, errs)
		}
	}
	return out
}

// file writes a file of a test.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// ownCertificate makes a certificate and its key, as PEM.
func ownCertificate(t *testing.T) (certificate, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mirror", Organization: []string{"Here"}}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))
}

func textOf(list []meta.LinkSetting) string {
	var all []string
	for _, s := range list {
		all = append(all, s.Key+"="+s.Value)
	}
	return strings.Join(all, ";")
}

// TestLinkRequests proves what a node is asked for by the flags of the verbs: settings in the order of their keys, with the names of Kafka's clients, and secrets apart from them.
func TestLinkRequests(t *testing.T) {
	certificate, key := ownCertificate(t)
	ca, password := file(t, "ca.pem", certificate), file(t, "password", "correct horse\nmore")
	jaas := `sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username="mirror" password="battery staple";` + "\n"
	scram := file(t, "scram.properties", "bootstrap.servers=n:1,n:2\nsecurity.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-256\nssl.truststore.type=PEM\nssl.truststore.location="+ca+"\nssl.endpoint.identification.algorithm=\n"+jaas)
	mtls := file(t, "mtls.properties", "security.protocol=SSL\nssl.keystore.type=PEM\nssl.keystore.location="+file(t, "own.pem", certificate+key)+"\n")
	for _, c := range []struct{ line, settings, unset, secrets string }{
		{"create north --from n:1", "bootstrap.servers=n:1;topics=*", "", "nil"},
		{
			"create north --from n:1 --from n:2,n:3 --topics orders-* --topics re:^a{1,2}$ --exclude tmp-* --prefix dr. --rename a=b --rename c=d --start latest --map k:1=r:2 --map k:2=r:3 --throttle 1000000 --accept-loss --rack a",
			"accept.loss=true;bootstrap.servers=n:1,n:2,n:3;client.rack=a;exclude=tmp-*;map=k:1=r:2,k:2=r:3;prefix=dr.;rename=a=b,c=d;start=latest;throttle.bytes.per.second=1000000;topics=orders-*,re:^a{1,2}$", "", "nil",
		},
		{"create north --from n:1 --start 2026-12-01T08:00:00.5+01:00", "bootstrap.servers=n:1;start=2026-12-01T07:00:00.5Z;topics=*", "", "nil"},
		{"create north --from n:1 --start beginning --source-tls", "bootstrap.servers=n:1;security.protocol=SSL;start=earliest;topics=*", "", "0"},
		{
			"create north --from n:1 --source-user mirror --source-password-file " + password + " --source-ca " + ca,
			"bootstrap.servers=n:1;sasl.mechanism=SCRAM-SHA-512;sasl.username=mirror;security.protocol=SASL_SSL;ssl.truststore.certificates=" + certificate + ";topics=*", "", "sasl.password=correct horse",
		},
		{
			"create north --from n:1 --source-user mirror --source-mechanism PLAIN --source-allow-plain-text-password --source-password-file " + password,
			"bootstrap.servers=n:1;sasl.mechanism=PLAIN;sasl.username=mirror;security.protocol=SASL_PLAINTEXT;topics=*", "", "sasl.password=correct horse",
		},
		{
			"create north --source-config " + scram,
			"bootstrap.servers=n:1,n:2;sasl.mechanism=SCRAM-SHA-256;sasl.username=mirror;security.protocol=SASL_SSL;ssl.endpoint.identification.algorithm=;ssl.truststore.certificates=" + certificate + ";topics=*", "", "sasl.password=battery staple",
		},
		{
			"create north --from n:9 --source-config " + mtls,
			"bootstrap.servers=n:9;security.protocol=SSL;ssl.keystore.certificate.chain=" + certificate + ";topics=*", "", "ssl.keystore.key=" + key,
		},
		{"alter north --topics a --unset exclude -u start", "topics=a", "exclude,start", "nil"},
		{
			"alter north --source-tls", "security.protocol=SSL",
			"sasl.mechanism,sasl.username,ssl.endpoint.identification.algorithm,ssl.keystore.certificate.chain,ssl.truststore.certificates", "0",
		},
		{"doctor --from n:1 --topics a", "bootstrap.servers=n:1;topics=a", "", "nil"},
		{"create north --from n:1 --via agent", "bootstrap.servers=n:1;topics=*;via=agent", "", "nil"},
		{"alter north --unset via", "", "via", "nil"},
		{"doctor --from n:1", "bootstrap.servers=n:1;topics=*", "", "nil"},
	} {
		f := answerLinks(cluster.LinkAnswer{Source: "there"})
		f.expect(t, exitOK, c.line)
		if len(f.asked) != 1 {
			t.Errorf("%s asks %d times", c.line, len(f.asked))
			continue
		}
		q, secrets := &f.asked[0], "nil"
		if q.Secrets != nil {
			secrets = textOf(q.Secrets)
		}
		if secrets == "" {
			secrets = "0"
		}
		if got := textOf(q.Settings); got != c.settings || strings.Join(q.Unset, ",") != c.unset || secrets != c.secrets || q.Within <= 0 || q.DryRun || q.Force {
			t.Errorf("leat link %s:\n%s, %v, %s, within %v; want\n%s, %s, %s", c.line, got, q.Unset, secrets, q.Within, c.settings, c.unset, c.secrets)
		}
	}
	const same = "orders " // the name of a link, and of a topic of it
	for line, want := range map[string]cluster.LinkRequest{
		"create north --from n:1 --dry-run --force": {Verb: cluster.LinkCreate, Name: "north", DryRun: true, Force: true},
		"pause north":                         {Verb: cluster.LinkPause, Name: "north"},
		"pause " + same + same + "web orders": {Verb: cluster.LinkPause, Name: "orders", Topics: []string{"orders", "web"}},
		"resume " + same + same:               {Verb: cluster.LinkResume, Name: "orders", Topics: []string{"orders"}},
		"delete north":                        {Verb: cluster.LinkDelete, Name: "north"},
		"list":                                {Verb: cluster.LinkList},
		"describe " + same + same + "-o json": {Verb: cluster.LinkDescribe, Name: "orders", Topics: []string{"orders"}},
	} {
		f := answerLinks(cluster.LinkAnswer{})
		f.expect(t, exitOK, line)
		if len(f.asked) != 1 {
			t.Fatalf("%s asks %d times", line, len(f.asked))
		}
		if d := cmp.Diff(want, f.asked[0], cmpopts.IgnoreFields(cluster.LinkRequest{}, "Settings", "Within")); d != "" {
			t.Errorf("leat link %s: %s", line, d)
		}
	}
}

// joinToken makes a token of a cluster.
func joinToken(t *testing.T) credential.Token {
	t.Helper()
	token, err := credential.NewToken(credential.ClusterID{1}, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// TestLinkUsage proves that flags which say nothing, or what no link can have, are refused before a node is asked, and that no sentence has a secret.
func TestLinkUsage(t *testing.T) {
	const secret = "correct horse"
	password := file(t, "password", secret)
	config := func(text string) string { return file(t, "c.properties", text) }
	user := `sasl.jaas.config=a required username="u" password="` + secret + `"`
	for line, says := range map[string]string{
		"create":                                                     `no argument was given: write "leat link create NAME"`,
		"create north":                                               "--from must be given",
		"create north --from n":                                      `"n" is not an address: write host:port`,
		"create north --from n:1,":                                   "is not an address",
		"create north --from n:1 --topics a*b":                       "a * that is not at its end",
		"create north --from n:1 --topics re:(":                      "--topics and --exclude: the pattern",
		"create north --from n:1 --prefix a/":                        `the prefix "a/" has characters`,
		"create north --from n:1 --rename a":                         "has to be source=here",
		"create north --from n:1 --start yesterday":                  "--start yesterday: write earliest, latest, or a time",
		"create north --from n:1 --start 17":                         "--start 17: write earliest",
		"create north --from n:1 --map n:1":                          "write it as ADVERTISED=REACHABLE",
		"create north --from n:1 --map n:1=x":                        `"x" is not an address`,
		"create north --from n:1 --throttle 0":                       "--throttle 0: give a number",
		"create north --from n:1 --topics=":                          "--topics is empty",
		"create north --from n:1 --source-user u":                    "needs --source-user and --source-password-file",
		"create north --from n:1 --source-password-file " + password: "needs --source-user and --source-password-file",
		"create north --from n:1 --source-user u --source-config x":  "--source-config and --source-user cannot be used together",
		"create north --from n:1 --source-ca " + password:            "has no certificates in PEM form",
		"create north --from n:1 --source-mechanism PLAIN --source-user u --source-password-file " + password:                    "PLAIN sends the password as it is",
		"create north --from n:1 --source-config " + config("security.protocol=TLS"):                                             "security.protocol=TLS is none of",
		"create north --from n:1 --source-config " + config("security.protocol=SASL_SSL\nsasl.mechanism=OAUTHBEARER\n"+user+";"): `a link does not log in by "OAUTHBEARER"`,
		"create north --from n:1 --source-config " + config("security.protocol=SASL_SSL\n"+user+";"):                             `a link does not log in by ""`,
		"create north --from n:1 --source-config " + config("security.protocol=SASL_SSL\n"+user+` tokenauth="true";`):            "a delegation token ends",
		"create north --from n:1 --source-config " + config("security.protocol=SASL_SSL\n"+user):                                 "sasl.jaas.config: it is not of the form",
		"create north --from n:1 --source-config " + config("security.protocol=SSL\nssl.truststore.location=x"):                  "only files with ssl.truststore.type=PEM are read",
		"alter north":                                        "nothing to alter",
		"alter north --via tcp":                              "--via tcp: write --via agent",
		"agent-token north --for 1ms":                        "--for 1ms: give a time span",
		"agent-token north --revoke x":                       "--revoke: give the id of a token",
		"agent --from k:1":                                   "--to must be given",
		"agent --to n:1 --from k:1":                          "--token-file must be given",
		"agent --to n:1 --token-file " + password:            "--from must be given",
		"agent --to n:1 --from k:1 --token-file " + password: "this is not a join token",
		"agent --to n:1 --from k:1 --token-file " + file(t, "j", joinToken(t).Text()):                          "it is a token with which nodes join",
		"agent --to n:x --from k:1 --token-file " + file(t, "a", joinToken(t).ForAgent().Text()):               `"n:x" is not an address`,
		"agent --to n --from k --token-file " + file(t, "a", joinToken(t).ForAgent().Text()):                   `--from: "k" is not an address`,
		"agent --to n --allow k --token-file " + file(t, "a", joinToken(t).ForAgent().Text()):                  `--allow: "k" is not an address`,
		"agent --to n --allow k:1 --node-map n:1 --token-file " + file(t, "a", joinToken(t).ForAgent().Text()): "write it as TOLD=REACHABLE",
		"alter north --unset topics":          "--unset topics: these settings have a default",
		"alter north --start latest -u start": "--unset start and --start cannot be used together",
		"skip north":                          "1 argument was given",
		"skip north orders":                   "name partitions of orders, or all of them with --all",
		"skip north orders 1 --all":           "name partitions of orders",
		"skip north orders one":               "one is not a partition",
		"skip north orders -- -1":             "-1 is not a partition",
		"doctor":                              "name a link, or give --from",
		"doctor north --from n:1":             "and not both",
		"create north --from n:1 --user u":    "there is no flag --user: it is --source-user here",
		"alter north --client-config x":       "there is no flag --client-config: it is --source-config here",
		"pause north --user u":                "there is no flag --user",
		"restore":                             `write "leat link restore NAME [TOPIC ...]"`,
		"failback north":                      `did you mean "restore"?`,
		"promote":                             `no argument was given: write "leat link promote NAME [TOPIC ...]"`,
		"promote north":                       "it cannot be undone, and there is no terminal on which to ask you: give --yes",
		"failover north orders --force":       "or --dry-run to see what would be lost",
		"promote north --yes --wait=-1s":      "--wait -1s: give a time span",
		"promote north --yes --force":         "there is no flag --force",
		"status":                              `did you mean "describe"?`,
	} {
		f := answerLinks(cluster.LinkAnswer{})
		code, out, errs := f.run(t, strings.Fields(line)...)
		if code != exitUsage || !strings.Contains(errs, says) || strings.Contains(out+errs, secret) || len(f.asked) > 0 {
			t.Errorf("leat link %s ends with %d, and asks %d times: %s\nwant %s", line, code, len(f.asked), errs, says)
		}
	}
	answerLinks(cluster.LinkAnswer{}).expect(t, exitNotFound, "create north --from n:1 --source-config missing", "file missing does not exist")
}

// TestLinkCreateSays proves what a person is told of each way in which a link is made, or is not, and with which code the verb ends.
func TestLinkCreateSays(t *testing.T) {
	text := func(s string) *string { return &s }
	problem := cluster.LinkProblem{About: "kafka-2.north:9092", Text: "It cannot be reached: no such host.", Do: `Use --map kafka-2.north:9092=HOST:PORT.`}
	many := make([]cluster.LinkTopic, 12)
	for i := range many {
		many[i] = cluster.LinkTopic{Source: fmt.Sprintf("t%d", i), Name: fmt.Sprintf("dr.t%d", i), Partitions: 3}
	}
	const line = "create north --from n:1"
	for name, c := range map[string]struct {
		answer cluster.LinkAnswer
		flags  string
		code   int
		says   []string
		not    string
	}{
		"made": {
			cluster.LinkAnswer{Changed: true, Source: "there", Steps: []string{"3 brokers answer"}, Topics: many, More: 5},
			"", exitOK,
			[]string{"  3 brokers answer\n", "  17 topics: t0 as dr.t0, ", "t9 as dr.t9 and 7 more\n", "made link north, from the cluster there: \"leat link describe north\""},
			"t10",
		},
		"a warning":     {cluster.LinkAnswer{Changed: true, Source: "there", Warnings: []cluster.LinkProblem{{Text: "__x is left out."}}}, "", exitOK, []string{"warning: __x is left out.\n", "made link"}, "problem"},
		"dry":           {cluster.LinkAnswer{Changed: true, Source: "there"}, " --dry-run", exitOK, []string{"link north would be made, from the cluster there"}, "made link"},
		"there already": {cluster.LinkAnswer{Existed: true, Source: "there"}, "", exitOK, []string{"link north is there already, as it was asked for: nothing was changed"}, "made link"},
		"other settings": {cluster.LinkAnswer{Existed: true, Differences: []cluster.LinkDifference{
			{Key: "exclude", Has: text("tmp-*")}, {Key: "sasl.password"}, {Key: "ssl.truststore.certificates", Has: text("-----BEGIN CERTIFICATE-----\nQUJD")}, {Key: "topics", Has: text("a"), Asked: text("b*")},
		}}, "", exitFailed, []string{
			"SETTING                      IT HAS         ASKED FOR\n", "exclude                      tmp-*          -\n", "sasl.password                a secret       another one\n", "1 certificate  -\n",
			"nothing was changed: change it with: leat link alter north --unset exclude --topics 'b*' with the --source flags of this command",
		}, "QUJD"},
		"a problem": {cluster.LinkAnswer{Source: "there", Problems: []cluster.LinkProblem{problem}}, "", exitFailed, []string{
			"problem: kafka-2.north:9092: It cannot be reached: no such host.\n    Use --map", "link north was not made: there is 1 problem; run this again when all is mended, or make it all the same with --force",
		}, "made link north,"},
		"a problem in a dry run": {cluster.LinkAnswer{Source: "there", Problems: []cluster.LinkProblem{problem, problem}}, " --dry-run", exitFailed, []string{"link north would not be made: there are 2 problems"}, "made link"},
		"by force":               {cluster.LinkAnswer{Source: "there", Changed: true, Problems: []cluster.LinkProblem{problem}}, " --force", exitOK, []string{"problem: ", "made link north"}, "was not made"},
		"its own cluster": {cluster.LinkAnswer{Source: "here"}, "", exitFailed, []string{
			"the brokers of --from are of this cluster, here, and a link is made at the cluster that mirrors", "leat link create north --from one.here:9092",
		}, "made link"},
	} {
		out := answerLinks(c.answer).expect(t, c.code, line+c.flags, c.says...)
		if strings.Contains(out, c.not) {
			t.Errorf("%s: it says %q:\n%s", name, c.not, out)
		}
		var r linkResult
		out = answerLinks(c.answer).expect(t, c.code, line+c.flags+" -o json")
		if c.answer.Source == "here" {
			continue
		}
		if err := json.Unmarshal([]byte(out), &r); err != nil || r.Link != "north" || r.Done != (c.code == exitOK) || r.Changed != c.answer.Changed || len(r.Problems) != len(c.answer.Problems) || r.MoreTopics != c.answer.More {
			t.Errorf("%s: %v, %+v", name, err, r)
		}
	}
	refused := func(refused *controller.Error, err error) *linkFake {
		return newLinkFake(func(*cluster.LinkRequest) (cluster.LinkAnswer, *controller.Error, error) {
			return cluster.LinkAnswer{}, refused, err
		})
	}
	refused(&controller.Error{Kind: controller.PolicyViolation, Message: "No sealing key is there."}, nil).expect(t, exitFailed, line, "leat: making the link north: No sealing key is there\n")
	refused(nil, fmt.Errorf("links: %w", peer.ErrClosedByPeer)).expect(t, exitFailed, line, "the node has closed the connection before it was done")
	refused(nil, fmt.Errorf("links: %w", cluster.ErrFailed)).expect(t, exitFailed, line, "the cluster cannot do that now")
	answerLinks(cluster.LinkAnswer{Changed: true}).expect(t, exitOK, "alter north --topics a", "changed link north\n")
	answerLinks(cluster.LinkAnswer{}).expect(t, exitOK, "alter north --topics a", "link north is so already: nothing was changed")
	answerLinks(cluster.LinkAnswer{Changed: true}).expect(t, exitOK, "alter north --topics a --dry-run", "link north would be changed")
	answerLinks(cluster.LinkAnswer{Problems: []cluster.LinkProblem{problem}}).expect(t, exitFailed, "alter north --topics a", "link north was not changed: there is 1 problem")
}

// TestLinkSecretsAreKept proves that a secret reaches the node that is asked, and nothing else: no output, in no form and in no case, no error, and no node to which others could listen.
func TestLinkSecretsAreKept(t *testing.T) {
	const secret = "correct horse battery staple"
	_, key := ownCertificate(t)
	certificate, _ := ownCertificate(t)
	password := file(t, "password", secret)
	config := file(t, "c.properties", "security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nsasl.jaas.config=a required username=\"u\" password=\""+secret+"\";\n")
	broken := file(t, "broken.properties", "security.protocol=SSL\nssl.keystore.certificate.chain="+strings.ReplaceAll(certificate, "\n", "\\n")+"\nssl.keystore.key="+strings.ReplaceAll(key, "\n", "\\n")+"\n")
	hides := func(what, text string) {
		t.Helper()
		if strings.Contains(text, secret) || strings.Contains(text, strings.Split(key, "\n")[1]) {
			t.Errorf("%s shows a secret: %s", what, text)
		}
	}
	for _, a := range []cluster.LinkAnswer{
		{Source: "there", Changed: true},
		{Existed: true, Differences: []cluster.LinkDifference{{Key: cluster.PasswordKey}, {Key: cluster.KeyKey}}},
		{Source: "here"},
		{Problems: []cluster.LinkProblem{{Text: "The login was refused."}}},
	} {
		for _, flags := range []string{"--source-user u --source-tls --source-password-file " + password, "--source-config " + config} {
			for _, verb := range []string{"create north", "alter north", "doctor"} {
				for _, form := range []string{"table", "json"} {
					f := answerLinks(a)
					line := verb + " --from n:1 " + flags + " -o " + form
					_, out, errs := f.run(t, strings.Fields(line)...)
					hides(line, out+errs)
					if len(f.asked) != 1 || len(f.asked[0].Secrets) != 1 || f.asked[0].Secrets[0].Value != secret {
						t.Errorf("%s: the node was not told", line)
					}
					hides("the request", fmt.Sprintf("%v %+v %#v", f.asked, f.asked, f.asked))
				}
			}
		}
	}
	_, out, errs := answerLinks(cluster.LinkAnswer{}).run(t, "create", "north", "--from", "n:1", "--source-config", broken)
	hides("a key that does not fit", out+errs)
	if !strings.Contains(errs, "certificate and its key") {
		t.Errorf("a key of another certificate: %s", errs)
	}
	f := answerLinks(cluster.LinkAnswer{})
	f.node.keepsSecrets = false
	_, out, errs = f.run(t, strings.Fields("create north --from n:1 --source-config "+config)...)
	hides("a node that others listen to", out+errs)
	if len(f.asked) != 0 || !strings.Contains(errs, "so that others could read them") {
		t.Errorf("the node was asked %d times: %s", len(f.asked), errs)
	}
	f.expect(t, exitOK, "create north --from n:1 --source-tls")
}

// TestLinkIsElsewhere proves that a verb on a cluster without the link names the link that may have been meant, or says where links are, and how to run it there.
func TestLinkIsElsewhere(t *testing.T) {
	with := func(names ...string) *linkFake {
		return newLinkFake(func(q *cluster.LinkRequest) (a cluster.LinkAnswer, refused *controller.Error, err error) {
			if q.Verb != cluster.LinkList {
				return a, &controller.Error{Kind: controller.UnknownLink, Message: "There is no link."}, nil
			}
			for _, name := range names {
				a.Links = append(a.Links, cluster.LinkStatus{Name: name})
			}
			return a, nil, nil
		})
	}
	for _, line := range []string{"describe north", "alter north --topics a", "pause north", "resume north orders", "delete north", "skip north orders 1", "doctor north", "promote north --yes", "failover north orders --yes", "report north orders"} {
		command, _, _ := strings.Cut(line, " --")
		with().expect(t, exitNotFound, line, "this cluster, here, has no link north, nor any other", "if this is the source, run \"leat link "+command+"\" on the machine of a node of the other cluster")
		with("south", "west").expect(t, exitNotFound, line, "has the links south and west, and not north")
		with("nort").expect(t, exitNotFound, line, "this cluster, here, has no link north: did you mean nort?")
	}
	unknown := newLinkFake(func(*cluster.LinkRequest) (a cluster.LinkAnswer, refused *controller.Error, err error) {
		return a, &controller.Error{Kind: controller.UnknownTopic, Message: `The link "north" has no topic web here.`}, nil
	})
	unknown.expect(t, exitNotFound, "describe north web", `has no topic web here: "leat link describe north" shows its topics`)
}

// described is a link in many states, for the tests of what is shown of it.
func described() cluster.LinkAnswer {
	contact := time.Date(2026, 12, 1, 10, 0, 0, 0, time.UTC)
	part := func(topic string, n int32, state string, change ...func(p *cluster.PartitionStatus)) cluster.PartitionStatus {
		p := cluster.PartitionStatus{
			PartitionPlace: cluster.PartitionPlace{Topic: topic, Partition: n}, Source: "s." + topic, Node: 1, State: state, End: 90, SourceEnd: 100, LastContact: contact,
			Lag: cluster.Lag{Records: 10, Bytes: 1500, Behind: 2 * time.Second, RPO: 2500 * time.Millisecond},
		}
		for _, c := range change {
			c(&p)
		}
		return p
	}
	unknown := func(p *cluster.PartitionStatus) {
		p.Lag, p.End, p.SourceEnd, p.LastContact, p.Node = cluster.UnknownLag(), -1, -1, time.Time{}, -1
	}
	return cluster.LinkAnswer{
		Links: []cluster.LinkStatus{{
			ID: meta.UUID{15: 1}, Name: "north", Source: "there", Secrets: true, Topics: 3, States: map[string]int{"MIRRORING": 3, "GAP": 1, "WAITING": 2, "UNKNOWN": 1}, LastContact: contact,
			Settings: []meta.LinkSetting{{Key: "bootstrap.servers", Value: "n:1"}, {Key: "ssl.truststore.certificates", Value: "-----BEGIN CERTIFICATE-----\nQUJD"}, {Key: "topics", Value: "*"}},
			Lag:      cluster.Lag{Records: 60, Bytes: 9000, Behind: 2 * time.Second, RPO: 2500 * time.Millisecond}, Unknown: 1,
			Tasks: []cluster.TaskStatus{{Task: "topics", Node: 2, State: "WAITING", Reason: "no such host", Last: contact}},
		}},
		Partitions: []cluster.PartitionStatus{
			part("audit", 0, "GAP", func(p *cluster.PartitionStatus) { p.From, p.To, p.Reason = 90, 95, "retention" }),
			part("orders", 0, "MIRRORING"), part("orders", 1, "WAITING", func(p *cluster.PartitionStatus) { p.Reason, p.RetryIn = "connection refused", 4*time.Second }),
			part("orders", 2, "WAITING", func(p *cluster.PartitionStatus) { p.Reason, p.RetryIn = "connection refused", 4*time.Second }),
			part("web", 0, "MIRRORING"), part("web", 1, "UNKNOWN", unknown), part("web", 2, "MIRRORING"),
		},
		Silent: []cluster.SilentNode{{Node: 3, Problem: "it does not answer"}},
	}
}

// TestLinkDescribeShows proves what a person and a program are shown of a link: settings without certificates, a line for each topic with its lag, tasks, and for partitions that do not mirror the
// reason and the very command that helps.
func TestLinkDescribeShows(t *testing.T) {
	want := `link north: 3 topics of cluster there

SETTING                      VALUE
bootstrap.servers            n:1
ssl.truststore.certificates  1 certificate
topics                       *
(secrets)                    set, and never shown

TOPIC   OF        PARTITIONS  STATE                    LAG    BYTES  BEHIND    RPO
audit   s.audit            1  GAP                       10  1.50 kB      2s   2.5s
orders  s.orders           3  WAITING 2, MIRRORING 1    30  4.50 kB      2s   2.5s
web     s.web              3  UNKNOWN 1, MIRRORING 2   20+ 3.00 kB+     2s+  2.5s+

TASK    STATE    NODE  LAST WELL                REASON
topics  WAITING     2  2026-12-01 10:00:00 UTC  no such host

audit 0 is GAP: the source has deleted records before they were copied: the offsets 90 to 94 (retention)
    "leat link skip north audit 0" accepts that they are missing here, and goes on at 95; other partitions go on meanwhile

web 1 is UNKNOWN: no node has told how it does: it has no leader, or its leader has not answered
    "leat topic describe web" and "leat cluster" show who leads, and which nodes are away

orders 1-2 is WAITING: the last try has failed (connection refused)
    nothing if the reason passes: it is tried again by itself; "leat link doctor north" finds out what is wrong; if the source is gone for good, "leat link failover north"
`
	want = strings.Replace(want, "20+ 3.00 kB+", "20+  3.00 kB+", 1)
	want = strings.ReplaceAll(want, "STATE                    LAG    BYTES", "STATE                   LAG     BYTES")
	code, out, errs := answerLinks(described()).run(t, "describe", "north")
	if code != exitOK || errs != "leat: node 3 has not told how its mirrors do (it does not answer): of those the metadata are shown\n" {
		t.Errorf("it ends with %d: %s", code, errs)
	}
	if d := cmp.Diff(strings.Fields(want), strings.Fields(out)); d != "" {
		t.Errorf("%s\n%s", d, out)
	}
	var d describedLink
	out = answerLinks(described()).expect(t, exitOK, "describe north -o json")
	if err := json.Unmarshal([]byte(out), &d); err != nil {
		t.Fatal(err)
	}
	gap, unknown := d.PartitionList[0], d.PartitionList[5]
	if *gap.From != 90 || *gap.To != 95 || *gap.Lag.Records != 10 || *gap.Lag.RPO != 2.5 || *gap.End != 90 || !strings.Contains(gap.Do, "leat link skip north audit 0") {
		t.Errorf("%+v", gap)
	}
	if unknown.Lag.Records != nil || unknown.Lag.RPO != nil || unknown.End != nil || unknown.LastContact != nil || unknown.From != nil {
		t.Errorf("%+v", unknown)
	}
	if d.Partitions != 7 || d.UnknownLag != 1 || d.TopicList[2].UnknownLag != 1 || *d.TopicList[2].Lag.Records != 20 || len(d.Silent) != 1 || d.Settings["topics"] != "*" || !d.HasSecrets {
		t.Errorf("%+v", d)
	}
}

// TestLinkDescribePages proves that all pages of a long answer are shown, and that many partitions that do not mirror do not fill the terminal.
func TestLinkDescribePages(t *testing.T) {
	f := newLinkFake(func(q *cluster.LinkRequest) (a cluster.LinkAnswer, refused *controller.Error, err error) {
		at := int32(0)
		if q.After != nil {
			at = q.After.Partition + 1
		}
		a.Links = []cluster.LinkStatus{{Name: "north", Topics: 1, States: map[string]int{}}}
		for n := at; n < min(at+40, 100); n++ {
			a.Partitions = append(a.Partitions, cluster.PartitionStatus{PartitionPlace: cluster.PartitionPlace{Topic: "t", Partition: n}, State: "FAILED", Reason: fmt.Sprintf("batch %d", n)})
		}
		a.More = max(0, 100-int(at)-40)
		return a, nil, nil
	})
	out := f.expect(t, exitOK, "describe north", "t 19 is FAILED: what the source sends cannot be mirrored (batch 19)", "and 80 more: -o json has all")
	if strings.Contains(out, "batch 20") || len(f.asked) != 3 {
		t.Errorf("it asks %d times:\n%s", len(f.asked), out)
	}
	var d describedLink
	if err := json.Unmarshal([]byte(f.expect(t, exitOK, "describe north -o json")), &d); err != nil || len(d.PartitionList) != 100 || len(d.TopicList) != 1 || d.TopicList[0].States["FAILED"] != 100 {
		t.Errorf("%v: %d partitions, %+v", err, len(d.PartitionList), d.TopicList)
	}
}

// TestEveryMirrorStateIsExplained proves that each state that a node may tell of has its place among the others, and, unless all is well, a meaning and a thing to do; that what is to be done is a
// command of this program; and that the explanations are in the page about data centres.
func TestEveryMirrorStateIsExplained(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "data-centres.md"))
	if err != nil {
		t.Fatal(err)
	}
	states := []string{cluster.StateUnknown}
	for s := progress.Idle; s <= progress.Promoted; s++ {
		states = append(states, s.String())
	}
	if len(states) != len(stateOrder()) {
		t.Errorf("%d states have an order, of %d", len(stateOrder()), len(states))
	}
	root := (&app{}).newRoot()
	for _, state := range states {
		if rankOf(state) < 0 {
			t.Errorf("%s has no place", state)
		}
		meaning, do := explainMirror("north", &cluster.PartitionStatus{PartitionPlace: cluster.PartitionPlace{Topic: "or ders", Partition: 3}, State: state, From: 5, To: 9}, 3, 4)
		isWell := state == "MIRRORING" || state == "PROMOTED"
		if isWell != (meaning == "") || isWell != (do == "") || strings.Contains(meaning, "this version of leat") {
			t.Errorf("%s: %q, %q", state, meaning, do)
		}
		if !strings.Contains(string(page), "`"+state+"`") {
			t.Errorf("docs/data-centres.md does not have the state %s", state)
		}
		for i, command := range strings.Split(do, `"`) {
			words, ok := strings.CutPrefix(command, "leat ")
			if i%2 == 0 {
				continue
			}
			cmd, rest, err := root.Find(strings.Fields(strings.ReplaceAll(words, "'or ders'", "x")))
			if !ok || err != nil || cmd.Args != nil && cmd.Args(cmd, rest) != nil {
				t.Errorf("%s: %q is no command: %v", state, command, err)
			}
		}
	}
	if meaning, do := explainMirror("n", &cluster.PartitionStatus{State: "NEW"}); meaning == "" || do == "" {
		t.Error("a state that is not known is not explained")
	}
}

// TestLinkListShows proves what is shown of links: one line each, with a mark where a lag is not known of all partitions.
func TestLinkListShows(t *testing.T) {
	a := described()
	paused := cluster.LinkStatus{Name: "west", Source: "w", Paused: true, States: map[string]int{"PAUSED": 2}, Unknown: 2, Lag: cluster.Lag{}}
	all := cluster.LinkAnswer{Links: []cluster.LinkStatus{a.Links[0], paused}, Silent: a.Silent}
	out := answerLinks(all).expect(t, exitOK, "list", "node 3 has not told")
	want := `LINK   SOURCE  FROM  TOPICS  PARTITIONS  STATE                                     LAG     BYTES  BEHIND    RPO
north  there   n:1        3           7  GAP 1, UNKNOWN 1, WAITING 2, MIRRORING 3  60+  9.00 kB+     2s+  2.5s+
west   w                  0           2  PAUSED                                      -         -       -      -
`
	if d := cmp.Diff(want, out); d != "" {
		t.Error(d)
	}
	var l shownLinks
	if err := json.Unmarshal([]byte(answerLinks(all).expect(t, exitOK, "list -o json")), &l); err != nil || len(l.Links) != 2 || l.Links[0].States["GAP"] != 1 || !l.Links[1].Paused || l.Links[1].LastContact != nil {
		t.Errorf("%v: %+v", err, l)
	}
	answerLinks(cluster.LinkAnswer{}).expect(t, exitOK, "list", `this cluster, here, mirrors no other one: "leat link create NAME --from HOST:PORT" begins that`)
}

// TestLinkChangesSay proves what is said when a link or its topics are paused, resumed or deleted, also when that was so before or is refused.
func TestLinkChangesSay(t *testing.T) {
	changed, same := cluster.LinkAnswer{Changed: true}, cluster.LinkAnswer{}
	answerLinks(changed).expect(t, exitOK, "pause north", "paused link north\n")
	answerLinks(same).expect(t, exitOK, "pause north", "link north is paused already\n")
	answerLinks(changed).expect(t, exitOK, "pause north a b", "paused a and b of link north\n")
	answerLinks(same).expect(t, exitOK, "pause north a b", "a and b of link north are paused already\n")
	answerLinks(changed).expect(t, exitOK, "resume north a", "resumed a of link north\n")
	answerLinks(same).expect(t, exitOK, "resume north", "link north is not paused\n")
	answerLinks(changed).expect(t, exitOK, "delete north", "deleted link north\n")
	answerLinks(cluster.LinkAnswer{Changed: true, Warnings: []cluster.LinkProblem{{Text: "The link is paused.", Do: "Resume it."}}}).expect(t, exitOK, "resume north a", "warning: The link is paused.\n    Resume it.\nresumed a")
	refused := newLinkFake(func(*cluster.LinkRequest) (a cluster.LinkAnswer, refused *controller.Error, err error) {
		return a, &controller.Error{Kind: controller.PolicyViolation, Message: `The topic a mirrors by the link "north": promote it or delete it first.`}, nil
	})
	refused.expect(t, exitFailed, "delete north", `leat: link north: The topic a mirrors by the link "north": promote it or delete it first`)
	answerLinks(cluster.LinkAnswer{Problems: []cluster.LinkProblem{{About: "a", Text: "It is promoted."}}}).expect(t, exitFailed, "pause north a", "problem: a: It is promoted.", "link north: there is 1 problem")
}

// TestLinkSkip proves that exactly the partitions that wait for it are skipped, that it is said what was accepted, that a second time changes nothing, and that a dry run does not either.
func TestLinkSkip(t *testing.T) {
	part := func(n int32, state string, from, to int64) cluster.PartitionStatus {
		return cluster.PartitionStatus{PartitionPlace: cluster.PartitionPlace{Topic: "t", Partition: n}, State: state, From: from, To: to}
	}
	var problems []cluster.LinkProblem
	serve := func(q *cluster.LinkRequest) (a cluster.LinkAnswer, refused *controller.Error, err error) {
		if q.Verb == cluster.LinkSkip {
			return cluster.LinkAnswer{Changed: true, Problems: problems}, nil, nil
		}
		a.Links = []cluster.LinkStatus{{Name: "north"}}
		a.Partitions = []cluster.PartitionStatus{part(0, "MIRRORING", 0, 0), part(1, "GAP", 5, 9), part(2, "TOMBSTONES_LOST", 7, 8), part(3, "FAILED", 0, 0), part(4, "SOURCE_RECREATED", 0, 0)}
		return a, nil, nil
	}
	expect := func(line string, code int, skipped []int32, says ...string) {
		t.Helper()
		f := newLinkFake(serve)
		f.expect(t, code, line, says...)
		var got []int32
		for _, q := range f.asked {
			if q.Verb == cluster.LinkSkip {
				got = append(got, q.Partitions...)
			}
		}
		if !slices.Equal(got, skipped) {
			t.Errorf("%s skips %v, want %v", line, got, skipped)
		}
	}
	expect("skip north t 1", exitOK, []int32{1}, "accepted that the offsets 5 to 8 are missing in partition 1 of t, at most 4 records\n")
	expect("skip north t 1 --dry-run", exitOK, nil, "would accept that the offsets 5 to 8 are missing")
	expect("skip north t 3 0 3", exitOK, []int32{3}, "partition 0 of t is MIRRORING, and waits for nothing to be accepted\npartition 3 of t tries again\n")
	expect("skip north t --all", exitOK, []int32{1, 2, 3}, "in the offsets 7 to 7 may live on in partition 2 of t")
	expect("skip north t 4", exitOK, nil, "partition 4 of t is SOURCE_RECREATED, and waits for nothing to be accepted")
	expect("skip north t 5", exitNotFound, nil, "topic t has no partition 5: its partitions are 0 to 4")
	problems = []cluster.LinkProblem{{About: "t-1", Text: "It has moved."}}
	expect("skip north t 1", exitFailed, []int32{1}, "it was not done: problem: t-1: It has moved.")
	f := answerLinks(cluster.LinkAnswer{Links: []cluster.LinkStatus{{Name: "north"}}, Partitions: []cluster.PartitionStatus{part(0, "MIRRORING", 0, 0)}})
	f.expect(t, exitOK, "skip north t --all", "no partition waits for anything to be accepted: nothing was changed")
	var l acceptedLosses
	if err := json.Unmarshal([]byte(newLinkFake(serve).expect(t, exitOK, "skip north t 0 1 --dry-run -o json")), &l); err != nil || len(l.Partitions) != 2 || l.Partitions[0].Accepted || !l.Partitions[1].Accepted || *l.Partitions[1].To != 9 || !l.DryRun {
		t.Errorf("%v: %+v", err, l)
	}
}

// TestLinkRestore proves that topics are restored only with --yes, and that it is said before which ones would be; that problems are shown, and nothing is done then; and what is said if there is nothing to restore.
func TestLinkRestore(t *testing.T) {
	a := cluster.LinkAnswer{Source: "new-site", Changed: true, Topics: []cluster.LinkTopic{{Source: "there.orders", Name: "orders", Partitions: 12}}, More: 3}
	f := answerLinks(a)
	f.expect(t, exitUsage, "restore south", "orders  there.orders", "12", "and 3 more", "nothing was changed: add --yes to have 4 topics mirror the cluster new-site")
	if !f.asked[0].DryRun {
		t.Error("without --yes it is done")
	}
	f = answerLinks(a)
	f.expect(t, exitOK, "restore south orders web orders --yes", "These topics mirror the cluster new-site from now on", "leat link describe south")
	if q := f.asked[0]; q.DryRun || q.Verb != cluster.LinkRestore || !slices.Equal(q.Topics, []string{"orders", "web"}) {
		t.Errorf("it asks for %+v", q)
	}
	var r restoredTopics
	if err := json.Unmarshal([]byte(answerLinks(a).expect(t, exitOK, "restore south --yes -o json")), &r); err != nil || !r.Restored || len(r.Topics) != 1 || r.More != 3 {
		t.Errorf("%v: %+v", err, r)
	}
	left := cluster.LinkAnswer{Source: "new-site", Topics: a.Topics, Changed: true, Warnings: []cluster.LinkProblem{{About: "topic web", Text: "It has more partitions.", Do: "Copy them."}}}
	answerLinks(left).expect(t, exitFailed, "restore south --yes", "warning: topic web: It has more partitions.", "1 topic that the source has taken over not restored")
	answerLinks(left).expect(t, exitUsage, "restore south", "warning: topic web: It has more partitions.")
	answerLinks(cluster.LinkAnswer{Source: "new-site"}).expect(t, exitOK, "restore south", "no topic here was taken over by the cluster new-site")
	answerLinks(cluster.LinkAnswer{Problems: []cluster.LinkProblem{{About: "topic orders", Text: "It is not promoted.", Do: "Promote it."}}}).expect(t, exitFailed, "restore south orders --yes",
		"link south: nothing was restored: problem: topic orders: It is not promoted.")
}

// TestLinkDoctor proves which rights are printed for which patterns of topics, as commands that Kafka's tool and leat take; and that findings are shown with them, also if nothing could be checked.
func TestLinkDoctor(t *testing.T) {
	set := func(topics, user string) []meta.LinkSetting {
		all := []meta.LinkSetting{{Key: serversKey, Value: "n:1, n:2"}, {Key: topicsKey, Value: topics}}
		if user != "" {
			all = append(all, meta.LinkSetting{Key: userKey, Value: user})
		}
		return all
	}
	const kafka, leat = "kafka-acls --bootstrap-server n:1 --add --allow-principal ", "leat acl grant --bootstrap n:1 "
	for _, c := range []struct {
		topics, user string
		found        []string
		kafka, leat  []string
		notes        int
	}{
		{"*", "mirror", nil, []string{"User:mirror --operation Read --operation DescribeConfigs --topic '*' --resource-pattern-type literal"}, []string{"mirror read topic '*'", "mirror describe-configs topic '*'"}, 0},
		{"a,*,b", "mirror", nil, []string{"User:mirror --operation Read --operation DescribeConfigs --topic '*' --resource-pattern-type literal"}, []string{"mirror read topic '*'", "mirror describe-configs topic '*'"}, 0},
		{
			"orders-*,a,a", "o'neil", nil,
			[]string{`'User:o'\''neil' --operation Read --operation DescribeConfigs --topic orders- --resource-pattern-type prefixed`, `'User:o'\''neil' --operation Read --operation DescribeConfigs --topic a --resource-pattern-type literal`},
			[]string{`'o'\''neil' read topic 'orders-*'`, `'o'\''neil' describe-configs topic 'orders-*'`, `'o'\''neil' read topic a`, `'o'\''neil' describe-configs topic a`},
			0,
		},
		{
			"re:^a,b-*", "mirror",
			[]string{"ab", "b-1"},
			[]string{"User:mirror --operation Read --operation DescribeConfigs --topic b- --resource-pattern-type prefixed", "User:mirror --operation Read --operation DescribeConfigs --topic ab --resource-pattern-type literal"},
			[]string{"mirror read topic 'b-*'", "mirror describe-configs topic 'b-*'", "mirror read topic ab", "mirror describe-configs topic ab"},
			1,
		},
		{"re:^a", "", nil, nil, nil, 3},
	} {
		a := cluster.LinkAnswer{Source: "there"}
		for _, name := range c.found {
			a.Topics = append(a.Topics, cluster.LinkTopic{Source: name, Name: name})
		}
		settings := settingsOf(set(c.topics, c.user))
		settings[positionsKey] = "off" // those for positions: see TestLinkDoctorOfPositions
		grants, notes := leastGrants(settings, sourcePrincipal(settings), &a)
		var gotKafka, gotLeat []string
		isOfTransactions := func(g sourceGrant) bool { return g.Name == transactionsTopic }
		if i := slices.IndexFunc(grants, isOfTransactions); (i < 0) != (c.kafka != nil && strings.Contains(c.kafka[0], "--topic '*'")) || i >= 0 && (grants[i].Needed || !strings.HasSuffix(grants[i].Leat[0], "read topic "+transactionsTopic)) {
			t.Errorf("%s: for transactions it prints %+v", c.topics, grants)
		}
		grants = slices.DeleteFunc(grants, isOfTransactions)
		for i := range grants[:len(grants)-1] {
			gotKafka = append(gotKafka, strings.TrimPrefix(grants[i].Kafka, kafka))
			for _, line := range grants[i].Leat {
				gotLeat = append(gotLeat, strings.TrimPrefix(line, leat))
			}
		}
		if !slices.Equal(gotKafka, c.kafka) || !slices.Equal(gotLeat, c.leat) || len(notes) != c.notes {
			t.Errorf("%s as %s:\n%q\n%q\n%q", c.topics, c.user, gotKafka, gotLeat, notes)
		}
		if last := grants[len(grants)-1]; last.Needed || !strings.HasSuffix(last.Kafka, "--operation Describe --cluster") || !strings.HasSuffix(last.Leat[0], "describe cluster") {
			t.Errorf("%+v", last)
		}
		for _, g := range grants { // each is one that leat takes
			for _, line := range g.Leat {
				words := strings.Fields(strings.NewReplacer(`'o'\''neil'`, "o'neil", "'", "").Replace(strings.TrimPrefix(line, leat)))
				w := aclWords{grants: true, host: "*"}
				w.takeArguments(words)
				if _, err := w.parseACL(); err != nil && c.user != "" {
					t.Errorf("%s: %v", line, err)
				}
			}
		}
	}
	link := newLinkFake(func(q *cluster.LinkRequest) (a cluster.LinkAnswer, refused *controller.Error, err error) {
		if q.Verb == cluster.LinkDescribe {
			return cluster.LinkAnswer{Links: []cluster.LinkStatus{{Name: "north", Settings: set("a", "mirror")}}}, nil, nil
		}
		return cluster.LinkAnswer{Source: "there", Steps: []string{"2 brokers answer"}, Problems: []cluster.LinkProblem{{About: "a", Text: "It may not be read.", Do: "Grant it."}}}, nil, nil
	})
	const says = "--topic a --resource-pattern-type literal\n"
	link.expect(t, exitFailed, "doctor north", says, "checked:\n  2 brokers answer\nproblem: a: It may not be read.\n    Grant it.\n", "there is 1 problem, which is told above")
	answerLinks(cluster.LinkAnswer{Source: "there"}).expect(t, exitOK, "doctor --from n:1 --topics a", "grant this to User:ANONYMOUS", says)
	answerLinks(cluster.LinkAnswer{Source: "here"}).expect(t, exitFailed, "doctor --from n:1", "the brokers of --from are of this cluster")
	broken := newLinkFake(func(*cluster.LinkRequest) (a cluster.LinkAnswer, refused *controller.Error, err error) {
		return a, nil, errors.New("no answer")
	})
	broken.expect(t, exitFailed, "doctor --from n:1 --topics a", says, "the link could not be checked: no answer")
	var d diagnosis
	if err := json.Unmarshal([]byte(link.expect(t, exitFailed, "doctor north -o json")), &d); err != nil || d.Principal != "User:mirror" || len(d.Grants) != 5 || d.Done || len(d.Problems) != 1 {
		t.Errorf("%v: %+v", err, d)
	}
	certificate, _ := ownCertificate(t)
	if got := sourcePrincipal(map[string]string{chainKey: certificate}); got != "User:CN=mirror,O=Here" {
		t.Error(got)
	}
}

// TestLinkCompletion proves that a shell is proposed the links, then the topics of the link, and nothing if no node answers.
func TestLinkCompletion(t *testing.T) {
	propose := func(f *linkFake, verb string, args []string, prefix string) string {
		t.Helper()
		v := &linkVerbs{new(app), func(cmd *cobra.Command, fn func(ctx context.Context, n *linkNode) error) error {
			return fn(cmd.Context(), &f.node)
		}}
		cmd := &cobra.Command{Use: verb}
		cmd.SetContext(t.Context())
		found, directive := v.completeMirrors(cmd, args, prefix)
		if directive != cobra.ShellCompDirectiveNoFileComp {
			t.Errorf("%s proposes files", verb)
		}
		return strings.Join(found, " ")
	}
	f := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	f(propose(answerLinks(described()), "pause", nil, ""), "north")
	f(propose(answerLinks(described()), "pause", nil, "s"), "")
	f(propose(answerLinks(described()), "pause", []string{"north"}, ""), "audit orders web")
	f(propose(answerLinks(described()), "pause", []string{"north", "web"}, "o"), "orders")
	f(propose(answerLinks(described()), "pause", []string{"north", "web"}, "w"), "")
	f(propose(answerLinks(described()), "skip", []string{"north", "web"}, ""), "")
	broken := newLinkFake(func(*cluster.LinkRequest) (a cluster.LinkAnswer, refused *controller.Error, err error) {
		return described(), nil, errors.New("no answer")
	})
	f(propose(broken, "pause", nil, ""), "")
}

// TestLinkVerbsAskANode proves that the verbs prove to a real node that they hold its data directory, and what they say of one that mirrors nothing.
func TestLinkVerbsAskANode(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	_, stop, err := startLocalNode(t.Context(), nodeOptions{data: data})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}()
	for line, c := range map[string]struct {
		code int
		says string
	}{
		"link list":           {exitOK, "mirrors no other one"},
		"link list -o json":   {exitOK, `"links": []`},
		"link describe north": {exitNotFound, "has no link north, nor any other"},
		"link delete north":   {exitNotFound, `run "leat link delete north" on the machine of a node of the other cluster`},
		"link list --data " + os.TempDir() + "/none": {exitNotFound, "there is no node in"},
	} {
		var out, errs strings.Builder
		args := strings.Fields(line)
		if !slices.Contains(args, "--data") {
			args = append(args, "--data", data)
		}
		if code := Main(t.Context(), args, strings.NewReader(""), &out, &errs); code != c.code || !strings.Contains(out.String()+errs.String(), c.says) {
			t.Errorf("leat %s ends with %d:\n%s%s", line, code, out.String(), errs.String())
		}
	}
}
