package node

import (
	"slices"
	"testing"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
)

// TestTargets proves at which addresses, and how protected, a node looks for another one: what is registered says how, nothing that was told before
// has a node with TLS dialled without, and what the node itself says now, or the operator, counts beside it.
func TestTargets(t *testing.T) {
	key := credential.PublicKey{2}
	for _, c := range []struct {
		name              string
		registered        []meta.Listener
		met, told, join   []string
		inter             config.Protocol
		isCutOff          bool
		addresses, others []string
	}{
		{"registered", []meta.Listener{{Host: "two", Port: 1, Security: meta.SASLSSL}}, nil, nil, nil, config.SASLSSL, false, []string{"SASL_SSL://two:1"}, nil},
		{
			"met before it had TLS",
			[]meta.Listener{{Host: "two", Port: 1, Security: meta.SSL}},
			[]string{"PLAINTEXT://two:1", "PLAINTEXT://other:1", "SSL://third:1", "fourth:1"},
			nil, nil, config.SSL, false,
			[]string{"SSL://two:1", "SSL://third:1", "SSL://fourth:1"},
			nil,
		},
		{"met, by a version that tells no protocols", []meta.Listener{{Host: "two", Port: 1}}, []string{"two:1", "other:1"}, nil, nil, config.Plaintext, false, []string{"PLAINTEXT://two:1", "other:1"}, nil},
		{
			"it says that it has TLS now",
			[]meta.Listener{{Host: "two", Port: 1}},
			nil,
			[]string{"SSL://two:1"},
			nil, config.Plaintext, false,
			[]string{"PLAINTEXT://two:1"},
			[]string{"SSL://two:1"},
		},
		{
			"it says where it is, by a version that tells no protocols",
			[]meta.Listener{{Host: "two", Port: 1, Security: meta.SSL}},
			nil,
			[]string{"two:1", "two:2"},
			nil, config.SSL, false,
			[]string{"SSL://two:1"},
			[]string{"two:2"},
		},
		{
			"all have got TLS",
			[]meta.Listener{{Host: "two", Port: 1}},
			nil, nil,
			[]string{"PLAINTEXT://two:7", "three:1"},
			config.SASLSSL, true,
			[]string{"PLAINTEXT://two:1"},
			[]string{"PLAINTEXT://two:7", "SASL_SSL://three:1", "SASL_SSL://two:1"},
		},
		{
			"this node has lost TLS",
			[]meta.Listener{{Host: "two", Port: 1, Security: meta.SSL}},
			nil, nil,
			[]string{"two:1", "three:1"},
			config.Plaintext, true,
			[]string{"SSL://two:1"},
			[]string{"three:1"},
		},
		{
			"the operator says that the other one has lost TLS",
			[]meta.Listener{{Host: "two", Port: 1, Security: meta.SSL}},
			nil, nil,
			[]string{"PLAINTEXT://two:1"},
			config.SSL, true,
			[]string{"SSL://two:1"},
			[]string{"PLAINTEXT://two:1"},
		},
	} {
		entry := meta.AppendLevel(nil, meta.LevelFeature, meta.LevelCluster)
		entry = meta.Append(entry, meta.NodeAdmitted{ID: 2, Key: key, Directory: meta.UUID{2}})
		entry = meta.Append(entry, meta.BrokerRegistered{Broker: meta.Broker{ID: 2, Epoch: 1, State: meta.BrokerActive, Listeners: c.registered}})
		img, _, err := meta.Apply(meta.Empty(), entry)
		if err != nil {
			t.Fatal(err)
		}
		p := peers{image: func() *meta.Image { return img }, isCutOff: func() bool { return c.isCutOff }, join: c.join, inter: c.inter}
		p.directory = directory{p.image, []credential.Contact{{NodeID: 2, Key: key, Addresses: c.met}}}
		p.notes.keep(2, 1, &credential.Note{Addresses: c.told})
		target, err := p.findPeer(2)
		if err != nil || !slices.Equal(target.Addresses, c.addresses) || !slices.Equal(target.Others, c.others) {
			t.Errorf("%s: %v and %v, want %v and %v: %v", c.name, target.Addresses, target.Others, c.addresses, c.others, err)
		}
	}
}
