package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/meta"
)

// TestSecureStatusSaysWhatIs proves what leat secure says of a cluster in each of its states, and that it promises an end only when nothing else is missing.
func TestSecureStatusSaysWhatIs(t *testing.T) {
	at := time.Date(2026, 12, 1, 10, 0, 0, 0, time.UTC)
	node := func(id int32, ready, answers bool, problem string, noted time.Duration) cluster.NodeSecuring {
		return cluster.NodeSecuring{Node: id, Ready: ready, Answers: answers, Problem: problem, Since: at.Add(-noted), At: at}
	}
	ready := node(1, true, true, "", time.Hour)
	connected := ready
	connected.Plain = []cluster.PlainClient{{ClientID: "old", Host: "10.0.0.1", Last: at.Add(-time.Second), Open: 2}}
	custom := []cluster.ListenerSecurity{{Node: 1, Listener: "OUT", Protocol: "SASL_SSL"}, {Node: 1, Listener: "IN", Protocol: "PLAINTEXT"}}
	const finish = "when no client comes without TLS any more: leat secure --finish"
	for name, c := range map[string]struct {
		answer           cluster.SecureAnswer
		state            string
		plain, encrypted bool
		wants, not       []string
	}{
		"plain":       {cluster.SecureAnswer{}, "plain", true, false, []string{"this cluster is plain"}, nil},
		"all ready":   {cluster.SecureAnswer{State: meta.SecuringOpen, Nodes: []cluster.NodeSecuring{ready}}, "open", true, true, []string{finish + "\n"}, nil},
		"young":       {cluster.SecureAnswer{State: meta.SecuringOpen, Nodes: []cluster.NodeSecuring{ready, node(2, true, true, "", 4*time.Minute)}}, "open", true, true, []string{finish + " (in 6m1s: "}, nil},
		"connected":   {cluster.SecureAnswer{State: meta.SecuringOpen, Nodes: []cluster.NodeSecuring{connected}}, "open", true, true, []string{"old ", " 2 ", " 1s ago"}, []string{"no client is connected"}},
		"a problem":   {cluster.SecureAnswer{State: meta.SecuringOpen, Nodes: []cluster.NodeSecuring{ready, node(2, false, true, "no key", 0)}}, "open", true, false, []string{"node 2: no key"}, []string{finish}},
		"away":        {cluster.SecureAnswer{State: meta.SecuringOpen, Nodes: []cluster.NodeSecuring{ready, node(2, false, false, "it does not answer", 0)}}, "open", true, false, []string{"these nodes must run, or be removed: 2"}, []string{finish}},
		"first start": {cluster.SecureAnswer{Otherwise: cluster.AtFirstStart}, "secured", false, true, []string{"since its first start"}, []string{"plain", "finish"}},
		"by hand":     {cluster.SecureAnswer{Otherwise: cluster.ByHand, Listeners: custom}, "custom", true, true, []string{"by hand", "SASL_SSL", "ACLs do not decide"}, []string{"plain:", "finish"}},
	} {
		s := summarize(&c.answer)
		text := securedStatus(&s, at)
		if s.State != c.state || s.Plain != c.plain || s.Encrypted != c.encrypted {
			t.Errorf("%s: %+v", name, s)
		}
		for _, want := range c.wants {
			if !strings.Contains(text, want) {
				t.Errorf("%s: it says %q, want %q", name, text, want)
			}
		}
		for _, not := range c.not {
			if strings.Contains(text, not) {
				t.Errorf("%s: it says %q, with %q", name, text, not)
			}
		}
	}
}
