package meta

import (
	"fmt"
	"time"

	"github.com/leatstream/leat/internal/credential"
)

// Node is a node that was admitted to the cluster, by its key. That is not yet a Broker, which is
// registered at each start of the node.
type Node struct {
	ID        int32
	Key       credential.PublicKey
	Directory UUID // the id of the data directory that has the key
	// Removed tells that the node was removed. The entry stays, since ids are not given again and
	// the node is to be told so.
	Removed bool
	// Ends is when the token ends by which the node was admitted, in ms since 1970; 0: the node has been registered
	// since, or needed no token, or was admitted below LevelAdmission. A node that does not register is forgotten
	// some time after that.
	Ends int64
}

// Token is a join token, without the secret with which a node joins.
type Token struct {
	ID       credential.TokenID
	Key      credential.PublicKey // of the joiner's signature
	Acceptor [32]byte             // the key of the acceptor's MAC
	Expires  int64                // ms since 1970
	Revoked  bool
}

// Verifier is the token as the handshake needs it.
func (t *Token) Verifier() credential.Verifier {
	return credential.Verifier{ID: t.ID, Key: t.Key, Acceptor: t.Acceptor, Expires: time.UnixMilli(t.Expires), Revoked: t.Revoked}
}

// copyNodes gives the step its own maps of nodes and tokens, once a step.
func (s *step) copyNodes() {
	if !s.copied.nodes {
		s.copied.nodes = true
		s.m.Nodes, s.m.Tokens = cloneMap(s.m.Nodes), cloneMap(s.m.Tokens)
	}
	s.delta.Nodes = true
}

func (s *step) admitNode(r NodeAdmitted) error {
	if err := s.requireCluster(); err != nil {
		return err
	}
	if r.ID < 0 || r.Key == (credential.PublicKey{}) {
		return fmt.Errorf("node %d with key %v is admitted", r.ID, r.Key)
	}
	for id, other := range s.m.Nodes {
		if id == r.ID || other.Key == r.Key {
			return fmt.Errorf("node %d is admitted with key %v, and node %d has key %v", r.ID, r.Key, id, other.Key)
		}
	}
	if r.Ends != 0 {
		if err := s.requireLevel(LevelAdmission); err != nil {
			return err
		}
		if r.Ends < 0 || s.m.Brokers[r.ID] != nil {
			return fmt.Errorf("the admission of node %d ends at %d, or it is registered", r.ID, r.Ends)
		}
	}
	s.copyNodes()
	s.m.Nodes[r.ID] = &Node{ID: r.ID, Key: r.Key, Directory: r.Directory, Ends: r.Ends}
	return nil
}

// keepNode notes that a node is registered: its admission does not end any more.
func (s *step) keepNode(id int32) {
	old := s.m.Nodes[id]
	if old == nil || old.Ends == 0 {
		return
	}
	s.copyNodes()
	n := *old
	n.Ends = 0
	s.m.Nodes[id] = &n
}

// forgetNode takes back an admission. The node was never registered, so nothing else has its id.
func (s *step) forgetNode(id int32) error {
	if err := s.requireLevel(LevelAdmission); err != nil {
		return err
	}
	if n := s.m.Nodes[id]; n == nil || n.Removed || n.Ends == 0 {
		return fmt.Errorf("node %d is forgotten, and is not one that was admitted and never registered", id)
	}
	s.copyNodes()
	delete(s.m.Nodes, id)
	return nil
}

// removeNode also revokes all tokens: with what the removed node knows of them it could answer
// joiners as if it were a member.
func (s *step) removeNode(id int32) error {
	if err := s.requireCluster(); err != nil {
		return err
	}
	old := s.m.Nodes[id]
	if old == nil || old.Removed {
		return fmt.Errorf("node %d is removed, and is no member", id)
	}
	s.copyNodes()
	n := *old
	n.Removed = true
	s.m.Nodes[id] = &n
	for id := range s.m.Tokens {
		s.revoke(id)
	}
	return nil
}

func (s *step) makeToken(r TokenMade) error {
	if err := s.requireCluster(); err != nil {
		return err
	}
	if s.m.Tokens[r.ID] != nil || r.Expires < 0 {
		return fmt.Errorf("token %v is made, and there is one already, or it ends at %d", r.ID, r.Expires)
	}
	s.copyNodes()
	s.m.Tokens[r.ID] = &Token{ID: r.ID, Key: r.Key, Acceptor: r.Acceptor, Expires: r.Expires}
	return nil
}

func (s *step) revokeToken(id credential.TokenID) error {
	if err := s.checkToken(id); err != nil {
		return err
	}
	s.copyNodes()
	s.revoke(id)
	return nil
}

func (s *step) forgetToken(id credential.TokenID) error {
	if err := s.checkToken(id); err != nil {
		return err
	}
	s.copyNodes()
	delete(s.m.Tokens, id)
	return nil
}

// checkToken refuses a change of a token that is not there.
func (s *step) checkToken(id credential.TokenID) error {
	if err := s.requireCluster(); err != nil {
		return err
	}
	if s.m.Tokens[id] == nil {
		return fmt.Errorf("token %v is not there", id)
	}
	return nil
}

// revoke revokes a token that is there. The maps are the step's own.
func (s *step) revoke(id credential.TokenID) {
	t := *s.m.Tokens[id]
	t.Revoked = true
	s.m.Tokens[id] = &t
}
