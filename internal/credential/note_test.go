package credential_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/leatstream/leat/internal/credential"
)

// selfWithNote is a node that speaks version 2, and has the metadata log up to an entry.
func (w *world) selfWithNote(id int32, last uint64) credential.Self {
	s := w.self(id)
	s.Versions = credential.Range{Min: 1, Max: 2}
	s.Addresses = []string{"host:9092", strings.Repeat("x", 256)}
	s.Position = func() credential.Position { return credential.Position{Known: last, Applied: last, Last: last} }
	s.Knows = func(credential.PublicKey) bool { return true }
	return s
}

func (w *world) dialWithNote(from, to int32, last uint64, shown credential.Voucher) *credential.Dialler {
	return credential.DialAsNode(w.selfWithNote(from, last), incarnationOf(from), credential.Target{Nodes: w, NodeID: to, Shown: shown, IsLasting: true}, w.random)
}

func (w *world) acceptNote(id int32, last uint64) *credential.Acceptor {
	return credential.NewAcceptor(w.selfWithNote(id, last), w, w.random)
}

// TestNotes proves that an acceptor learns the addresses of a node and how far it is, that no relay can change them, and that
// a node of version 1 on either end goes on without a note.
func TestNotes(t *testing.T) {
	w := newWorld(t)
	o := shake(w.dialWithNote(1, 2, 7, credential.Voucher{}), w.acceptNote(2, 7), w, 1, nil)
	n := o.peer.Note
	if o.dialError != nil || o.acceptError != nil || o.acceptor.Version != 2 || n == nil || !slices.Equal(n.Addresses, []string{"host:9092"}) || n.Voucher.Known() != 7 {
		t.Fatalf("%+v: %v, %v", n, o.dialError, o.acceptError)
	}
	for i := range o.proof {
		w := newWorld(t)
		o := shake(w.dialWithNote(1, 2, 7, n.Voucher), w.acceptNote(2, 7), w, 1, func(name string, b []byte) []byte {
			if name == "proof" {
				b = slices.Clone(b)
				b[i] ^= 1
			}
			return b
		})
		if o.dialError == nil {
			t.Errorf("byte %d of the proof was changed, and the dialler goes on", i)
		}
	}
	for name, o := range map[string]*outcome{
		"an older acceptor": shake(w.dialWithNote(1, 2, 7, n.Voucher), w.accept(2), w, 1, nil),
		"an older dialler":  shake(w.dial(1, 2), w.acceptNote(2, 7), w, 1, nil),
	} {
		if o.dialError != nil || o.acceptError != nil || o.acceptor.Version != 1 || o.peer.Note != nil {
			t.Errorf("%s: version %d, %+v, %v, %v", name, o.acceptor.Version, o.peer.Note, o.dialError, o.acceptError)
		}
	}
}

// TestVouchers proves that a node which is shown that it once had more of the metadata log than now learns it, also from a node
// that it does not know; and that nothing else makes it believe so.
func TestVouchers(t *testing.T) {
	w := newWorld(t)
	voucherOf := func(id int32, epoch uint32, known uint64) credential.Voucher {
		t.Helper()
		self := w.selfWithNote(id, known)
		self.Epoch = epoch
		other := w.selfWithNote(2, 1)
		other.Epoch = epoch
		d := credential.DialAsNode(self, incarnationOf(id), credential.Target{Nodes: w, NodeID: 2, IsLasting: true}, w.random)
		o := shake(d, credential.NewAcceptor(other, w, w.random), w, id, nil)
		if o.acceptError != nil {
			t.Fatal(o.acceptError)
		}
		return o.peer.Note.Voucher
	}
	if v := voucherOf(1, 1, 7); v.Known() != 7 {
		t.Fatal(v)
	}
	{
		d := credential.DialAsNode(w.selfWithNote(1, 7), incarnationOf(1), credential.Target{Nodes: w, NodeID: 2}, w.random)
		if o := shake(d, w.acceptNote(2, 7), w, 1, nil); o.acceptError != nil || o.peer.Note.Voucher.Known() != 0 {
			t.Errorf("it has signed to know a node that may be forgotten: %+v, %v", o.peer.Note, o.acceptError)
		}
	}
	unknown := func() *metadata { return &metadata{map[int32]credential.Member{1: w.nodes[1]}, nil, nil} } // of the time when it was alone
	for _, c := range []struct {
		name    string
		shown   credential.Voucher
		last    uint64
		applied uint64
		knows   *metadata
		back    bool
	}{
		{"it has less", voucherOf(1, 1, 7), 6, 6, &w.metadata, true},
		{"it has less, and does not know who says so", voucherOf(1, 1, 7), 6, 6, unknown(), true},
		{"it has as much", voucherOf(1, 1, 7), 7, 7, &w.metadata, false},
		{"it has as much, and does not know who says so", voucherOf(1, 1, 7), 7, 7, unknown(), true},
		{"it has as much, and has not applied it", voucherOf(1, 1, 7), 7, 6, unknown(), false},
		{"it has no say", voucherOf(1, 1, 7), 0, 6, &w.metadata, false},
		{"another node's", voucherOf(3, 1, 7), 6, 6, &w.metadata, false},
		{"of before a recovery", voucherOf(1, 0, 7), 6, 6, &w.metadata, false},
		{"none", credential.Voucher{}, 6, 6, &w.metadata, false},
	} {
		self := w.selfWithNote(1, c.last)
		self.Position = func() credential.Position {
			return credential.Position{Known: c.applied, Applied: c.applied, Last: c.last}
		}
		self.Knows = func(key credential.PublicKey) bool {
			for _, m := range c.knows.nodes {
				if m.Key == key {
					return true
				}
			}
			return false
		}
		o := shake(w.dialWithNote(2, 1, 9, c.shown), credential.NewAcceptor(self, c.knows, w.random), w, 2, nil)
		var back *credential.WentBackError
		if is := errors.As(o.acceptError, &back); is != c.back || is && (back.Known != 7 || back.Last != c.last) {
			t.Errorf("%s: %v", c.name, o.acceptError)
		}
		if !c.back && c.knows == &w.metadata && o.dialError != nil {
			t.Errorf("%s: the dialler is refused: %v", c.name, o.dialError)
		}
	}
}

// TestForgottenNodeIsToldSo proves that a node which is refused by one that has proven itself is told what that may mean.
func TestForgottenNodeIsToldSo(t *testing.T) {
	w := newWorld(t)
	knows := &metadata{map[int32]credential.Member{1: w.nodes[1]}, nil, nil}
	o := shake(w.dial(2, 1), credential.NewAcceptor(w.self(1), knows, w.random), w, 2, nil)
	if !errors.Is(o.dialError, credential.ErrRefused) || !strings.Contains(o.dialError.Error(), "node 1 answered") || !strings.Contains(o.dialError.Error(), "restored from a copy") {
		t.Error(o.dialError)
	}
}
