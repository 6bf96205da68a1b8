package interop

import (
	"bytes"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var opensslKit = kit{name: "openssl", needs: []program{{"openssl", "openssl"}}}

// TestTLS looks at the listeners with TLS as scanners do, with openssl: which versions and suites there are, and what happens to a client
// that names another server, negotiates again, or has no certificate.
func TestTLS(t *testing.T) {
	t.Parallel()
	opensslKit.have(t)
	s := sharedSecured(t)
	at := s.at(loginListener)
	verified := []string{"-CAfile", s.ours.ca, "-verify_hostname", "localhost", "-verify_return_error"}
	good := func(t *testing.T, at string, args ...string) string {
		t.Helper()
		out, ok := sClient(t, at, "", append(verified, args...)...)
		if !ok {
			t.Errorf("%v: no connection:\n%s", args, out)
		}
		return out
	}
	bad := func(t *testing.T, at, want string, args ...string) {
		t.Helper()
		if out, ok := sClient(t, at, "", args...); ok || !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("%v: connected: %v, want %q in:\n%s", args, ok, want, out)
		}
	}
	t.Run("versions", func(t *testing.T) {
		t.Parallel()
		// Old ones have to be asked for with what openssl does by itself no more.
		const all = "ALL:@SECLEVEL=0"
		bad(t, at, "alert protocol version", "-tls1", "-cipher", all)
		bad(t, at, "alert protocol version", "-tls1_1", "-cipher", all)
		contains(t, good(t, at, "-tls1_2"), "Verification: OK", "Compression: NONE")
		contains(t, good(t, at, "-tls1_3"), "Verification: OK", "Compression: NONE")
	})
	t.Run("suites", func(t *testing.T) {
		t.Parallel()
		if runsKafka() {
			t.Skip("which suites Apache Kafka has is for its JVM to say")
		}
		checkSuites(t, at)
	})
	t.Run("names", func(t *testing.T) {
		t.Parallel()
		for _, name := range []string{"nobody.example", strings.Repeat("a", 60) + ".example", "127.0.0.1"} {
			contains(t, good(t, at, "-servername", name), "Verification: OK")
		}
		contains(t, good(t, at, "-noservername"), "Verification: OK")
		bad(t, at, "hostname mismatch", "-CAfile", s.ours.ca, "-verify_hostname", otherHost, "-verify_return_error")
		bad(t, at, "unable to get local issuer|self-signed certificate", "-CAfile", s.other.ca, "-verify_return_error")
	})
	t.Run("renegotiation", func(t *testing.T) {
		t.Parallel()
		// A line with an R has openssl ask for it.
		if out, _ := sClient(t, at, "R\n", "-tls1_2", "-CAfile", s.ours.ca); !strings.Contains(out, "RENEGOTIATING") || !regexp.MustCompile("no renegotiation|unexpected message|unexpected eof|\nclosed").MatchString(out) {
			t.Errorf("it was not refused:\n%s", out)
		}
		contains(t, good(t, at, "-tls1_2"), "Secure Renegotiation IS supported")
	})
	t.Run("clients' certificates", func(t *testing.T) {
		t.Parallel()
		at := s.at(certListener)
		for _, version := range []string{"-tls1_2", "-tls1_3"} {
			mine, other := s.certificate(t, s.ours, "openssl").Certificate, s.certificate(t, s.other, "openssl").Certificate
			contains(t, good(t, at, version, "-cert", mine, "-key", mine), "Verification: OK")
			bad(t, at, "alert (bad certificate|certificate required|handshake failure)", version, "-CAfile", s.ours.ca)
			bad(t, at, "alert (bad certificate|unknown ca|certificate unknown)", version, "-CAfile", s.ours.ca, "-cert", other, "-key", other)
		}
	})
}

// sClient connects with openssl, sends input, or a request, and tells what openssl said, and whether the request was answered.
func sClient(t *testing.T, at, input string, args ...string) (said string, answered bool) {
	t.Helper()
	cmd := exec.Command("openssl", append([]string{"s_client", "-connect", at}, args...)...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out := &tail{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	if input == "" {
		input = apiVersions
	}
	_, _ = stdin.Write([]byte(input)) // it may have ended
	for until := time.Now().Add(20 * time.Second); time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
		select {
		case <-done:
			return out.String(), strings.Contains(out.String(), apiVersionsAnswer)
		default:
		}
		if strings.Contains(out.String(), apiVersionsAnswer) {
			break
		}
	}
	_ = stdin.Close()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		_ = cmd.Process.Kill()
		<-done
	}
	return out.String(), strings.Contains(out.String(), apiVersionsAnswer)
}

// A request that any client may send before its login, ApiVersions 0, and the beginning of its answer, behind the length.
const (
	apiVersions       = "\x00\x00\x00\x0a\x00\x12\x00\x00\x00\x00\x00\x01\xff\xff"
	apiVersionsAnswer = "\x00\x00\x00\x01\x00\x00\x00"
)

// checkSuites proves that of all suites of TLS 1.2 that openssl knows those alone are served that keep what was sent a secret, also when
// the server's key is known later. Those of them with SHA are Go's for clients without AEAD.
func checkSuites(t *testing.T, at string) {
	t.Helper()
	list, err := exec.Command("openssl", "ciphers", "-tls1_2", "-s", "ALL:COMPLEMENTOFALL:@SECLEVEL=0").Output()
	if err != nil {
		t.Fatal(err)
	}
	// The key of the certificate is one of ECDSA.
	want := []string{"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES256-SHA", "ECDHE-ECDSA-CHACHA20-POLY1305"}
	var others []string
	for name := range strings.SplitSeq(strings.TrimSpace(string(list)), ":") {
		if !strings.HasPrefix(name, "TLS_") && !slices.Contains(want, name) { // those are of TLS 1.3
			others = append(others, name)
		}
	}
	offer := func(suites ...string) ([]byte, error) {
		return exec.Command("openssl", "s_client", "-connect", at, "-tls1_2", "-cipher", strings.Join(suites, ":")+":@SECLEVEL=0").CombinedOutput()
	}
	for _, name := range want {
		if out, err := offer(name); err != nil {
			t.Errorf("%s is not served: %v\n%s", name, err, out)
		}
	}
	if out, err := offer(others...); err == nil || !bytes.Contains(out, []byte("alert handshake failure")) || len(others) < 20 {
		t.Errorf("one of %v is served: %v\n%s", others, err, out)
	}
}
