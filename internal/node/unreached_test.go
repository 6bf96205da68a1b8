package node

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/meta"
)

// TestUnreachableNodeWaits proves that a node which joins with an address at which nobody can reach it says so, that its cluster tells of
// it, and that it serves as soon as it can be reached.
func TestUnreachableNodeWaits(t *testing.T) {
	m := newCluster(t, 1)
	address, own := freeAddress(t), freeAddress(t)
	var log lines
	joins := Config{
		Data: t.TempDir(), Listen: []string{own}, HTTP: "off", Advertise: []string{address}, Join: m.ports, Token: m.makeToken(0), Logger: slog.New(slog.NewTextHandler(&log, nil)),
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	started := make(chan error, 1)
	var second *Node
	go func() {
		var err error
		second, err = Start(ctx, joins)
		started <- err
	}()
	eventually(t, "the node says why it waits", func() bool { return strings.Contains(log.String(), "this node stays fenced") })
	says := fmt.Sprintf("node 1, the active controller, cannot reach it at %s, which it has registered", address)
	if text := log.String(); !strings.Contains(text, says) {
		t.Errorf("it says %s", text)
	}
	img, told := m.nodes[0].image.Load(), m.nodes[0].peers.commands.Positions()[2].Unreached
	if !strings.Contains(told, says) || img.Brokers[2] == nil || img.Brokers[2].State != meta.BrokerFenced {
		t.Errorf("the first node tells %q, and has %+v", told, img.Brokers[2])
	}
	select {
	case err := <-started:
		t.Fatalf("it has started, %v", err)
	default:
	}
	way, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer way.Close()
	go forward(way, own)
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	defer stop(t, second)
	eventually(t, "the cluster does not tell of it any more", func() bool {
		return m.nodes[0].image.Load().Brokers[2].State == meta.BrokerActive && m.nodes[0].peers.commands.Positions()[2].Unreached == ""
	})
}

// forward sends the connections of a listener on to an address.
func forward(l net.Listener, to string) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", to)
		if err != nil {
			in.Close()
			continue
		}
		go func() { io.Copy(out, in); out.Close() }()
		go func() { io.Copy(in, out); in.Close() }()
	}
}

// freeAddress is an address of the loopback that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
