package node

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
)

// secure has a node do what leat secure asks for.
func secure(t *testing.T, n *Node, q cluster.SecureRequest) (cluster.SecureAnswer, *controller.Error) {
	t.Helper()
	if q.Within == 0 {
		q.Within = patience
	}
	answer, refused, err := n.securing.Serve(deadline(t), &q)
	if err != nil {
		t.Fatalf("leat secure %s: %v", q.Verb, err)
	}
	return answer, refused
}

// expectRefusal proves that leat secure is refused with some words, and without others, which begin with a "!".
func expectRefusal(t *testing.T, n *Node, q cluster.SecureRequest, words ...string) {
	t.Helper()
	_, refused := secure(t, n, q)
	if refused == nil {
		t.Fatalf("leat secure %s is not refused", q.Verb)
	}
	for _, w := range words {
		if not, isNot := strings.CutPrefix(w, "!"); isNot && strings.Contains(refused.Message, not) || !isNot && !strings.Contains(refused.Message, w) {
			t.Errorf("leat secure %s is refused with %q, want %q", q.Verb, refused.Message, w)
		}
	}
}

// TestFinishNeedsNotes proves that plain connections are not ended before the nodes have noted for as long as was asked for who comes so, and not while
// somebody is connected so, whatever he has said last; that a node notes from leat secure on, and anew when it is started again; and that force ends them.
func TestFinishNeedsNotes(t *testing.T) {
	m := newSecuredMachines(t, 1, "PLAINTEXT")
	m.start(0, Config{})
	if at := m.nodes[0].securing.Show(); !at.Since.IsZero() {
		t.Errorf("a plain node notes clients since %v", at.Since)
	}
	silent, err := net.Dial("tcp", m.ports[0]) // it comes before all, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	began := time.Now()
	answer, refused := secure(t, m.nodes[0], cluster.SecureRequest{Verb: cluster.SecureBegin})
	if refused != nil || len(answer.Nodes) != 1 || answer.Nodes[0].Since.Before(began) || !answer.Nodes[0].Answers {
		t.Fatalf("%v, %+v", refused, answer)
	}
	finish := cluster.SecureRequest{Verb: cluster.SecureFinish, Quiet: 10 * time.Minute}
	expectRefusal(t, m.nodes[0], finish, "a client from 127.0.0.1, which is connected, and has sent nothing since then, on node 1", "node 1 since ", "missing: try again at ", "--force")
	finish.Quiet = 0
	expectRefusal(t, m.nodes[0], finish, "a client from 127.0.0.1", "!missing")
	silent.Close()
	eventually(t, "the connection is closed", func() bool { list, _ := m.nodes[0].securing.listPlain(); return len(list) == 0 })

	reader, err := kgo.NewClient(kgo.SeedBrokers(m.ports[0]), kgo.ClientID("reader"))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := reader.Ping(deadline(t)); err != nil {
		t.Fatal(err)
	}
	finish.Quiet = time.Nanosecond // it has sent its last request before
	expectRefusal(t, m.nodes[0], finish, `"reader" from 127.0.0.1, which is connected, on node 1`, "!missing")
	reader.Close()
	eventually(t, "the connection is closed", func() bool { list, _ := m.nodes[0].securing.listPlain(); return len(list) == 1 && list[0].Open == 0 })
	finish.Quiet = 10 * time.Minute
	expectRefusal(t, m.nodes[0], finish, `"reader" from 127.0.0.1, `, " ago, on node 1", "missing")

	m.stop(0)
	again := time.Now()
	m.start(0, Config{})
	eventually(t, "the node notes again", func() bool { return m.nodes[0].securing.plain.begun().After(again) })
	expectRefusal(t, m.nodes[0], finish, "!reader", "node 1 since ", "missing")
	finish.Force = true
	if answer, refused = secure(t, m.nodes[0], finish); refused != nil || answer.State != meta.SecuringFinished {
		t.Errorf("with force: %v, %+v", refused, answer)
	}
}

