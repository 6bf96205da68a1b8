package interop

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// TestLinkReadsNearestReplica proves, with two brokers of Apache Kafka that let consumers read from the replicas of their rack (KIP-392), that a link with a rack reads records from there and not from the leader, and
// from the leader when the near broker is gone.
func TestLinkReadsNearestReplica(t *testing.T) {
	needsSources(t)
	if runsKafka() {
		t.Skip("it is about links of Leat")
	}
	t.Parallel()
	k := startOldKafka(t, &oldVersions[1], 2, "replica.selector.class=org.apache.kafka.common.replica.RackAwareReplicaSelector")
	createAt(t, k.addrs(), "orders", 1, 2, nil)
	eventually(t, sourceTimeout, "two replicas are in sync", func() bool {
		_, n := k.partition(k.client(), "orders")
		return n == 2
	})
	leader, _ := k.partition(k.client(), "orders")
	near := 3 - leader
	const records, size = 40, 100 << 10
	cl := quickClient(t, k.addrs(), kgo.ProducerBatchCompression(kgo.NoCompression()))
	write := func() {
		t.Helper()
		for range records {
			value := make([]byte, size)
			_, _ = rand.Read(value)
			if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Value: value}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
	write()
	relays, args := map[int32]*relay{}, []string{"--rack", fmt.Sprint("rack-", near)}
	for i, b := range k.brokers {
		r := startRelay(t, b.addr)
		relays[int32(i+1)] = r
		args = append(args, "--map", b.addr+"="+r.addr)
	}
	l := linkNorth(t, k.addrs(), args...)
	l.awaitCopied("orders")
	write() // at the end of the log
	l.awaitCopied("orders")
	if a, b := relays[near].received(), relays[leader].received(); a < 2*records*size || b > records*size/4 {
		t.Errorf("%d bytes have come from the near replica, and %d from the leader", a, b)
	}
	before := relays[leader].received()
	k.brokers[near-1].kill(t)
	k.awaitPartition("orders", leader, 1)
	write()
	l.awaitCopied("orders")
	if n := relays[leader].received() - before; n < records*size {
		t.Errorf("%d bytes have come from the leader when the near replica was gone", n)
	}
}

// TestLinkIsEncrypted watches the traffic of a link. With TLS and a login it has no names of topics or users, no passwords and no records, in either direction; a link without has them, so that the watch would see them.
func TestLinkIsEncrypted(t *testing.T) {
	if runsKafka() {
		t.Skip("it is about links of Leat")
	}
	t.Parallel()
	const value = "a value that nobody on the way may read"
	plain := ownBroker(t)
	createAt(t, []string{plain.addr}, "watched-orders", 1, 1, nil)
	watched := startRelay(t, plain.addr)
	l := linkNorth(t, []string{plain.addr}, "--map", plain.addr+"="+watched.addr)
	l.produce("watched-orders", 5, value)
	l.awaitCopied("watched-orders")
	for _, text := range []string{value, "watched-orders"} {
		if !watched.shows(text) {
			t.Errorf("the watch does not see %q", text)
		}
	}

	there, here := startSecured(t), startSecured(t)
	watched = startRelay(t, there.addr)
	config := there.linesFor(t, "Java")
	l = &linked{t: t, here: &broker{addr: here.addr, dataDir: filepath.Dir(here.ca)}, there: there.client(t), near: here.client(t)}
	if _, err := kadm.NewClient(l.there).CreateTopic(t.Context(), 1, 1, nil, "watched-orders"); err != nil { // by nobody who only asks for it here
		t.Fatal(err)
	}
	if err := l.there.ProduceSync(t.Context(), &kgo.Record{Topic: "watched-orders", Value: []byte(value)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	l.verb("create", "north", "--from", there.addr, "--map", there.addr+"="+watched.addr, "--source-config", config)
	l.produce("watched-orders", 5, value)
	l.awaitCopied("watched-orders")
	if watched.received() < 1000 {
		t.Errorf("only %d bytes went by the watch", watched.received())
	}
	for _, text := range []string{value, "watched-orders", there.user(t), there.password} {
		if watched.shows(text) {
			t.Errorf("%q can be read on the way", text)
		}
	}
}

// user is the user of the node's first login.
func (n *securedNode) user(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(n.linesFor(t, "Java"))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`username="([^"]+)"`).FindSubmatch(text)
	if found == nil {
		t.Fatalf("no user in %s", text)
	}
	return string(found[1])
}

// client is a client that is logged in as the first user.
func (n *securedNode) client(t *testing.T) *kgo.Client {
	t.Helper()
	ca, err := os.ReadFile(n.ca)
	pool := x509.NewCertPool()
	if err != nil || !pool.AppendCertsFromPEM(ca) {
		t.Fatal("no certificates: ", err)
	}
	login := scram.Auth{User: n.user(t), Pass: strings.TrimSpace(n.password)}
	return quickClient(t, []string{n.addr}, kgo.DialTLSConfig(&tls.Config{RootCAs: pool}), kgo.SASL(login.AsSha512Mechanism()), kgo.ProducerBatchCompression(kgo.NoCompression()))
}
