package node

import (
	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
)

// directory is the metadata as the handshakes with other nodes need them.
type directory struct{ image func() *meta.Image }

var _ credential.Directory = directory{}

// FindNode returns a node, also one that was removed. The metadata do not tell which process of it
// is running: a second one is refused when it registers.
func (d directory) FindNode(id int32) (credential.Member, bool) {
	n := d.image().Nodes[id]
	if n == nil {
		return credential.Member{}, false
	}
	return credential.Member{Key: n.Key, Removed: n.Removed}, true
}

// FindToken returns a token that is still kept.
func (d directory) FindToken(id credential.TokenID) (credential.Verifier, bool) {
	t := d.image().Tokens[id]
	if t == nil {
		return credential.Verifier{}, false
	}
	return t.Verifier(), true
}
