package tunnel

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/peer"
)

const (
	// retryFirst and retryMost are the pauses between attempts to reach a node.
	retryFirst = 100 * time.Millisecond
	retryMost  = 5 * time.Second
	// dialTime is how long a broker may take to accept a connection, and headTime how long a node may take to say what a stream is for.
	dialTime = 10 * time.Second
	headTime = 10 * time.Second
	// mostStreams is how many streams one connection has. More are refused.
	mostStreams = 1024
	// mostKnown is how many nodes of a cluster an agent dials.
	mostKnown = 256
)

// AgentConfig is what an Agent works with.
type AgentConfig struct {
	Token    credential.Token
	Key      credential.NodeKey // of this agent alone; it is kept with the token
	Versions credential.Range   // of the protocol between nodes
	Name     string             // of this agent, for people
	Nodes    []string           // addresses of some nodes of the cluster that mirrors, PROTOCOL://host:port
	// Dial reaches nodes.
	Dial peer.DialFunc
	// DialBroker reaches brokers; nil: a net.Dialer does.
	DialBroker func(ctx context.Context, network, address string) (net.Conn, error)
	Reach      *Reach
	Logger     *slog.Logger
}

// Agent carries the connections of nodes to the brokers of a source.
type Agent struct {
	cfg    AgentConfig
	cancel context.CancelCauseFunc
	work   sync.WaitGroup
	start  func(run func(ctx context.Context))

	mu      sync.Mutex // guards the fields below
	nodes   map[int32]*knownNode
	keeping map[int32]bool // the nodes for which keep runs
	live    map[int32]int  // connections by node
	changed chan struct{}  // closed when anything of this has changed
}

// knownNode is a node that the agent dials.
type knownNode struct {
	addresses []string
	reached   string // the address at which it was reached last, which it need not have told; "": none
}

