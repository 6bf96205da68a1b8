package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/node"
	"github.com/leatstream/leat/internal/peer"
)

// TestExplainDial proves that each way in which a node does not let the holder of its directory in is told in
// a sentence, and which of them count as a node that cannot be reached.
func TestExplainDial(t *testing.T) {
	h := &node.Holder{NodeID: 1, Cluster: credential.ClusterID{1}}
	f := func(err error, isUnreachable bool, says string) {
		t.Helper()
		err = explainDial(fmt.Errorf("connecting to the node at one:9092: %w", err), h, "data", "one:9092")
		if got := errors.Is(err, errUnreachable); got != isUnreachable {
			t.Errorf("it is unreachable: %v, want %v: %v", got, isUnreachable, err)
		}
		if !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "connecting to") {
			t.Errorf("it says %q, and not %q", err, says)
		}
	}
	f(fmt.Errorf("%w: %w", peer.ErrDialRefused, syscall.ECONNREFUSED), true, `no node answers on one:9092 (connection refused): start the one in data with "leat up --data data"`)
	f(fmt.Errorf("%w: %w", peer.ErrSilent, os.ErrDeadlineExceeded), true, "no node answers on one:9092 (no answer in time)")
	f(fmt.Errorf("%w: %w: %w", peer.ErrHandshake, peer.ErrClosedByPeer, io.EOF), false, "what listens on one:9092 does not answer as a node of Leat that knows join tokens (connection closed)")
	f(credential.ErrForeignCluster, false, "belongs to another cluster than data")
	f(fmt.Errorf("%w: node 2 instead of node 1", credential.ErrWrongNode), false, "on one:9092 another node answered: node 2 instead of node 1, whose directory is data")
	f(credential.ErrStranger, false, "says that it is node 1, and does not prove it")
	f(credential.ErrNodeRemoved, false, "the node on one:9092: the node was removed from the cluster")
	f(credential.ErrVersion, false, "the node on one:9092: the two nodes have no version")
}

// TestExplainCommand proves what a person is told of a command that was refused, or that nobody has decided.
func TestExplainCommand(t *testing.T) {
	f := func(refused *controller.Error, err, kind error, says string) {
		t.Helper()
		got := explainCommand(refused, err)
		if !errors.Is(got, kind) || !strings.Contains(got.Error(), says) {
			t.Errorf("%v, want %q", got, says)
		}
	}
	if err := explainCommand(nil, nil); err != nil {
		t.Error(err)
	}
	f(&controller.Error{Kind: controller.BrokerNotRegistered, Message: "There is no node 7."}, nil, errNotFound, `There is no node 7: "leat cluster" shows the nodes`)
	f(&controller.Error{Kind: controller.UnknownToken, Message: "There is no join token 12."}, nil, errNotFound, "There is no join token 12: it was never made")
	if err := explainCommand(&controller.Error{Kind: controller.PolicyViolation, Message: "Move its replicas, or ask by force, please."}, nil); !strings.HasSuffix(err.Error(), "please (--force)") {
		t.Error(err)
	}
	f(nil, fmt.Errorf("x: %w", cluster.ErrBusy), cluster.ErrBusy, "the cluster cannot do that now")
	f(nil, peer.ErrClosed, peer.ErrClosed, "closed")
}

// TestTokenUse proves what a person is told about a token.
func TestTokenUse(t *testing.T) {
	made := &madeToken{Token: "secret", ID: "0123456789abcdef", Expires: time.Date(2026, 11, 29, 20, 4, 5, 600, time.UTC)}
	f := func(says string, isLocal bool, addresses ...string) {
		t.Helper()
		got := tokenUse(made, addresses)
		if !strings.Contains(got, says) || !strings.Contains(got, "until 2026-11-29 20:04:05 UTC") || !strings.Contains(got, "--revoke 0123456789abcdef") || strings.Contains(got, "secret") {
			t.Error(got)
		}
		if strings.Contains(got, "from this machine only") != isLocal {
			t.Error(got)
		}
	}
	f("leat up --join HOST:PORT --token-file FILE", false)
	f("leat up --join 127.0.0.1:9092 ", true, "127.0.0.1:9092")
	f("leat up --join [::1]:9092 ", true, "[::1]:9092", "localhost:9092")
	f("leat up --join one.example:9092 ", false, "one.example:9092")
	f("leat up --join localhost:9092 ", false, "localhost:9092", "10.0.0.1:9092")
}

// TestParseTokenID proves that a token is revoked by its id, or by its text, and that anything else is refused.
func TestParseTokenID(t *testing.T) {
	token, err := credential.NewToken(credential.ClusterID{1}, strings.NewReader(strings.Repeat("x", 24)))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{token.Text(), token.ID().String(), " " + token.ID().String() + "\n"} {
		if id, err := parseTokenID(text); err != nil || id != token.ID() {
			t.Errorf("%q: %v, %v", text, id, err)
		}
	}
	for _, text := range []string{"", "12", token.ID().String() + "00", "nothexnothexnoth", token.Text() + "x"} {
		if _, err := parseTokenID(text); !errors.Is(err, errUsage) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
