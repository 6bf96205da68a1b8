package main_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/leatstream/leat/internal/node"
)

// securedClient is a client of a secured cluster, made as the lines say that a node shows.
func securedClient(t *testing.T, ca string, login node.BootstrapUser, addrs ...string) *kgo.Client {
	t.Helper()
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM([]byte(readText(t, ca)))
	cl, err := kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.DialTLSConfig(&tls.Config{RootCAs: trusted}),
		kgo.SASL(scram.Auth{User: login.Name, Pass: login.Password}.AsSha512Mechanism()), kgo.MetadataMinAge(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// produceAndRead proves that a cluster of so many nodes takes records that are kept by all of them, and shows them.
func produceAndRead(t *testing.T, cl *kgo.Client, topic string, nodes int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	adm := kadm.NewClient(cl)
	eventually(t, "all nodes serve", func() bool {
		brokers, err := adm.ListBrokers(ctx)
		return err == nil && len(brokers) == nodes
	})
	if r, err := adm.CreateTopic(ctx, 3, int16(nodes), nil, topic); err != nil || r.Err != nil {
		t.Fatal(err, r.Err)
	}
	for i := range 30 {
		if err := cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: fmt.Append(nil, i)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	ends, err := adm.ListEndOffsets(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	var sum int64
	ends.Each(func(o kadm.ListedOffset) { sum += o.Offset })
	if sum != 30 {
		t.Errorf("%d records are there", sum)
	}
}

// TestSecureThreeNodes proves that one command runs three secured nodes on a machine, and that the lines which it shows are those of clients.
func TestSecureThreeNodes(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "cluster")
	n := upNodes(t, dir, "--secure")
	eventually(t, "the lines are shown", func() bool { return strings.Contains(n.out.String(), "leat topic list") })
	login, err := node.ReadFirstLogin(filepath.Join(dir, "1", "first-login.properties"))
	if err != nil {
		t.Fatal(err)
	}
	produceAndRead(t, securedClient(t, filepath.Join(dir, "1", "ca.pem"), login, n.addrs...), "orders", 3)
	for i := range 3 {
		key := filepath.Join(dir, fmt.Sprint(i+1)+".key")
		if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", key, err)
		}
		if readText(t, key) != readText(t, filepath.Join(dir, "1.key")) {
			t.Errorf("node %d has another sealing key", i+1)
		}
		checkNoSecrets(t, n.out.String(), login.Password, key, filepath.Join(dir, fmt.Sprint(i+1), "node.tls.pem"))
	}
	n.stop(t)
}

// TestSecureJoin proves that two commands make a secured cluster of three nodes: the others join by address and token alone, and are secured themselves from
// their first moment on; that they start again without anything; and that certificates of all are shown and renewed.
func TestSecureJoin(t *testing.T) {
	t.Parallel()
	first, addr := filepath.Join(t.TempDir(), "data"), freeAddr(t)
	ps := []*process{launch(t, first, addr, "--http", "off", "--secure")}
	isSecured := func(p *process) {
		t.Helper()
		eventually(t, "the node says that it is secured", func() bool {
			select {
			case <-p.done:
				t.Fatalf("it has ended: %s", p.out)
			default:
			}
			return strings.Contains(p.out.String(), "his cluster is secured")
		})
	}
	isSecured(ps[0])
	login, err := node.ReadFirstLogin(filepath.Join(first, "first-login.properties"))
	if err != nil {
		t.Fatal(err)
	}
	token := strings.TrimSpace(tryVerb(t, t.TempDir(), "", "cluster token --data "+first).stdout)
	dirs := []string{first}
	for range 2 {
		dir := filepath.Join(t.TempDir(), "data")
		ps, dirs = append(ps, launch(t, dir, freeAddr(t), "--http", "off", "--join", addr, "--token", token)), append(dirs, dir)
	}
	isSecured(ps[1])
	isSecured(ps[2])
	cl := securedClient(t, filepath.Join(dirs[2], "ca.pem"), login, ps[1].addr)
	produceAndRead(t, cl, "orders", 3)
	r := tryVerb(t, t.TempDir(), "", "cert show --data "+dirs[1])
	r.expect(t, 0)
	if strings.Count(r.stdout, "  trusted  ") != 3 {
		t.Errorf("cert show says\n%s", r.stdout)
	}
	for i, p := range ps {
		if ping(p.addr) == nil {
			t.Errorf("node %d serves clients without TLS", i+1)
		}
	}
	for i := range ps { // one after the other
		ps[i].stop(t)
		ps[i] = launch(t, dirs[i], ps[i].addr, "--http", "off")
		isSecured(ps[i])
	}
	produceAndRead(t, securedClient(t, filepath.Join(dirs[0], "ca.pem"), login, ps[0].addr), "again", 3)
	for i, p := range ps {
		checkNoSecrets(t, p.out.String(), login.Password, dirs[i]+".key", filepath.Join(dirs[i], "node.tls.pem"))
	}
}

// TestSealKey proves that two commands replace the sealing key on three nodes while they run, that no key is printed, and that the cluster goes on, also with
// another certificate authority and after a restart.
func TestSealKey(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "cluster")
	n := upNodes(t, dir, "--secure")
	login, err := node.ReadFirstLogin(filepath.Join(dir, "1", "first-login.properties"))
	if err != nil {
		t.Fatal(err)
	}
	keyFile := func(i int) string { return filepath.Join(dir, fmt.Sprint(i)+".key") }
	old := readText(t, keyFile(1))
	var said strings.Builder
	holding := func(line string, code int, wants ...string) {
		t.Helper()
		r := tryVerb(t, dir, "", line+" --data "+filepath.Join(dir, "2"))
		r.expect(t, code)
		said.WriteString(r.stdout + r.stderr)
		for _, want := range wants {
			if !strings.Contains(r.stdout+r.stderr, want) {
				t.Errorf("leat %s says %q, want %q", r.line, r.stdout+r.stderr, want)
			}
		}
	}
	holding("cert seal-key", 0, "which does not seal yet; these nodes have it: 1, 2, 3\n", `"leat cert seal-key --finish" has it seal`)
	both := readText(t, keyFile(1))
	if !strings.Contains(both, lastLine(old)) || lastLine(both) != lastLine(old) || both == old {
		t.Error("the old key does not seal any more, or there is no new one")
	}
	holding("cert seal-key -o json", 0, `"finished": false`)
	holding("cert seal-key --finish", 0, "is the only one, on all nodes")
	fresh := readText(t, keyFile(1))
	for i := 1; i <= 3; i++ {
		if text := readText(t, keyFile(i)); text != fresh || strings.Contains(text, lastLine(old)) {
			t.Errorf("node %d has another key", i)
		}
	}
	holding("cert seal-key --finish -o json", 0, `"finished": true`)
	holding("cert rotate", 0, "there is a new certificate authority")
	eventually(t, "all nodes show certificates that are trusted", func() bool {
		return strings.Count(tryVerb(t, dir, "", "cert show --data "+filepath.Join(dir, "3")).stdout, "  trusted  ") == 3
	})
	produceAndRead(t, securedClient(t, filepath.Join(dir, "1", "ca.pem"), login, n.addrs...), "orders", 3)
	n.stop(t)
	again := upNodes(t, dir)
	produceAndRead(t, securedClient(t, filepath.Join(dir, "1", "ca.pem"), login, again.addrs...), "again", 3)
	again.stop(t)
	for _, text := range []string{said.String(), n.out.String(), again.out.String()} {
		for _, file := range []string{old, both, fresh} {
			for line := range strings.Lines(file) {
				if parts := strings.Split(line, ":"); len(parts) == 3 && strings.Contains(text, parts[2][:20]) {
					t.Error("a sealing key is printed")
				}
			}
		}
	}
}

// lastLine is the last line of a text.
func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}
