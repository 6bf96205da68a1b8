package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
)

// TestLinkAgentTokens proves that the token which is shown is the one that the node is told of, which gets no secret; that it says whether TLS is needed, that a person is told how to use it, and that one is revoked by its id or by the whole of it.
func TestLinkAgentTokens(t *testing.T) {
	for _, needsTLS := range []bool{false, true} {
		f := answerLinks(cluster.LinkAnswer{Changed: true})
		f.node.cluster, f.node.needsTLS = credential.ClusterID{1, 2}.String(), needsTLS
		out := f.expect(t, exitOK, "agent-token north --for 10m", "leat link agent --to one.here:9092 --token-file FILE --from BROKER:PORT", "\"leat link agent-token north --revoke ")
		token, err := credential.ParseToken(out)
		if err != nil || !token.IsForAgent() || token.NeedsTLS() != needsTLS || token.Cluster() != (credential.ClusterID{1, 2}) {
			t.Fatalf("%q is %v, %v", out, token, err)
		}
		q := f.asked[0]
		v := token.Verifier(time.UnixMilli(q.Agent.Expires))
		want := meta.LinkAgent{Token: v.ID, Key: v.Key, Acceptor: v.Acceptor, Expires: q.Agent.Expires}
		if left := time.Until(time.UnixMilli(q.Agent.Expires)); q.Verb != cluster.LinkAgentToken || q.Name != "north" || *q.Agent != want || left <= 0 || left > 10*time.Minute {
			t.Errorf("the node is asked for %+v", q)
		}
		for _, by := range []string{token.ID().String(), strings.TrimSpace(out)} {
			f.asked = nil
			f.expect(t, exitOK, "agent-token north --revoke "+by, "revoked the token "+token.ID().String()+" of the link north")
			if q := f.asked[0]; q.Verb != cluster.LinkAgentRevoke || q.Token != token.ID() {
				t.Errorf("the node is asked for %+v", q)
			}
		}
	}
	f := newLinkFake(func(*cluster.LinkRequest) (a cluster.LinkAnswer, refused *controller.Error, err error) {
		return a, &controller.Error{Kind: controller.PolicyViolation, Message: "The nodes dial the source."}, nil
	})
	f.node.cluster = credential.ClusterID{1}.String()
	f.expect(t, exitFailed, "agent-token north", "making a token for an agent of the link north: The nodes dial the source")
}

// TestLinkDescribeShowsAgents proves that a link which is reached by agents shows its tokens, and which agents are connected to which nodes, since when, and what they do not reach, or what to do if there are none.
func TestLinkDescribeShowsAgents(t *testing.T) {
	at := time.Date(2026, 12, 1, 10, 0, 0, 0, time.UTC)
	link := cluster.LinkStatus{Name: "north", Settings: []meta.LinkSetting{{Key: "via", Value: "agent"}}}
	show := func(says ...string) {
		t.Helper()
		answerLinks(cluster.LinkAnswer{Links: []cluster.LinkStatus{link}}).expect(t, exitOK, "describe north", says...)
	}
	show("of a cluster that is not known before an agent is connected", "no agent can connect: \"leat link agent-token north\" makes a token")
	link.Tokens = []cluster.AgentToken{{ID: "aa", Used: true, Expires: at}, {ID: "bb", Expires: at}, {ID: "cc", Expires: time.Now().Add(time.Hour)}}
	show("aa     used by an agent", "bb     has ended unused", "cc     not used, until ", "no agent is connected: see to it that \"leat link agent\" runs beside the source")
	link.Agents = []cluster.AgentStatus{{Token: "aa", Name: "edge", Node: 1, Remote: "10.0.0.1:5", Since: at, Streams: 3, Problem: "k:9092: refused"}, {Token: "aa", Name: "edge", Node: 2, Since: at}}
	show("node 1, 2", "edge      1  10.0.0.1:5  2026-12-01 10:00:00 UTC            3  k:9092: refused")
	var d describedLink
	out := answerLinks(cluster.LinkAnswer{Links: []cluster.LinkStatus{link}}).expect(t, exitOK, "describe north -o json")
	if err := json.Unmarshal([]byte(out), &d); err != nil || len(d.Agents) != 2 || d.Agents[0].Problem == "" || len(d.AgentTokens) != 3 {
		t.Errorf("%v: %s", err, out)
	}
}

// TestAgentKeysAreKept proves that the key of an agent is made once, that only its owner may read it, and that a file which is something else is refused and left as it is.
func TestAgentKeysAreKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token.key")
	first, err := keepAgentKey(path)
	if err != nil {
		t.Fatal(err)
	}
	second, err := keepAgentKey(path)
	if err != nil || first.Public() != second.Public() {
		t.Errorf("it is another key the second time: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its file: %v, %v", info, err)
	}
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := keepAgentKey(path); err == nil || !strings.Contains(err.Error(), "--key-file") {
		t.Errorf("a file that has no key: %v", err)
	}
	if b, err := os.ReadFile(path); string(b) != "x" || err != nil {
		t.Errorf("it has %q now, %v", b, err)
	}
}

// TestLinkAgentRuns proves with two nodes and the program's own verbs that a link is made, gets a token, and mirrors when its agent runs, which ends in good order when it is stopped; and that a second agent with the same token is refused.
func TestLinkAgentRuns(t *testing.T) {
	start := func(data string) (address string) {
		t.Helper()
		address, stop, err := startLocalNode(t.Context(), nodeOptions{data: data})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
		return address
	}
	dir := t.TempDir()
	there, here := start(filepath.Join(dir, "there")), start(filepath.Join(dir, "here"))
	run := func(ctx context.Context, args ...string) (code int, out string) {
		var o, e strings.Builder
		code = Main(ctx, args, strings.NewReader(""), &o, &e)
		return code, o.String() + e.String()
	}
	must := func(args ...string) string {
		t.Helper()
		code, out := run(t.Context(), args...)
		if code != exitOK {
			t.Fatalf("leat %v ends with %d: %s", args, code, out)
		}
		return out
	}
	data := filepath.Join(dir, "here")
	must("topic", "create", "orders", "--bootstrap", there)
	must("link", "create", "north", "--via", "agent", "--from", there, "--data", data)
	token, _, _ := strings.Cut(must("link", "agent-token", "north", "--data", data), "\n")
	tokenFile := file(t, "token", token+"\n")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan string, 1)
	agent := []string{"link", "agent", "--to", here, "--token-file", tokenFile, "--from", there, "--name", "edge"}
	go func() {
		code, out := run(ctx, agent...)
		ended <- fmt.Sprintf("%d: %s", code, out)
	}()
	defer cancel()
	last := ""
	for limit := time.Now().Add(time.Minute); !strings.Contains(last, "MIRRORING") || !strings.Contains(last, "edge"); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("it does not mirror in a minute: %s", last)
		}
		last = must("link", "describe", "north", "--data", data)
	}
	if code, out := run(t.Context(), append(agent, "--key-file", filepath.Join(dir, "other.key"))...); code != exitFailed || !strings.Contains(out, "the token was used by another agent") {
		t.Errorf("another agent ends with %d: %s", code, out)
	}
	cancel()
	if out := <-ended; !strings.HasPrefix(out, "0: ") || !strings.Contains(out, "connected to a node") {
		t.Errorf("the agent ends with %s", out)
	}
}
