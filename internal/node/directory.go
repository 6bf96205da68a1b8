package node

import (
	"slices"

	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
)

// directory is the metadata as the handshakes with other nodes need them.
type directory struct {
	image func() *meta.Image
	// members are those of which a node has heard when it joined. It knows the cluster by them until
	// it has the metadata.
	members []credential.Contact
}

var _ credential.Directory = directory{}

// FindNode returns a node, also one that was removed. The metadata do not tell which process of it
// is running: a second one is refused when it registers.
func (d directory) FindNode(id int32) (credential.Member, bool) {
	if n := d.image().Nodes[id]; n != nil {
		return credential.Member{Key: n.Key, Removed: n.Removed}, true
	}
	if c := d.findContact(id); c != nil {
		return credential.Member{Key: c.Key}, true
	}
	return credential.Member{}, false
}

// knowsKey tells whether a node has a key in the metadata, or had it. The metadata must never forget one that was registered: see
// credential.Voucher.
func (d directory) knowsKey(key credential.PublicKey) bool {
	for _, n := range d.image().Nodes {
		if n.Key == key {
			return true
		}
	}
	return false
}

// findContact finds a member by the list of the join, if there are no metadata yet.
func (d directory) findContact(id int32) *credential.Contact {
	if len(d.image().Nodes) > 0 {
		return nil
	}
	return d.findMet(id)
}

// findMet finds what a node knew of a member when it joined.
func (d directory) findMet(id int32) *credential.Contact {
	at := slices.IndexFunc(d.members, func(c credential.Contact) bool { return c.NodeID == id })
	if at < 0 {
		return nil
	}
	return &d.members[at]
}

// FindAgentToken returns a token for an agent of a link. One that was revoked is not there any more.
func (d directory) FindAgentToken(id credential.TokenID) (credential.Verifier, bool) {
	_, a := d.image().Links().FindAgent(id)
	if a == nil {
		return credential.Verifier{}, false
	}
	return a.Verifier(), true
}

// FindToken returns a token that is still kept.
func (d directory) FindToken(id credential.TokenID) (credential.Verifier, bool) {
	t := d.image().Tokens[id]
	if t == nil {
		return credential.Verifier{}, false
	}
	return t.Verifier(), true
}
