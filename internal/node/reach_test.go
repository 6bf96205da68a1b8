package node

import (
	"errors"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/meta"
)

// TestListenersAreCompared proves which listeners a node may not come back with, since nobody, or only some clients, would
// reach it then, and which are told of.
func TestListenersAreCompared(t *testing.T) {
	const here, remote = "127.0.0.1", "10.0.0.2"
	list := func(host string, names ...string) (all []meta.Listener) {
		for i, name := range names {
			all = append(all, meta.Listener{Name: name, Host: host, Port: int32(9092 + i)})
		}
		return all
	}
	isHere := func(host string) bool { return host == here || host == "10.0.0.1" }
	for name, test := range map[string]struct {
		own, other      []meta.Listener
		warning, refuse string
	}{
		"all on one machine":                      {list(here, "PLAINTEXT"), list(here, "PLAINTEXT"), "", ""},
		"others are here by another address":      {list(here, "PLAINTEXT"), list("10.0.0.1", "PLAINTEXT"), "", ""},
		"others are elsewhere":                    {list(here, "PLAINTEXT"), list(remote, "PLAINTEXT"), "", "start it with --listen :9092"},
		"it can be reached":                       {list("10.0.0.1", "PLAINTEXT"), list(remote, "PLAINTEXT"), "", ""},
		"a listener for this machine alone, too":  {append(list("10.0.0.1", "OUTSIDE"), list(here, "INSIDE")...), list(remote, "INSIDE", "OUTSIDE"), "", ""},
		"no name is shared":                       {list("10.0.0.1", "A", "B"), list(remote, "C"), "", "names of this node's listeners are A, B, and those of node 2 are C"},
		"some names are shared":                   {list("10.0.0.1", "A", "B"), list(remote, "B", "C"), "those of node 2 are B, C", ""},
		"a node that has registered no listeners": {list(here, "A"), nil, "", ""},
		"this node has none":                      {nil, list(remote, "A"), "", ""},
	} {
		m := *meta.Empty()
		m.Brokers = map[int32]*meta.Broker{1: {ID: 1, Listeners: list(remote, "FORMER")}, 2: {ID: 2, Listeners: test.other}}
		warning, err := checkListeners(&m, 1, test.own, isHere)
		if (test.warning == "") != (warning == "") || !strings.Contains(warning, test.warning) {
			t.Errorf("%s: the warning is %q", name, warning)
		}
		if (test.refuse == "") != (err == nil) || err != nil && (!errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), test.refuse)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestThisMachine proves that addresses of this machine are known as such, and that others are not.
func TestThisMachine(t *testing.T) {
	for host, want := range map[string]bool{"localhost": true, "127.0.0.1": true, "::1": true, "192.0.2.1": false, "no-such-host.invalid": true} {
		if got := isThisMachine(t.Context(), host); got != want {
			t.Errorf("%s: %v", host, got)
		}
	}
}