// TestNotesOfNodesAreJudged proves what is said of the notes of several nodes, whose clocks need not agree.
func TestNotesOfNodesAreJudged(t *testing.T) {
	at := time.Date(2026, 12, 1, 10, 0, 0, 0, time.UTC)
	of := func(id int32, since, ahead time.Duration, plain ...cluster.PlainClient) cluster.NodeSecuring {
		s := cluster.NodeSecuring{Node: id, Answers: true, At: at.Add(ahead), Plain: plain}
		if since > 0 {
			s.Since = s.At.Add(-since)
		}
		for i := range plain {
			plain[i].Last = s.At.Add(-time.Minute)
		}
		return s
	}
	const quiet = 10 * time.Minute
	if text := describeYoung([]cluster.NodeSecuring{of(1, quiet, 0), of(2, quiet, -time.Hour)}, quiet); text != "" {
		t.Errorf("after the whole time: %s", text)
	}
	text := describeYoung([]cluster.NodeSecuring{of(1, quiet, 0), of(2, 0, 0), of(3, 4*time.Minute, time.Hour)}, quiet)
	for _, want := range []string{"node 2 not at all so far, node 3 since 10:56:00 UTC", "10m1s are missing"} {
		if !strings.Contains(text, want) || strings.Contains(text, "node 1") {
			t.Errorf("it says %q, want %q", text, want)
		}
	}
	client := cluster.PlainClient{ClientID: "c", Host: "10.0.0.1"}
	nodes := []cluster.NodeSecuring{of(3, quiet, -time.Hour, client)}
	if text := describePlain(nodes, quiet); !strings.Contains(text, `"c" from 10.0.0.1, 1m0s ago, on node 3`) {
		t.Errorf("of a node whose clock is behind: %s", text)
	}
	if text := describePlain(nodes, 30*time.Second); text != "" {
		t.Errorf("after the whole time: %s", text)
	}
}

// TestKeyThatCannotBeWritten proves that a node whose sealing key cannot be written says so, and how it is told another file: to leat secure there, in the
// status and at the end when leat secure was run on another node, and to a join before the cluster has admitted it.
func TestKeyThatCannotBeWritten(t *testing.T) {
	m := newSecuredMachines(t, 4, "PLAINTEXT")
	noDirectory := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(noDirectory, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	noKey := filepath.Join(noDirectory, "leat.key")
	const remedy = "with --sealing-key FILE (LEAT_SEALING_KEY), and start the node with it"
	m.start(0, Config{})
	m.start(1, Config{Join: m.ports[:1], Token: m.makeToken(0)})
	m.stop(1)
	m.start(1, Config{SealingKey: noKey})
	expectRefusal(t, m.nodes[1], cluster.SecureRequest{Verb: cluster.SecureBegin}, noKey, remedy, `run "leat secure" again`)
	answer, refused := secure(t, m.nodes[0], cluster.SecureRequest{Verb: cluster.SecureBegin, Within: time.Nanosecond})
	eventually(t, "node 1 takes TLS", func() bool {
		answer, refused = secure(t, m.nodes[0], cluster.SecureRequest{Verb: cluster.SecureBegin, Within: 3 * time.Second})
		return refused == nil && answer.HasUser && answer.Nodes[1].Problem != ""
	})
	if at := answer.Nodes[1]; at.Ready || !at.Answers || !strings.Contains(at.Problem, remedy) {
		t.Errorf("node 2 says %+v", at)
	}
	expectRefusal(t, m.nodes[0], cluster.SecureRequest{Verb: cluster.SecureFinish, Force: true}, "node 2 (", noKey, remedy, "!start it", "!node 1")
	expectRefusal(t, m.nodes[1], cluster.SecureRequest{Verb: cluster.SecureBegin, Within: time.Second}, noKey, remedy)

	known := len(m.nodes[0].image.Load().Nodes)
	joiner := Config{Join: m.ports[:1], Token: m.makeToken(0), SealingKey: noKey}
	if _, err := m.tryStart(2, joiner); err == nil || !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), remedy) {
		t.Errorf("a join ends with %v", err)
	}
	if now := len(m.nodes[0].image.Load().Nodes); now != known {
		t.Errorf("there are %d members, and %d before", now, known)
	}
	m.stop(1)
	m.start(1, Config{SealingKey: filepath.Join(t.TempDir(), "keys", "leat.key")})
	eventually(t, "node 2 takes TLS", func() bool { return m.nodes[1].securing.Show().Ready })

	secured := Config{Listen: m.ports[2:3], Join: m.ports[:1], Token: withTLS(t, m.makeToken(0)), Secure: true}
	if _, err := m.tryStart(2, secured); err == nil || !strings.Contains(err.Error(), "leat secure --finish") {
		t.Errorf("joining with --secure before the end: %v", err)
	}
	if _, refused := secure(t, m.nodes[0], cluster.SecureRequest{Verb: cluster.SecureFinish, Force: true}); refused != nil {
		t.Fatal(refused)
	}
	secured.Token, secured.Listen = withTLS(t, m.makeToken(0)), m.ports[3:4]
	for range 2 { // it joins, and starts again with the flag
		m.start(3, secured)
		if n := m.nodes[3]; n.cfg.Secure || n.securing.kept.Load() == nil || n.Info().Secured == nil {
			t.Errorf("a node that has joined with --secure is %+v", n.Info())
		}
		m.stop(3)
	}
}

