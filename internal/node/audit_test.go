package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/audit"
	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/vfs"
)

// readAuditTopic reads all events of the topic, in their order.
func readAuditTopic(t *testing.T, cl *kgo.Client) (lines [][]byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, meta.AuditTopic)
	if err != nil {
		return nil
	}
	end, ok := ends.Lookup(meta.AuditTopic, 0)
	if !ok || end.Err != nil || end.Offset == 0 {
		return nil
	}
	seeds := cl.OptValue(kgo.SeedBrokers).([]string)
	reader, err := kgo.NewClient(kgo.SeedBrokers(seeds...), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{meta.AuditTopic: {0: kgo.NewOffset().At(0)}}))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for int64(len(lines)) < end.Offset && ctx.Err() == nil {
		for _, r := range reader.PollFetches(ctx).Records() {
			lines = append(lines, r.Value)
		}
	}
	return lines
}

// auditedBy are the nodes that have recorded events of a type about a resource.
func auditedBy(t *testing.T, lines [][]byte, typ audit.Type, resource string) (nodes []int32) {
	t.Helper()
	for _, b := range lines {
		l, err := audit.ParseLine(b)
		if err != nil {
			t.Fatal(err)
		}
		if l.Type == typ && l.Data.Resource == resource {
			nodes = append(nodes, l.Data.Node)
		}
	}
	return nodes
}

// checkAudit checks the chains of a log of so many nodes.
func checkAudit(t *testing.T, lines [][]byte, nodes int) {
	t.Helper()
	v := audit.NewVerifier()
	for i, b := range lines {
		if err := v.Add(b, fmt.Sprint("offset ", i)); err != nil {
			t.Fatal(err)
		}
	}
	reports := v.Reports()
	if len(reports) != nodes {
		t.Errorf("the log has %d reports, want one for each of %d nodes", len(reports), nodes)
	}
	for _, r := range reports {
		if r.FaultCount > 0 || r.CutAt > 0 {
			t.Errorf("%+v", r)
		}
	}
}

// createOn has a node itself create a topic, whatever node is the active controller.
func createOn(t *testing.T, cl *kgo.Client, node int32, topic string) {
	t.Helper()
	req := kmsg.NewPtrCreateTopicsRequest()
	nt := kmsg.NewCreateTopicsRequestTopic()
	nt.Topic, nt.NumPartitions, nt.ReplicationFactor = topic, 1, -1
	req.Topics, req.TimeoutMillis = append(req.Topics, nt), 20_000
	resp, err := cl.Broker(int(node)).Request(deadline(t), req)
	if err != nil {
		t.Fatal(err)
	}
	if err := kerr.ErrorForCode(resp.(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode); err != nil {
		t.Fatal(err)
	}
}

// TestAuditOfACluster proves that the events of all nodes are in the one topic, each once, whoever leads it and whoever decides; that joins and
// removals are recorded; that the topic is safe from clients; and that the chains hold when its leader stops and comes back.
func TestAuditOfACluster(t *testing.T) {
	m := &machines{t: t, settings: map[string]string{"leat.audit.destinations": "topic"}}
	m.begin(3)
	cl := m.client()
	for node := range int32(3) {
		createOn(t, cl, node+1, fmt.Sprint("topic-of-", node+1))
	}
	var lines [][]byte
	eventually(t, "the events of all nodes are in the topic", func() bool {
		lines = readAuditTopic(t, cl)
		for node := range int32(3) {
			if len(auditedBy(t, lines, audit.TopicCreated, fmt.Sprint("topic-of-", node+1))) == 0 {
				return false
			}
		}
		return len(auditedBy(t, lines, audit.NodeAdmitted, "2")) > 0 && len(auditedBy(t, lines, audit.NodeAdmitted, "3")) > 0
	})
	for node := range int32(3) {
		if got := auditedBy(t, lines, audit.TopicCreated, fmt.Sprint("topic-of-", node+1)); !slices.Equal(got, []int32{node + 1}) {
			t.Errorf("the topic of node %d was recorded by %v, want that node alone", node+1, got)
		}
	}
	checkAudit(t, lines, 3)
	if resp, err := kadm.NewClient(cl).DeleteTopic(deadline(t), meta.AuditTopic); err == nil && resp.Err == nil {
		t.Error("a client has deleted the audit log")
	}
	if err := cl.ProduceSync(deadline(t), &kgo.Record{Topic: meta.AuditTopic, Value: []byte("forged")}).FirstErr(); !errors.Is(err, kerr.InvalidTopicException) {
		t.Errorf("%v, want that a client cannot write to the audit log", err)
	}

	leader := m.nodes[0].image.Load().Topic(meta.AuditTopic).Partitions[0].Leader
	eventually(t, "all nodes have the audit log", func() bool { return inSync(m.nodes[leader-1].image.Load(), meta.AuditTopic, 3) })
	m.stop(int(leader - 1))
	eventually(t, "another node creates a topic", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		resp, err := kadm.NewClient(cl).CreateTopic(ctx, 1, -1, nil, "while-the-leader-is-away")
		return err == nil && (resp.Err == nil || errors.Is(resp.Err, kerr.TopicAlreadyExists))
	})
	m.start(int(leader-1), Config{})
	createOn(t, m.client(), leader, "after-its-return")
	eventually(t, "the events since are in the topic", func() bool {
		lines = readAuditTopic(t, m.client())
		return len(auditedBy(t, lines, audit.TopicCreated, "while-the-leader-is-away")) > 0 && len(auditedBy(t, lines, audit.TopicCreated, "after-its-return")) > 0
	})
	checkAudit(t, lines, 3)
	if r := m.nodes[0].audit.Stats(); len(r) != 1 || r[0].Lost > 0 {
		t.Errorf("%+v", r)
	}
}

