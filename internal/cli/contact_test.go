package cli

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
)

// runVerb runs a verb and returns its exit code and its last words.
func runVerb(t *testing.T, args ...string) (code int, words string) {
	t.Helper()
	var errs strings.Builder
	code = Main(t.Context(), args, strings.NewReader("x\n"), io.Discard, &errs)
	lines := strings.Split(strings.TrimSpace(errs.String()), "\n")
	return code, lines[len(lines)-1]
}

// TestNoBroker proves that verbs tell a program that speaks HTTP from a broker that is not there.
func TestNoBroker(t *testing.T) {
	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	_, port, err := net.SplitHostPort(web.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range [][]string{{"cluster"}, {"topic", "list"}, {"produce", "t"}, {"consume", "t"}} {
		code, words := runVerb(t, append(verb, "-b", "localhost:"+port, "--timeout", "1s")...)
		if code != exitUnreachable || !strings.Contains(words, "this is no broker: it answered HTTP/1.1") {
			t.Errorf("%v: exit code %d, %q", verb, code, words)
		}
	}
}

// TestAstrayBroker proves that a broker that sends its clients to an address where nobody is gets the
// blame for that, instead of the address by which it was reached.
func TestAstrayBroker(t *testing.T) {
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	astray := gone.Addr()
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	var door string
	c := kfake.MustCluster(kfake.NumBrokers(1), kfake.ListenFn(func(network, address string) (net.Listener, error) {
		l, err := net.Listen(network, address)
		if err != nil {
			return nil, err
		}
		door = l.Addr().String()
		return toldListener{l, astray}, nil
	}))
	t.Cleanup(c.Close)
	for _, verb := range [][]string{{"topic", "create", "t"}, {"cluster", "log-dirs"}} {
		code, words := runVerb(t, append(verb, "-b", door, "--timeout", "1s")...)
		want := "leat: reached " + door + ", which tells clients to go to " + astray.String()
		if code != exitUnreachable || !strings.HasPrefix(words, want) || !strings.Contains(words, "--advertise") {
			t.Errorf("%v: exit code %d, %q", verb, code, words)
		}
	}
}

// toldListener is a listener whose broker tells its clients another address.
type toldListener struct {
	net.Listener
	told net.Addr
}

func (l toldListener) Addr() net.Addr { return l.told }