// Run carries connections until ctx ends, or the cluster refuses the agent for good.
func Run(ctx context.Context, cfg *AgentConfig) error {
	a := &Agent{cfg: *cfg, nodes: map[int32]*knownNode{}, keeping: map[int32]bool{}, live: map[int32]int{}, changed: make(chan struct{})}
	if a.cfg.DialBroker == nil {
		a.cfg.DialBroker = (&net.Dialer{Timeout: dialTime, KeepAlive: 30 * time.Second}).DialContext
	}
	ctx, a.cancel = context.WithCancelCause(ctx)
	defer a.cancel(nil)
	a.start = func(run func(ctx context.Context)) { a.work.Go(func() { run(ctx) }) }
	a.start(a.cfg.Reach.run)
	a.seek(ctx)
	a.work.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// isFinal tells whether it is of no use to try again after an error.
func isFinal(err error) bool {
	for _, final := range []error{credential.ErrForeignCluster, credential.ErrVersion, credential.ErrTokenUsed, credential.ErrAgentTokenExpired} {
		if errors.Is(err, final) {
			return true
		}
	}
	return false
}

// seek dials the nodes that were named while no other one is reached.
func (a *Agent) seek(ctx context.Context) {
	b := backoff{}
	said := ""
	for ctx.Err() == nil {
		if !a.await(ctx, func() bool { return len(a.live) == 0 }) {
			return
		}
		var failed error
		for _, address := range a.cfg.Nodes {
			c, err := a.connect(ctx, address)
			if err == nil {
				said = ""
				b.reset()
				a.noteLive(c, address)
				a.start(func(ctx context.Context) { a.serve(ctx, c, address) })
				break
			}
			failed = errors.Join(failed, err)
			if isFinal(err) {
				a.cancel(err)
				return
			}
		}
		if text := fmt.Sprint(failed); failed != nil && text != said && ctx.Err() == nil {
			said = text
			a.cfg.Logger.Warn("no node of the cluster that mirrors is reached; it is tried again until one is", "err", failed)
		}
		b.sleep(ctx)
	}
}

// keep keeps a connection to a node that the cluster has told of, until it tells of it no more.
func (a *Agent) keep(ctx context.Context, id int32) {
	b := backoff{}
	said := ""
	for {
		if !a.await(ctx, func() bool { return a.live[id] == 0 || a.nodes[id] == nil }) {
			return
		}
		if a.leave(id) {
			return
		}
		addresses := a.addressesOf(id)
		var failed error
		for _, address := range addresses {
			c, err := a.connect(ctx, address)
			if err == nil {
				said = ""
				b.reset()
				a.noteLive(c, address)
				a.serve(ctx, c, address)
				failed = nil
				break
			}
			failed = errors.Join(failed, err)
			if isFinal(err) {
				a.cancel(err)
				return
			}
		}
		if text := fmt.Sprint(failed); failed != nil && text != said && ctx.Err() == nil {
			said = text
			a.cfg.Logger.Warn("a node of the cluster that mirrors is not reached; it is tried again until it is", "node", id, "err", failed)
		}
		b.sleep(ctx)
	}
}

// connect dials a node.
func (a *Agent) connect(ctx context.Context, address string) (*peer.Conn, error) {
	return peer.Dial(ctx, address, credential.DialAsAgent(a.cfg.Token, a.cfg.Versions, a.cfg.Key, rand.Reader), a.cfg.Dial)
}

// await waits for a condition, of what mu guards; false: ctx has ended.
func (a *Agent) await(ctx context.Context, ok func() bool) bool {
	for {
		a.mu.Lock()
		is, changed := ok(), a.changed
		a.mu.Unlock()
		if is {
			return ctx.Err() == nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// change changes what mu guards.
func (a *Agent) change(do func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	do()
	close(a.changed)
	a.changed = make(chan struct{})
}

// leave notes that keep ends for a node that is none any more; false: it is one.
func (a *Agent) leave(id int32) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.nodes[id] != nil {
		return false
	}
	delete(a.keeping, id)
	return true
}

// addressesOf are the addresses of a node; none: it is none any more.
func (a *Agent) addressesOf(id int32) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := a.nodes[id]
	switch {
	case n == nil:
		return nil
	case n.reached == "" || slices.Contains(n.addresses, n.reached):
		return slices.Clone(n.addresses)
	}
	return append([]string{n.reached}, n.addresses...)
}

// learn takes which nodes there are. The last ones are kept if none is told.
func (a *Agent) learn(list []Node) {
	if len(list) == 0 {
		return
	}
	var added []int32
	a.change(func() {
		told := map[int32]bool{}
		for i := range list[:min(len(list), mostKnown)] {
			n := &list[i]
			told[n.ID] = true
			if a.nodes[n.ID] == nil {
				a.nodes[n.ID] = &knownNode{}
			}
			if !a.keeping[n.ID] {
				a.keeping[n.ID] = true
				added = append(added, n.ID)
			}
			a.nodes[n.ID].addresses = n.Addresses
		}
		for id := range a.nodes {
			if !told[id] {
				delete(a.nodes, id)
			}
		}
	})
	for _, id := range added {
		a.start(func(ctx context.Context) { a.keep(ctx, id) })
	}
}

// noteLive notes that there is a connection to a node. It is served next.
func (a *Agent) noteLive(c *peer.Conn, address string) {
	id := c.Session().Peer.NodeID
	a.change(func() {
		a.live[id]++
		if a.nodes[id] != nil {
			a.nodes[id].reached = address
		}
	})
}

// serve serves a connection to a node until it ends.
func (a *Agent) serve(ctx context.Context, c *peer.Conn, address string) {
	id := c.Session().Peer.NodeID
	err := a.serveStreams(ctx, c)
	a.change(func() {
		if a.live[id]--; a.live[id] == 0 {
			delete(a.live, id)
		}
	})
	if ctx.Err() == nil {
		a.cfg.Logger.Warn("the connection to a node of the cluster that mirrors has ended; it is dialled again", "node", id, "address", address, "err", err)
	}
}

// serveStreams serves what a node asks for.
func (a *Agent) serveStreams(ctx context.Context, c *peer.Conn) error {
	greeting, cancel := context.WithTimeout(ctx, headTime)
	answer, err := c.CallInto(greeting, peer.AgentBytes, (&hello{Version: protocolVersion, Name: a.cfg.Name}).encode(), nil, mostHello)
	cancel()
	if err == nil {
		_, err = parseHello(answer)
	}
	if err != nil {
		c.Close()
		return err
	}
	a.cfg.Logger.Info("connected to a node of the cluster that mirrors", "node", c.Session().Peer.NodeID)
	end := newAgentEnd(ctx, c)
	mux, err := yamux.Server(end, muxConfig())
	if err != nil {
		return errors.Join(err, end.Close())
	}
	stop := context.AfterFunc(ctx, func() { _ = mux.Close() }) // which has no error
	defer stop()
	var handlers sync.WaitGroup
	places := make(chan struct{}, mostStreams)
	for {
		s, err := mux.AcceptStream()
		if err != nil {
			break
		}
		select {
		case places <- struct{}{}:
			handlers.Go(func() {
				a.serveStream(ctx, s)
				<-places
			})
		default:
			_ = s.Close() // an error would have no effect
		}
	}
	why := end.why()
	_ = mux.Close()
	handlers.Wait()
	return why
}

// serveStream serves one stream.
func (a *Agent) serveStream(ctx context.Context, s net.Conn) {
	defer s.Close() //nolint:errcheck // an error would have no effect
	_ = s.SetReadDeadline(time.Now().Add(headTime))
	kind, err := readByte(s)
	switch {
	case err != nil:
	case kind == nodesStream:
		if nodes, err := readNodes(s); err == nil {
			a.learn(nodes)
		}
	case kind == dialStream:
		address, err := readText(s, mostAddress)
		if err != nil {
			return
		}
		_ = s.SetReadDeadline(time.Time{})
		a.carry(ctx, s, address)
	}
}

// carry connects a stream with a broker.
func (a *Agent) carry(ctx context.Context, s net.Conn, address string) {
	answer := func(o outcome, text string) error {
		return writeText(s, byte(o), strings.ToValidUTF8(text[:min(len(text), mostText)], ""))
	}
	if err := a.cfg.Reach.Allow(ctx, address); err != nil {
		a.cfg.Logger.Warn("a node has asked for an address that is not dialled", "address", address)
		_ = answer(outcomeRefused, err.Error())
		return
	}
	dialling, cancel := context.WithTimeout(ctx, dialTime)
	broker, err := a.cfg.DialBroker(dialling, "tcp", address)
	cancel()
	if err != nil {
		_ = answer(outcomeFailed, err.Error())
		return
	}
	if err := answer(outcomeDone, ""); err != nil {
		_ = broker.Close()
		return
	}
	join(ctx, s, broker)
}

// join copies between two connections until either has ended, and closes both.
func join(ctx context.Context, a, b net.Conn) {
	end := func() {
		_ = a.Close() // an error would have no effect
		_ = b.Close()
	}
	stop := context.AfterFunc(ctx, end)
	defer stop()
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(struct{ io.Writer }{b}, struct{ io.Reader }{a})
		end()
	})
	_, _ = io.Copy(struct{ io.Writer }{a}, struct{ io.Reader }{b})
	end()
	back.Wait()
}

// backoff is the pauses between attempts.
type backoff struct{ last time.Duration }

func (b *backoff) reset() { b.last = 0 }

// sleep waits, each time for longer, until ctx ends.
func (b *backoff) sleep(ctx context.Context) {
	b.last = min(max(2*b.last, retryFirst), retryMost)
	t := time.NewTimer(time.Duration(float64(b.last) * (0.5 + mathrand.Float64()/2)))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
