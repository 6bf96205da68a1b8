package cluster

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
)

// gateway is an address from which connections are sent on to another one, while it is open.
type gateway struct {
	t       *testing.T
	address string
	l       net.Listener // nil: it is closed
	ends    sync.WaitGroup
}

func newGateway(t *testing.T) *gateway {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	return &gateway{t: t, address: l.Addr().String()}
}

func (g *gateway) open(to string) {
	g.t.Helper()
	l, err := net.Listen("tcp", g.address)
	if err != nil {
		g.t.Fatal(err)
	}
	g.l = l
	g.t.Cleanup(g.close)
	g.ends.Go(func() {
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
			g.ends.Go(func() { io.Copy(out, in); out.Close() })
			g.ends.Go(func() { io.Copy(in, out); in.Close() })
		}
	})
}

func (g *gateway) close() {
	if g.l != nil {
		g.l.Close()
		g.l = nil
	}
}

// applicant is a node whose registrations and heartbeats a test decides on the node of the active controller.
type applicant struct {
	t       *testing.T
	lead    *member
	node    *member
	process byte
	epoch   int64
}

// register registers another process of the node at an address.
func (a *applicant) register(address string) {
	a.t.Helper()
	a.process++
	g := registrationOf(a.node)
	g.Broker.Incarnation, g.PreviousEpoch = meta.UUID{byte(a.node.id), a.process}, a.epoch
	tcp, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		a.t.Fatal(err)
	}
	g.Broker.Listeners[0].Port = int32(tcp.Port)
	if a.lead.meta.image.Load().Brokers[a.node.id] != nil {
		a.lead.local.ProcessEnded(a.lead.ctl.cfg.Now(), a.node.id)
	}
	epoch, refused, err := a.lead.ctl.register().decide(a.t.Context(), g, false)
	if err != nil || refused != nil {
		a.t.Fatal(refused, err)
	}
	a.epoch = epoch
}

func (a *applicant) beat() controller.BeatAnswer {
	a.t.Helper()
	beat := controller.Beat{Registered: controller.Registered{ID: a.node.id, Epoch: a.epoch}, Applied: a.lead.quorum.Applied(), Caught: true}
	answer, refused, err := a.lead.ctl.heartbeat().decide(a.t.Context(), &beat, false)
	if err != nil || refused != nil {
		a.t.Fatal(refused, err)
	}
	return answer
}

// expectFenced proves that the node stays fenced, and is told so.
func (a *applicant) expectFenced(why string) {
	a.t.Helper()
	var answer controller.BeatAnswer
	eventually(a.t, "it is told why it stays fenced", func() bool {
		answer = a.beat()
		return answer.Unreached != "" || !answer.Fenced
	})
	if !answer.Fenced || !strings.Contains(answer.Unreached, why) {
		a.t.Errorf("fenced %v, and it is told %q, which lacks %q", answer.Fenced, answer.Unreached, why)
	}
	if told := a.lead.ctl.Positions()[a.node.id].Unreached; told != answer.Unreached {
		a.t.Errorf("others are told %q", told)
	}
}

func (a *applicant) expectActive() {
	a.t.Helper()
	eventually(a.t, "it is active", func() bool { return !a.beat().Fenced })
	if told := a.lead.ctl.Positions()[a.node.id].Unreached; told != "" {
		a.t.Errorf("it is active, and others are told %q", told)
	}
}

// TestUnreachableNodeStaysFenced proves that a node becomes active only when the node of the active controller has reached it, and no
// other one, at the address that it has registered; that this is asked once for each registration; and that a controller's node which
// reaches nobody keeps nobody fenced.
func TestUnreachableNodeStaysFenced(t *testing.T) {
	w := newWorld(t)
	lead := w.startMembers(1, 1, nil)[0]
	newApplicant := func(id int32) *applicant {
		return &applicant{t: t, lead: lead, node: w.startMember(id, nil, options{}, nil)}
	}
	second, way := newApplicant(2), newGateway(t)
	second.register(way.address)
	second.expectFenced("cannot reach it at " + way.address + ", which it has registered")
	second.register(lead.listener.Addr().String())
	second.expectFenced("node")
	second.register(way.address)
	second.expectFenced(way.address)
	way.open(second.node.listener.Addr().String())
	second.expectActive()

	way.close() // a node that has been reached is not asked again, whatever becomes of it
	if refused, err := lead.local.FenceBroker(t.Context(), 2, second.epoch); refused != nil || err != nil {
		t.Fatal(refused, err)
	}
	second.expectActive()
	// Where there is nobody else to compare it with, its process may start again at the address that was good before, but at no other one.
	second.register(newGateway(t).address)
	second.expectFenced("cannot reach it")
	second.register(way.address)
	second.expectActive()

	third, dead := newApplicant(3), newGateway(t)
	third.register(dead.address) // nobody can be reached: the second node is behind its gateway, too
	third.expectActive()
	way.open(second.node.listener.Addr().String())
	third.register(dead.address)
	third.expectFenced("cannot reach it at " + dead.address)
	dead.open(third.node.listener.Addr().String())
	third.expectActive()
}
