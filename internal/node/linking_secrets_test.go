package node

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/sealing"
)

// TestLinkSecrets proves that a link logs in over TLS, that its password is in the metadata only as sealed, and is sealed anew when the sealing key is replaced; that a wrong password and an authority that is not
// trusted are found before there is a link; that another password counts at once; and that a cluster without a sealing key takes none.
func TestLinkSecrets(t *testing.T) {
	startOne := func() (*Node, BootstrapUser) {
		n := startSecured(t, securedConfig(filepath.Join(t.TempDir(), "data")))
		login, err := ReadFirstLogin(n.Info().Secured.FirstLogin)
		if err != nil {
			t.Fatal(err)
		}
		return n, login
	}
	there, login := startOne()
	here, _ := startOne()
	ca, err := os.ReadFile(there.Info().Secured.CA)
	if err != nil {
		t.Fatal(err)
	}
	cl := loggedIn(t, there, login)
	if _, err := kadm.NewClient(cl).CreateTopic(deadline(t), 1, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{
		"bootstrap.servers": there.Info().Secured.Address, "topics": "*", "security.protocol": "SASL_SSL", "sasl.username": login.Name, "ssl.truststore.certificates": string(ca),
	}
	ask := func(n *Node, verb cluster.LinkVerb, password string, set map[string]string) cluster.LinkAnswer {
		t.Helper()
		q := &cluster.LinkRequest{Verb: verb, Name: "north", Secrets: cluster.LinkSecrets{{Key: cluster.PasswordKey, Value: password}}}
		for _, key := range slices.Sorted(maps.Keys(set)) {
			q.Settings = append(q.Settings, meta.LinkSetting{Key: key, Value: set[key]})
		}
		a, refused, err := n.linking.ServeLink(deadline(t), q)
		if refused != nil || err != nil {
			t.Fatal(refused, err)
		}
		return a
	}
	if a := ask(here, cluster.LinkCreate, "wrong", settings); len(a.Problems) != 1 || !strings.Contains(a.Problems[0].Text, "refuses the login") || a.Changed {
		t.Errorf("%+v", a)
	}
	untrusted := maps.Clone(settings)
	delete(untrusted, "ssl.truststore.certificates")
	if a := ask(here, cluster.LinkCreate, login.Password, untrusted); len(a.Problems) != 1 || !strings.Contains(a.Problems[0].Text, "not trusted") || a.Changed {
		t.Errorf("%+v", a)
	}
	if a := ask(newSite(t, 1).any(), cluster.LinkCreate, login.Password, settings); len(a.Problems) != 1 || !strings.Contains(a.Problems[0].Do, "leat secure") || a.Changed {
		t.Errorf("%+v", a)
	}
	if a := ask(here, cluster.LinkCreate, login.Password, settings); len(a.Problems) > 0 || !a.Changed {
		t.Fatalf("%+v", a)
	}
	mirrored := func(records int64) {
		t.Helper()
		eventually(t, "the records are mirrored", func() bool {
			p := here.set.Partition("orders", 0)
			return p != nil && int64(p.HighWatermark()) == records
		})
	}
	produceOne := func() {
		t.Helper()
		if err := cl.ProduceSync(deadline(t), &kgo.Record{Topic: "orders", Value: []byte("v")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	produceOne()
	mirrored(1)
	sealed := func() []byte { return here.image.Load().Links().FindName("north").Secret }
	if bytes.Contains(meta.Encode(here.image.Load()), []byte(login.Password)) || len(sealed()) == 0 {
		t.Error("the password is in the metadata")
	}
	if a := ask(here, cluster.LinkCreate, login.Password, settings); !a.Existed || len(a.Differences) > 0 || a.Changed {
		t.Errorf("the same again: %+v", a)
	}
	if a := ask(here, cluster.LinkCreate, "another", settings); !a.Existed || len(a.Differences) != 1 || a.Differences[0].Key != cluster.PasswordKey || a.Differences[0].Has != nil {
		t.Errorf("with another password: %+v", a)
	}
	_, refused, key := rotateKey(t, here, false)
	if refused != nil {
		t.Fatal(refused)
	}
	if _, refused, _ := rotateKey(t, here, true); refused != nil {
		t.Fatal(refused)
	}
	if by, err := sealing.KeyOf(sealed()); err != nil || by != key || sealedBy(t, here) != key {
		t.Errorf("sealed by %v, and not by %v: %v", by, key, err)
	}
	produceOne()
	mirrored(2)
	before := sealed()
	if a := ask(here, cluster.LinkAlter, "wrong", nil); len(a.Problems) != 1 || !bytes.Equal(sealed(), before) {
		t.Errorf("%+v", a)
	}
	if a := ask(here, cluster.LinkAlter, login.Password, map[string]string{"throttle.bytes.per.second": "1000000"}); len(a.Problems) > 0 || !a.Changed || bytes.Equal(sealed(), before) {
		t.Errorf("%+v", a)
	}
	produceOne()
	mirrored(3)
}

// TestLinkRequests proves that links, and topics of theirs, are paused and go on, that a link is only removed when nothing mirrors by it, and that a dry run changes nothing.
func TestLinkRequests(t *testing.T) {
	there, here := newSite(t, 1), newSite(t, 1)
	there.create("orders", 1, nil)
	there.create("other", 1, nil)
	here.link(there, nil)
	here.awaitMirrored(there, "orders")
	here.awaitMirrored(there, "other")
	n := here.any()
	ask := func(q *cluster.LinkRequest) (cluster.LinkAnswer, string) {
		t.Helper()
		q.Name = "north"
		a, refused, err := n.linking.ServeLink(deadline(t), q)
		if err != nil {
			t.Fatal(err)
		}
		if refused != nil {
			return a, refused.Message
		}
		return a, ""
	}
	must := func(q *cluster.LinkRequest, changes bool) {
		t.Helper()
		if a, refused := ask(q); refused != "" || a.Changed != changes {
			t.Fatalf("%v of %q: %+v, %s", q.Verb, q.Topics, a, refused)
		}
	}
	id := n.image.Load().Links().FindName("north").ID
	states := func() string {
		list := n.linking.ListMirrors(id)
		slices.SortFunc(list, func(a, b cluster.PartitionStatus) int { return strings.Compare(a.Topic, b.Topic) })
		s := ""
		for _, p := range list {
			s += p.Topic + " " + p.State + " "
		}
		return s
	}
	awaitStates := func(want string) {
		t.Helper()
		eventually(t, "the states are "+want, func() bool { return states() == want })
	}
	must(&cluster.LinkRequest{Verb: cluster.LinkPause, Topics: []string{"orders"}, DryRun: true}, true)
	awaitStates("orders MIRRORING other MIRRORING ")
	must(&cluster.LinkRequest{Verb: cluster.LinkPause, Topics: []string{"orders"}}, true)
	must(&cluster.LinkRequest{Verb: cluster.LinkPause, Topics: []string{"orders"}}, false)
	awaitStates("orders PAUSED other MIRRORING ")
	must(&cluster.LinkRequest{Verb: cluster.LinkPause}, true)
	awaitStates("orders PAUSED other PAUSED ")
	must(&cluster.LinkRequest{Verb: cluster.LinkResume}, true)
	must(&cluster.LinkRequest{Verb: cluster.LinkResume, Topics: []string{"orders"}}, true)
	awaitStates("orders MIRRORING other MIRRORING ")
	must(&cluster.LinkRequest{Verb: cluster.LinkSkip, Topics: []string{"orders"}}, false)
	if _, refused := ask(&cluster.LinkRequest{Verb: cluster.LinkPause, Topics: []string{"none"}}); !strings.Contains(refused, "does not mirror by the link") {
		t.Errorf("%q", refused)
	}
	if _, refused := ask(&cluster.LinkRequest{Verb: cluster.LinkDelete}); !strings.Contains(refused, "2 topics mirror by the link") {
		t.Errorf("%q", refused)
	}
	if a, refused := ask(&cluster.LinkRequest{Verb: cluster.LinkCheck}); refused != "" || len(a.Problems) > 0 || len(a.Topics) != 2 || a.Source != there.any().id.clusterID {
		t.Errorf("%+v, %s", a, refused)
	}
	must(&cluster.LinkRequest{Verb: cluster.LinkPause}, true) // or the topics are made again
	if _, err := kadm.NewClient(here.client()).DeleteTopics(deadline(t), "orders", "other"); err != nil {
		t.Fatal(err)
	}
	must(&cluster.LinkRequest{Verb: cluster.LinkDelete}, true)
	if _, refused := ask(&cluster.LinkRequest{Verb: cluster.LinkPause}); !strings.Contains(refused, "no link") {
		t.Errorf("%q", refused)
	}
}
