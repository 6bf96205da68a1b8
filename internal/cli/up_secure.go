package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/node"
)

// announceSecured tells what clients of a secured node need. The first login is shown on a terminal, where a person reads, and then its file is
// deleted; elsewhere, such as in a log, only the name of the file is. A nil info says nothing.
func announceSecured(w io.Writer, info *node.SecuredInfo, isQuiet bool) error {
	if info == nil || isQuiet {
		return nil
	}
	if info.FirstLogin == "" {
		_, _ = fmt.Fprintf(w, "this cluster is secured: clients log in over TLS, and trust the certificates in %s\n", info.CA)
		return nil
	}
	if !isTerminal(w) {
		_, _ = fmt.Fprint(w, securedText(info, ""))
		return nil
	}
	login, err := node.ReadFirstLogin(info.FirstLogin)
	if err != nil {
		return fmt.Errorf("%s: %w", info.FirstLogin, err)
	}
	if _, err := fmt.Fprint(w, securedText(info, login.Password)); err != nil {
		return nil //nolint:nilerr // the terminal is gone, and the file keeps the password
	}
	if err := os.Remove(info.FirstLogin); err != nil {
		return fmt.Errorf("the password was shown, and its file cannot be deleted: %w", err)
	}
	return nil
}

// passwordHere stands for the password where it is not shown.
const passwordHere = "PASSWORD"

// securedText says that a cluster is secured, how clients log in, and what to keep. Without a password it names the file that has it.
func securedText(info *node.SecuredInfo, password string) string {
	var b strings.Builder
	head := "This cluster is secured: clients log in over TLS, and may do what ACLs grant (leat acl grant)."
	if info.WhileRunning {
		head = "This cluster can be used with TLS and a login now, beside clients that come without, as before."
	}
	_, _ = fmt.Fprintf(&b, "\n%s\n\n", head)
	line := func(name, text string) { _, _ = fmt.Fprintf(&b, "  %-10s%s\n", name, text) }
	line("user", info.User+", who may do everything; \"leat user create\" makes others")
	if password == "" {
		password = passwordHere
		line("password", "in "+info.FirstLogin+", which a Java client can use as it is; delete the file when you have noted the password")
	} else {
		line("password", password+"   (it is not shown again)")
	}
	line("trust", info.CA+", a copy of which each client needs")
	line("back up", info.SealingKey+", the sealing key, apart from the data: without it no node can renew its certificate")
	for _, s := range clientConfigs(info, password) {
		_, _ = fmt.Fprintf(&b, "\n%s:\n\n    %s\n", s.of, strings.Join(s.lines, "\n    "))
	}
	b.WriteString("\n")
	return b.String()
}

// clientConfig is what to paste for a kind of clients.
type clientConfig struct {
	of    string
	lines []string
}

// clientConfigs are the lines to paste for each kind of clients. A user's name and a password that was made need no quotes.
func clientConfigs(info *node.SecuredInfo, password string) []clientConfig {
	ca, mechanism, module, verb := filepath.ToSlash(info.CA), config.MechanismScramSHA512, config.ScramLoginModule, "leat topic list"
	login := "scram.Auth{User: %q, Pass: %q}.AsSha512Mechanism()"
	if info.Mechanism != "" && info.Mechanism != mechanism {
		mechanism = info.Mechanism
		verb += " --mechanism " + mechanism
	}
	switch mechanism {
	case config.MechanismPlain:
		module, login = config.PlainLoginModule, "plain.Auth{User: %q, Pass: %q}.AsMechanism()"
	case config.MechanismScramSHA256:
		login = "scram.Auth{User: %q, Pass: %q}.AsSha256Mechanism()"
	}
	return []clientConfig{
		{"Java, in client.properties (kafka-topics.sh --command-config, and any client)", []string{
			"bootstrap.servers=" + info.Address,
			"security.protocol=SASL_SSL",
			"sasl.mechanism=" + mechanism,
			fmt.Sprintf("sasl.jaas.config=%s required username=\"%s\" password=\"%s\";", module, info.User, password),
			"ssl.truststore.type=PEM",
			"ssl.truststore.location=" + ca,
		}},
		{"librdkafka (kcat -F FILE, and the clients of Python, .NET, PHP and others)", []string{
			"bootstrap.servers=" + info.Address,
			"security.protocol=SASL_SSL",
			"sasl.mechanism=" + mechanism,
			"sasl.username=" + info.User,
			"sasl.password=" + password,
			"ssl.ca.location=" + ca,
		}},
		{"Go (franz-go)", []string{
			fmt.Sprintf("text, err := os.ReadFile(%q)", ca),
			"trusted := x509.NewCertPool()",
			"trusted.AppendCertsFromPEM(text)",
			fmt.Sprintf("client, err := kgo.NewClient(kgo.SeedBrokers(%q),", info.Address),
			"    kgo.DialTLSConfig(&tls.Config{RootCAs: trusted}),",
			fmt.Sprintf("    kgo.SASL("+login+"))", info.User, password),
		}},
		{"leat", []string{
			fmt.Sprintf("export LEAT_BOOTSTRAP=%s LEAT_USER=%s LEAT_PASSWORD=%s LEAT_CA=%s", info.Address, info.User, password, quoteForShell(ca)),
			verb,
		}},
	}
}

// plainShellWord has the characters that no shell reads as anything but themselves.
var plainShellWord = regexp.MustCompile(`^[A-Za-z0-9._/@:+,-]+$`)

// quoteForShell writes a word so that a shell takes it for one.
func quoteForShell(word string) string {
	if plainShellWord.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// firstLoginOptions are those of a client that logs in as the first user of a secured cluster on this machine, while its first login is in its file; ok is
// false if nobody here knows a password.
func firstLoginOptions(dir string) (opts []kgo.Opt, ok bool) {
	info, err := node.ReadSecured(dir)
	if err != nil || info == nil || info.FirstLogin == "" {
		return nil, false
	}
	login := identity{clientConfig: info.FirstLogin}
	c, err := login.readAccess()
	if err != nil {
		return nil, false
	}
	return c.options(), true
}
