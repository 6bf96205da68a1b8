package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFlagsCompleteClientConfig proves that flags and variables complete a client.properties: a flag that contradicts one of its lines is refused, or
// wins if a variable has named the file, and a variable counts only where the file says nothing.
func TestFlagsCompleteClientConfig(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ca, password := write("ca.pem", testCertificate), write("password", "secret\n")
	file := filepath.Join(dir, "client.properties")
	const jaas = "\nsasl.jaas.config=x required username=\"alice\" password=\"p\";\n"
	// f checks what a file, flags and variables make: "user by MECHANISM with TLS", or a part of an error.
	f := func(text, flags, variables, want string) {
		t.Helper()
		write("client.properties", text)
		for _, name := range []string{"LEAT_USER", "LEAT_PASSWORD", "LEAT_CA", "LEAT_TLS", "LEAT_CLIENT_CONFIG"} {
			t.Setenv(name, "")
		}
		fill := strings.NewReplacer("CA", ca, "SECRET", password, "FILE", file)
		for v := range strings.FieldsSeq(variables) {
			name, value, _ := strings.Cut(v, "=")
			t.Setenv(name, fill.Replace(value))
		}
		a := new(app)
		cmd, _, err := a.newRoot().Find([]string{"topic", "list"})
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.ParseFlags(strings.Fields(fill.Replace(flags))); err != nil {
			t.Fatal(err)
		}
		err = a.identity.readFlags(cmd)
		var c access
		if err == nil {
			c, err = a.identity.readAccess()
		}
		got := c.user + " by " + c.name
		if c.tls != nil {
			got += " with TLS"
			if c.tls.RootCAs != nil {
				got += " of a file"
			}
		}
		if err != nil {
			got = strings.ReplaceAll(err.Error(), dir+"/", "")
		}
		if err != nil && !strings.Contains(got, want) || err == nil && got != want {
			t.Errorf("%q, %s, %s: %s, want %s", text, flags, variables, got, want)
		}
	}
	const with, scram = "--client-config FILE ", "sasl.mechanism=SCRAM-SHA-256"
	f("security.protocol=SASL_SSL\n"+scram+jaas, with, "", "alice by SCRAM-SHA-256 with TLS")
	f("security.protocol=SASL_SSL\n"+scram+jaas, with+"--ca CA", "", "alice by SCRAM-SHA-256 with TLS of a file")
	f("security.protocol=SASL_SSL\n"+scram+jaas, with+"--tls --mechanism SCRAM-SHA-256", "LEAT_CA=CA", "alice by SCRAM-SHA-256 with TLS of a file")
	f("security.protocol=SASL_SSL"+jaas, with+"--mechanism PLAIN", "", "alice by PLAIN with TLS")
	f("security.protocol=SASL_SSL"+jaas, with, "", "sasl.mechanism is missing, for which Kafka has GSSAPI")
	f(scram+jaas, with+"--ca CA", "", "alice by SCRAM-SHA-256 with TLS of a file")
	f("security.protocol=SASL_SSL", with+"--user bob --password-file SECRET", "", "bob by SCRAM-SHA-512 with TLS")
	f("security.protocol=SASL_SSL", with, "LEAT_USER=bob LEAT_PASSWORD=x", "bob by SCRAM-SHA-512 with TLS")
	f("security.protocol=SASL_SSL", with, "", "add the line, or --user and --password-file")
	f("security.protocol=SASL_SSL\nsasl.mechanism=OAUTHBEARER"+jaas, with, "", "give it with --password-file FILE")
	f("security.protocol=SASL_SSL\nsasl.mechanism=OAUTHBEARER"+jaas, with+"--password-file SECRET", "", " by OAUTHBEARER with TLS")
	f("", with+"--tls", "", " by  with TLS")
	f("", with, "LEAT_USER=bob LEAT_PASSWORD=x LEAT_TLS=1 LEAT_CA=CA", " by ")

	f("security.protocol=SASL_PLAINTEXT\n"+scram+jaas, with+"--ca CA", "", "client.properties: it has security.protocol=SASL_PLAINTEXT, which --ca contradicts: leave out one of them")
	f("security.protocol=SASL_SSL\n"+scram+jaas, with+"--tls=false", "", "which --tls contradicts")
	f("security.protocol=SSL", with+"--user bob --password-file SECRET", "", "which --user contradicts")
	f("security.protocol=SASL_SSL\n"+scram+jaas, with+"--mechanism PLAIN", "", "it has sasl.mechanism=SCRAM-SHA-256, which --mechanism contradicts")
	f("security.protocol=SASL_SSL\n"+scram+jaas, with+"--user bob --password-file SECRET", "", "it has sasl.jaas.config, which --user contradicts")
	f("security.protocol=SSL\nssl.truststore.type=PEM\nssl.truststore.location=other.pem", with+"--ca CA", "", "it has ssl.truststore.location, which --ca contradicts")
	f("security.protocol=SSL\nssl.truststore.type=PEM\nssl.truststore.location=other.pem", with, "LEAT_CA=CA", "file other.pem does not exist")

	const named = "LEAT_CLIENT_CONFIG=FILE"
	f("security.protocol=SASL_SSL\n"+scram+jaas, "", named, "alice by SCRAM-SHA-256 with TLS")
	f("security.protocol=SASL_SSL\n"+scram+jaas, "--login-user bob --login-password-file SECRET", named, "bob by SCRAM-SHA-256 with TLS")
	f("security.protocol=SASL_SSL\n"+scram+jaas, "--user bob --password-file SECRET --mechanism PLAIN --tls=false", named, "bob by PLAIN")
	f("security.protocol=SSL\nssl.truststore.type=PEM\nssl.truststore.location=other.pem", "--ca CA", named, " by  with TLS of a file")

	f("", "", "LEAT_USER=bob LEAT_PASSWORD=x LEAT_CA=CA", "bob by SCRAM-SHA-512 with TLS of a file")
	f("", "--tls=false", "LEAT_CA=CA", " by ")
	f("", "", "LEAT_TLS=true", " by  with TLS")
	f("", "", "LEAT_TLS=ja", "LEAT_TLS=ja: write true or false")
}

// testCertificate is one that a client can be told to trust.
const testCertificate = `-----BEGIN CERTIFICATE-----
MIIBdTCCARugAwIBAgIUJb19AmUWlELeFKWRNo2uIknr+2YwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjEyMDEwMjIwMjJaGA8yMTI2MTEwNzAyMjAy
MlowDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABD9X
N3iW4sXrrRp8EJfwWQkpvPELlFKf25hen+RJXEsYCYqNJMSNSTLYo3cCT8zfidev
ISk3d+6Zmu3auA9UvKCjUzBRMB0GA1UdDgQWBBRDAEKg5UHHJN/pudndJhqfS8xz
AjAfBgNVHSMEGDAWgBRDAEKg5UHHJN/pudndJhqfS8xzAjAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0gAMEUCIQDvm7s3yborSw6OjYZprut5Rl1M61ya7CIt
LIjQeULm9wIgYzBKC7SdaZAJDf03clijI4Cr5/aprj4qJFjF1DQgOZ4=
-----END CERTIFICATE-----`
