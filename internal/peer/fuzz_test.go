package peer_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"io"
	"net"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/wire"
)

// FuzzAccept proves that no bytes make a node that was dialled panic, serve anything without a proof,
// or answer with anything but what a handshake has.
func FuzzAccept(f *testing.F) {
	w := newWorld(f)
	hello, err := w.dialler(1, 2).Hello()
	if err != nil {
		f.Fatal(err)
	}
	join, err := w.joiner().Hello()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(frame(peer.PeerHello, 0, 1, hello))
	f.Add(append(frame(peer.PeerHello, 0, 1, hello), frame(peer.PeerProve, 0, 2, append([]byte{3, 1}, make([]byte, 64)...))...))
	f.Add(append(frame(peer.PeerHello, 0, 1, join), frame(peer.PeerProve, 0, 2, append([]byte{3, 1}, make([]byte, 128)...))...))
	f.Add(frame(peer.Forward, 0, 1, nil))
	f.Add(frame(peer.LastKey, 3, 1, []byte("body")))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := newNode(t, w, func(c *config) {
			c.door.Admit = func(context.Context, credential.Peer) (credential.Welcome, error) {
				t.Error("a peer is proven")
				return credential.Welcome{}, credential.ErrUnavailable
			}
			c.door.Handlers = []peer.Handler{{Key: peer.Forward, From: peer.Nodes | peer.Administrators | peer.Joiners, Serve: func(*peer.Identity, *wire.Request) error {
				t.Error("a request is served")
				return nil
			}}}
		})
		near, far := net.Pipe()
		served := make(chan struct{})
		go func() {
			n.server.ServeConn(far, new(wire.Listener))
			close(served)
		}()
		answers := make(chan []byte, 1)
		go func() {
			b, _ := io.ReadAll(near)
			answers <- b
		}()
		near.Write(b)
		near.Close()
		<-served
		<-answers
		n.kill()
		if n.server.Stats().Panics.Load() != 0 {
			t.Error("a panic")
		}
	})
}

// FuzzDial proves that no bytes of the other end make a dial panic or succeed.
func FuzzDial(f *testing.F) {
	w := newWorld(f)
	d := w.dialler(1, 2)
	hello, err := d.Hello()
	if err != nil {
		f.Fatal(err)
	}
	challenge, err := credential.NewAcceptor(w.self(2), w, rand.Reader).Challenge(hello)
	if err != nil {
		f.Fatal(err)
	}
	answer := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(4+len(challenge))), uint32(peer.PeerHello))
	f.Add(append(answer, challenge...))
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		dial := pipes(func(far net.Conn) {
			go io.Copy(io.Discard, far)
			far.Write(b)
			far.Close()
		})
		if _, err := peer.Dial(t.Context(), "two:9092", w.dialler(1, 2), dial); err == nil {
			t.Error("a stranger is taken for a node")
		}
	})
}

// FuzzAnswers proves that no bytes behind the handshake make a connection panic, and that they end it
// unless they are the answer to the call.
func FuzzAnswers(f *testing.F) {
	w := newWorld(f)
	for _, size := range []uint32{3, 4, 5, 12, 1 << 31, 1 << 20} {
		b := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, size), 1)
		f.Add(append(b, 0, 1, 2, 3, 4, 5, 6, 7))
		f.Add(append(b, 1, 0, 1, 9, 0, 0, 0, 0))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		dial := pipes(func(far net.Conn) {
			defer far.Close()
			c := &raw{t, far}
			if acceptOn(w, c) != nil {
				return
			}
			go io.Copy(io.Discard, far)
			far.Write(b)
		})
		c, err := peer.Dial(t.Context(), "two:9092", w.dialler(1, 2), dial)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		req := kmsg.NewPtrMetadataRequest()
		req.SetVersion(12)
		memory := make([]byte, 64)
		got, err := c.RequestInto(t.Context(), req, memory, 1<<16)
		if err == nil && !bytes.Contains(b, got) {
			t.Errorf("%x is not in %x", got, b)
		}
		<-c.Done()
	})
}