// TestAuditFileOfANode proves that a node writes its events into a file also where no authorizer is on, that restarts and a kill continue the chain, and that a
// start is refused whose settings would record less than they say.
func TestAuditFileOfANode(t *testing.T) {
	dir, data := t.TempDir(), t.TempDir()
	file := filepath.Join(dir, "audit.log")
	settings := map[string]string{"leat.audit.destinations": "file", "leat.audit.file": file}
	read := func() [][]byte {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var lines [][]byte
		for l := range strings.SplitSeq(strings.TrimSuffix(string(b), "\n"), "\n") {
			lines = append(lines, []byte(l))
		}
		return lines
	}
	for i := range 3 {
		n := start(t, Config{Data: data, Settings: settings})
		cl := client(t, n)
		createOn(t, cl, 1, fmt.Sprint("t", i))
		stop(t, n)
	}
	lines := read()
	checkAudit(t, lines, 1)
	for i := range 3 {
		if got := auditedBy(t, lines, audit.TopicCreated, fmt.Sprint("t", i)); len(got) != 1 {
			t.Errorf("topic %d was recorded %d times", i, len(got))
		}
	}
	if err := noteRecovery(vfs.OS{}, filepath.ToSlash(data), &Recovery{Entry: 7, Removed: []int32{2, 3}}); err != nil {
		t.Fatal(err)
	}
	n := start(t, Config{Data: data, Settings: settings})
	stop(t, n)
	if lines = read(); len(auditedBy(t, lines, audit.ClusterRecovered, n.id.clusterID)) != 1 {
		t.Error("the recovery of the cluster was not recorded")
	}
	if err := os.Remove(filepath.Join(data, "audit-file.head")); err != nil {
		t.Fatal(err)
	}
	n = start(t, Config{Data: data, Settings: settings})
	stop(t, n)
	v := audit.NewVerifier()
	for _, b := range read() {
		if err := v.Add(b, "x"); err != nil {
			t.Fatal(err)
		}
	}
	if r := v.Reports(); len(r) != 1 || r[0].FaultCount != 1 || !strings.Contains(r[0].Faults[0].Text, "has begun a new chain") {
		t.Errorf("%+v, want that the note was lost", r)
	}
	for want, set := range map[string]map[string]string{
		"leat.audit.file is not set": {"leat.audit.destinations": "file"},
		"write the whole path":       {"leat.audit.destinations": "file", "leat.audit.file": "audit.log"},
		"nothing would be written":   {"leat.audit.file": file},
		"nothing would be recorded":  {"leat.audit.destinations": "topic", "leat.audit.events": ""},
		"Value must be auto, none":   {"leat.audit.destinations": "topic,none"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		n, err := Start(ctx, Config{Data: t.TempDir(), Listen: []string{"127.0.0.1:0"}, HTTP: "off", Settings: set})
		cancel()
		if err == nil {
			stop(t, n)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", set, err, want)
		}
	}
}

// TestCertificatesAreRecorded proves that an event says what was done with certificates, and how far.
func TestCertificatesAreRecorded(t *testing.T) {
	for _, test := range []struct {
		given  cluster.Given
		typ    audit.Type
		about  string
		detail string
	}{
		{cluster.Given{Key: peer.CertificateNote, About: "a1 2027-03-01T00:00:00Z CN=alice smith"}, audit.CertificateIssued, "certificate/CN=alice smith", "[{serial a1} {ends 2027-03-01T00:00:00Z}]"},
		{cluster.Given{Key: peer.AuthoritySet, About: "begun 2"}, audit.AuthorityReplaced, "cluster/id", "[{step begun} {authority 2}]"},
		{cluster.Given{Key: peer.AuthoritySet, About: "finished 2"}, audit.AuthorityReplaced, "cluster/id", "[{step finished} {authority 2}]"},
		{cluster.Given{Key: peer.AuthoritySet, About: "renewed 2"}, audit.CertificatesRenewed, "cluster/id", "[]"},
		{cluster.Given{Key: peer.SealingRotate, About: "begun"}, audit.SealingKeyReplaced, "cluster/id", "[{step begun}]"},
	} {
		var e audit.Event
		describeCertificates(&e, &test.given, "id")
		if about := e.ResourceType + "/" + e.Resource; e.Type != test.typ || about != test.about || fmt.Sprint(e.Details) != test.detail {
			t.Errorf("%s %s: %s %s %v", peer.NameOf(test.given.Key), test.given.About, e.Type, about, e.Details)
		}
	}
}

// TestLinksAreRecorded proves that an event says what was done with a link, and with which of its topics.
func TestLinksAreRecorded(t *testing.T) {
	for about, want := range map[string]string{
		"create north":     "leat.link.created link/north [{step create}]",
		"alter north":      "leat.link.changed link/north [{step alter}]",
		"pause north a,b":  "leat.link.changed link/north [{step pause} {of a,b}]",
		"skip north a 0 7": "leat.link.changed link/north [{step skip} {of a 0 7}]",
		"promote north":    "leat.link.changed link/north [{step promote}]",
		"delete north":     "leat.link.deleted link/north [{step delete}]",
	} {
		var e audit.Event
		describeLink(&e, &cluster.Given{Key: peer.LinksServe, About: about})
		if got := fmt.Sprintf("%s %s/%s %v", e.Type, e.ResourceType, e.Resource, e.Details); got != want {
			t.Errorf("%s: %s, want %s", about, got, want)
		}
	}
}

// TestQuestionsAreNoChanges proves that a command which only asks is not recorded as a change of the cluster's security.
func TestQuestionsAreNoChanges(t *testing.T) {
	for verb, want := range map[cluster.SecureVerb]bool{cluster.SecureStatus: true, cluster.SecureSuggest: true, cluster.SecureBegin: false, cluster.SecureFinish: false} {
		if got := changesNothing(&cluster.Given{Key: peer.Secure, About: string(verb)}); got != want {
			t.Errorf("%s: %v", verb, got)
		}
	}
	if changesNothing(&cluster.Given{Key: peer.TokenMake, About: string(cluster.SecureStatus)}) {
		t.Error("a token of that name is not recorded")
	}
}