// TestSecuredOnAllNodesAtOnce proves that leat secure on all nodes at the same moment, also twice on one, leaves one sealing key: a node discards what it has made
// when another one was first.
func TestSecuredOnAllNodesAtOnce(t *testing.T) {
	m := newSecuredMachines(t, 3, "PLAINTEXT")
	m.start(0, Config{})
	token := m.makeToken(0)
	for i := 1; i < 3; i++ {
		m.start(i, Config{Join: m.ports[:1], Token: token})
	}
	m.awaitVoters(3)
	var asking sync.WaitGroup
	for i := range 6 {
		asking.Go(func() {
			q := cluster.SecureRequest{Verb: cluster.SecureBegin, Within: patience}
			if _, refused, err := m.nodes[i%3].securing.Serve(t.Context(), &q); refused != nil || err != nil {
				t.Errorf("leat secure on node %d: %v, %v", i%3+1, refused, err)
			}
		})
	}
	asking.Wait()
	eventually(t, "all nodes take TLS", func() bool {
		answer, _ := secure(t, m.nodes[0], cluster.SecureRequest{Verb: cluster.SecureStatus})
		return !slices.ContainsFunc(answer.Nodes, func(at cluster.NodeSecuring) bool { return !at.Ready })
	})
	for i := range 3 {
		if got, by := idsIn(t, m.dirs[i]), sealedBy(t, m.nodes[i]); len(got) != 1 || got[0] != by {
			t.Errorf("node %d has the keys %v, and %v seals", i+1, got, by)
		}
	}
}

// TestOtherSecurityIsShown proves that leat secure --status says how a cluster is secured that was so at its first start, or by hand.
func TestOtherSecurityIsShown(t *testing.T) {
	atStart, err := Start(t.Context(), securedConfig(filepath.Join(t.TempDir(), "data")))
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, atStart)
	answer, refused := secure(t, atStart, cluster.SecureRequest{Verb: cluster.SecureStatus})
	if refused != nil || answer.Otherwise != cluster.AtFirstStart || answer.User != "admin" {
		t.Errorf("%+v, %v", answer, refused)
	}
	for _, verb := range []cluster.SecureVerb{cluster.SecureBegin, cluster.SecureFinish} { // that was done
		if again, refused := secure(t, atStart, cluster.SecureRequest{Verb: verb}); refused != nil || again.Otherwise != cluster.AtFirstStart {
			t.Errorf("%s: %+v, %v", verb, again, refused)
		}
	}
	observe := true
	expectRefusal(t, atStart, cluster.SecureRequest{Verb: cluster.SecureBegin, Observe: &observe}, "ACLs decide")
	expectRefusal(t, atStart, cluster.SecureRequest{Verb: cluster.SecureBegin, User: "other"}, `"admin"`)

	a := newSigner(t)
	a.server("node.pem", time.Time{})
	m := newSecuredMachines(t, 1, "SSL")
	settings := a.settings(nil)
	m.start(0, Config{Settings: settings})
	answer, refused = secure(t, m.nodes[0], cluster.SecureRequest{Verb: cluster.SecureStatus})
	if refused != nil || answer.Otherwise != cluster.ByHand || len(answer.Listeners) != 1 || answer.Listeners[0].Protocol != "SSL" || answer.HasACLs {
		t.Errorf("%+v, %v", answer, refused)
	}
}
