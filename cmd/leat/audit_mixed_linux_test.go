package main_test

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestAuditWithEarlierVersion proves that a node records its events also where a node of an earlier version decides all changes and leads the topic of the
// audit log, which it knows as any other topic, and that the chain goes on when that node is upgraded.
func TestAuditWithEarlierVersion(t *testing.T) {
	t.Parallel()
	previous := buildPrevious(t)
	var nodes [2]*machine
	for i := range nodes {
		nodes[i] = &machine{number: i + 1, out: &output{}, addr: keptAddr(t), disk: &disk{dir: t.TempDir()}}
	}
	audited := []string{"--set", "leat.audit.destinations=topic"}
	launchAs(t, nodes[0], previous)
	nodes[0].p.awaitReady(t)
	token, err := exec.CommandContext(t.Context(), previous, "cluster", "token", "--data", nodes[0].data()).Output()
	if err != nil {
		t.Fatal(err)
	}
	launchAs(t, nodes[1], leat, append([]string{"--join", nodes[0].addr, "--token", strings.TrimSpace(string(token))}, audited...)...)
	nodes[1].p.awaitReady(t)
	create := func(node int, topic string) {
		t.Helper()
		cl, err := kgo.NewClient(kgo.SeedBrokers(nodes[node-1].addr))
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		req := kmsg.NewPtrCreateTopicsRequest()
		nt := kmsg.NewCreateTopicsRequestTopic()
		nt.Topic, nt.NumPartitions, nt.ReplicationFactor = topic, 1, 1
		req.Topics, req.TimeoutMillis = append(req.Topics, nt), 20_000
		resp, err := cl.Broker(node).Request(ctx, req) // and not the active controller
		if err != nil {
			t.Fatal(err)
		}
		if err := kerr.ErrorForCode(resp.(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode); err != nil {
			t.Fatal(err)
		}
	}
	shows := func(wants ...string) {
		t.Helper()
		eventually(t, "the audit log has "+strings.Join(wants, ", "), func() bool {
			r := tryVerb(t, t.TempDir(), "", "audit list -b "+nodes[1].addr)
			for _, want := range wants {
				if !strings.Contains(r.stdout, want) {
					return false
				}
			}
			return r.code == 0
		})
		r := tryVerb(t, t.TempDir(), "", "audit verify -b "+nodes[1].addr)
		if r.expect(t, 0); strings.Count(r.stdout, "without a fault") != strings.Count(r.stdout, "events from") {
			t.Error(r.stdout)
		}
	}
	create(2, "made-by-earlier")
	shows("node 2", "topic.created  topic/made-by-earlier  allowed")

	nodes[0].p.stop(t)
	launchAs(t, nodes[0], leat, audited...)
	nodes[0].p.awaitReady(t)
	for node := 1; node <= 2; node++ {
		create(node, fmt.Sprint("made-by-both-", node))
	}
	shows("topic.created  topic/made-by-both-1", "topic.created  topic/made-by-both-2", "audit.started")
}
