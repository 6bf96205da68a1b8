package cli

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"strings"

	"github.com/leatstream/leat/internal/config"
)

// A client.properties is one of Kafka's Java client. Its names about security are read; the others, such as those of a producer, have no
// effect on a verb. What is about security and cannot be done is refused.

// Flags and variables complete a file. A flag that contradicts one of its lines is refused; if a variable names the file, the flag wins. A
// variable counts where the file and the flags say nothing.

// readClientConfig reads how to log in and what to trust.
func (i *identity) readClientConfig() (access, error) {
	p, err := readProperties(i.clientConfig)
	if err != nil {
		return access{}, err
	}
	c, err := i.accessOf(p)
	if err != nil {
		return access{}, usagef("--client-config %s: %v", i.clientConfig, err)
	}
	return c, nil
}

// readServers reads the brokers that the file names; "": there is no file, or it names none. Verbs that log in say what is wrong with the file.
func (i *identity) readServers() string {
	if i.clientConfig == "" {
		return ""
	}
	p, err := readProperties(i.clientConfig)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(p["bootstrap.servers"])
}

func readProperties(path string) (map[string]string, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	p, err := config.ParseProperties(string(text))
	if err != nil {
		return nil, usagef("--client-config %s: %v", path, err)
	}
	return p, nil
}

// accessOf is what a file says, completed.
func (i *identity) accessOf(p map[string]string) (c access, err error) {
	protocol, err := i.completeProtocol(p)
	if err == nil {
		err = i.completeTrust(p, protocol)
	}
	if err == nil && protocol.UsesTLS() {
		c.tls, c.trusted, err = tlsOf(p)
	}
	if err != nil || !protocol.AsksForLogin() {
		return c, err
	}
	mechanism, err := i.completeMechanism(p)
	if err != nil {
		return c, err
	}
	if own, err := i.completeUser(p, mechanism); err != nil || own {
		if err != nil {
			return c, err
		}
		password, err := i.readPassword()
		if err != nil {
			return c, err
		}
		return c, c.setMechanism(mechanism, i.user, password)
	}
	j, err := config.ParseJAAS(p["sasl.jaas.config"])
	if err != nil {
		return c, usagef("sasl.jaas.config: %v", err)
	}
	user, password := j.Options["username"], j.Options["password"]
	if user == "" || password == "" {
		return c, usagef("sasl.jaas.config: username and password are missing")
	}
	if strings.EqualFold(j.Options["tokenauth"], "true") {
		return c, c.setToken(mechanism, user, password)
	}
	return c, c.setMechanism(mechanism, user, password)
}

// contradict refuses a flag that says something else than a line of a file that a flag has named, too.
func (i *identity) contradict(flag, line string) error {
	if !i.given["client-config"] {
		return nil
	}
	return usagef("it has %s, which %s contradicts: leave out one of them", line, flag)
}

// givenOf is the first of some flags that was given, as it is written; "": none was.
func (i *identity) givenOf(names ...string) string {
	for _, name := range names {
		if i.given[name] {
			return "--" + name
		}
	}
	return ""
}

// completeProtocol finds the security protocol. Without a line for it flags choose it, by what else is there.
func (i *identity) completeProtocol(p map[string]string) (config.Protocol, error) {
	name, login := p["security.protocol"], i.givenOf("user", "login-user", "password-file", "login-password-file", "mechanism")
	protocol, known := config.ParseProtocol(name)
	if name != "" && !known {
		return protocol, usagef("security.protocol=%s is none of PLAINTEXT, SSL, SASL_PLAINTEXT and SASL_SSL", name)
	}
	encrypts, asks := protocol.UsesTLS(), protocol.AsksForLogin()
	if name == "" {
		asks = i.givenOf("tls", "ca") != "" && (p["sasl.jaas.config"] != "" || p["sasl.mechanism"] != "")
	}
	for _, flag := range []string{"tls", "ca"} {
		wants := flag == "ca" || i.tls
		if !i.given[flag] || encrypts == wants {
			continue
		}
		if name != "" {
			if err := i.contradict("--"+flag, "security.protocol="+name); err != nil {
				return protocol, err
			}
		}
		encrypts = wants
	}
	if login != "" && !asks {
		if name != "" {
			if err := i.contradict(login, "security.protocol="+name); err != nil {
				return protocol, err
			}
		}
		asks = true
	}
	switch {
	case encrypts && asks:
		return config.SASLSSL, nil
	case encrypts:
		return config.SSL, nil
	case asks:
		return config.SASLPlaintext, nil
	}
	return config.Plaintext, nil
}

// completeTrust puts the certificates to trust into a file's lines that a flag names, or a variable.
func (i *identity) completeTrust(p map[string]string, protocol config.Protocol) error {
	const location, certificates = "ssl.truststore.location", "ssl.truststore.certificates"
	if i.ca == "" || !protocol.UsesTLS() {
		return nil
	}
	for _, line := range []string{location, certificates} {
		switch {
		case p[line] == "" || line == location && p[line] == i.ca:
		case !i.given["ca"]:
			return nil
		default:
			if err := i.contradict("--ca", line); err != nil {
				return err
			}
		}
	}
	p[location], p["ssl.truststore.type"], p[certificates] = i.ca, "PEM", ""
	return nil
}

// completeMechanism finds the mechanism of a login.
func (i *identity) completeMechanism(p map[string]string) (string, error) {
	name := p["sasl.mechanism"]
	switch {
	case i.mechanism != "" && name != "" && i.mechanism != name:
		if err := i.contradict("--mechanism", "sasl.mechanism="+name); err != nil {
			return "", err
		}
		return i.mechanism, nil
	case i.mechanism != "":
		return i.mechanism, nil
	case name != "":
		return name, nil
	case p["sasl.jaas.config"] == "": // it is not Kafka's, which needs that line
		return defaultMechanism, nil
	}
	return "", usagef("sasl.mechanism is missing, for which Kafka has GSSAPI, by which leat does not log in: add the line, or --mechanism")
}

// completeUser tells whether flags or variables, not the file, say who logs in.
func (i *identity) completeUser(p map[string]string, mechanism string) (own bool, err error) {
	const line = "sasl.jaas.config"
	flag := i.givenOf("user", "login-user", "password-file", "login-password-file")
	switch {
	case mechanism == config.MechanismOAuth:
		if i.passwordFile == "" && os.Getenv("LEAT_PASSWORD") == "" {
			return false, usagef("leat fetches no tokens from a provider: put one into a file, and give it with %s FILE", i.passwordFlag)
		}
		return true, nil
	case flag != "" && p[line] != "":
		return true, i.contradict(flag, line)
	case p[line] != "":
		return false, nil
	case i.user == "":
		return false, usagef("sasl.jaas.config is missing, which has the user and the password: add the line, or %s and %s", i.userFlag, i.passwordFlag)
	}
	return true, nil
}

// tlsOf reads what to trust, which is returned as PEM, too, and the client's own certificate.
func tlsOf(p map[string]string) (cfg *tls.Config, trusted string, err error) {
	if err := checkStores(p); err != nil {
		return nil, "", err
	}
	if text := p["ssl.truststore.certificates"]; text != "" {
		cfg, trusted, err = trustText([]byte(text), "ssl.truststore.certificates")
	} else {
		cfg, trusted, err = trust(p["ssl.truststore.location"], "ssl.truststore.location")
	}
	if err != nil {
		return nil, "", err
	}
	chain, key := []byte(p["ssl.keystore.certificate.chain"]), []byte(p["ssl.keystore.key"])
	if path := p["ssl.keystore.location"]; path != "" {
		if chain, err = readFile(path); err != nil {
			return nil, "", err
		}
		key = chain
	}
	if len(chain) > 0 || len(key) > 0 {
		own, err := tls.X509KeyPair(chain, key)
		if err != nil {
			return nil, "", usagef("the client's certificate and its key, which must not be encrypted, cannot be read")
		}
		cfg.Certificates = []tls.Certificate{own}
	}
	if algorithm, given := p["ssl.endpoint.identification.algorithm"]; given && algorithm == "" {
		skipHostName(cfg)
	}
	return cfg, trusted, nil
}

// checkStores refuses files that are not PEM.
func checkStores(p map[string]string) error {
	for _, store := range []string{"ssl.truststore", "ssl.keystore"} {
		if p[store+".location"] == "" {
			continue
		}
		if typ := p[store+".type"]; !strings.EqualFold(typ, "PEM") {
			return usagef("%s.location: only files with %s.type=PEM are read; \"keytool -exportcert -rfc\" makes one of a certificate, and \"openssl pkcs12\" of a PKCS#12 file", store, store)
		}
	}
	if p["ssl.key.password"] != "" {
		return usagef("ssl.key.password: encrypted keys are not read; \"openssl pkey\" decrypts one")
	}
	return nil
}

// skipHostName has a certificate be checked, but not the name in it, as an empty ssl.endpoint.identification.algorithm asks for.
func skipHostName(cfg *tls.Config) {
	cfg.InsecureSkipVerify = true // VerifyConnection checks the chain
	cfg.VerifyConnection = func(s tls.ConnectionState) error {
		opts := x509.VerifyOptions{Roots: cfg.RootCAs, Intermediates: x509.NewCertPool()}
		for _, c := range s.PeerCertificates[1:] {
			opts.Intermediates.AddCert(c)
		}
		_, err := s.PeerCertificates[0].Verify(opts)
		return err
	}
}
