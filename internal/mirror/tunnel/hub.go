package tunnel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/wire"
)

// otherTime is how long an agent may take to reach a broker, before another one is tried.
const otherTime = 3 * time.Second

var (
	// ErrNoAgent is returned by a dial if no agent of the link is connected to this node.
	ErrNoAgent = errors.New("no agent of the link is connected to this node")
	// ErrRefused is returned by a dial if the agent does not dial the address.
	ErrRefused = errors.New("the agent does not dial this address")
	// errReplaced ends the connection of an agent that has come again.
	errReplaced = errors.New("the agent has connected again")
	errNoLink   = errors.New("the token of the agent is for no link any more")
	errOpened   = errors.New("the agent has opened a stream, which only nodes do")
	errStopped  = errors.New("the node is stopping")
)

// HubConfig is what a Hub works with.
type HubConfig struct {
	Logger *slog.Logger // nil: nothing is logged
	// Find finds the link of a token; false: the token is for none.
	Find func(token credential.TokenID) (link meta.UUID, ok bool)
	// Nodes lists the nodes of the cluster as an agent reaches them that has come to a listener of this node.
	Nodes func(listener string) []Node
}

// Hub has the agents that are connected to a node. It must be closed, when no connection is served any more.
type Hub struct {
	cfg  HubConfig
	work sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	closed bool
	agents map[*wire.Conn]*agentConn
}

// agentConn is the connection of an agent.
type agentConn struct {
	conn     *wire.Conn
	end      *nodeEnd
	mux      *yamux.Session
	link     meta.UUID
	token    credential.TokenID
	name     string
	listener string
	since    time.Time
	changed  chan struct{} // of size 1; filled: the nodes may be others

	mu      sync.Mutex // guards the fields below
	problem string     // why a broker was not reached, the last time that one was not; "": all were since
	at      time.Time
}

// AgentStatus tells of an agent that is connected to this node.
type AgentStatus struct {
	Token     credential.TokenID
	Name      string
	Remote    string
	Since     time.Time
	Streams   int       // connections to brokers
	Problem   string    // why the last broker was not reached that it should dial; "": it was
	ProblemAt time.Time // zero: there was none
}

// NewHub makes a Hub without agents.
func NewHub(cfg HubConfig) *Hub {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Hub{cfg: cfg, agents: map[*wire.Conn]*agentConn{}}
}

// Handler serves what agents send.
func (h *Hub) Handler() peer.Handler {
	return peer.Handler{Key: peer.AgentBytes, From: peer.Agents, Serve: h.serve}
}

func (h *Hub) serve(id *peer.Identity, r *wire.Request) error {
	h.mu.Lock()
	a := h.agents[r.Conn]
	h.mu.Unlock()
	if a != nil {
		return a.end.receive(r)
	}
	return h.open(id, r)
}

// open begins what goes over a connection.
func (h *Hub) open(id *peer.Identity, r *wire.Request) error {
	said, err := parseHello(r.Body())
	if err != nil {
		return err
	}
	link, ok := h.cfg.Find(id.Token)
	if !ok {
		return errNoLink
	}
	r.Conn.SetMaxFrame(2 * mostBytes)
	a := &agentConn{
		conn: r.Conn, end: newNodeEnd(), link: link, token: id.Token, name: said.Name, listener: r.Conn.ListenerName(), since: time.Now(), changed: make(chan struct{}, 1),
	}
	if a.mux, err = yamux.Client(a.end, muxConfig()); err != nil {
		return err
	}
	replaced, err := h.add(a)
	if err != nil {
		return errors.Join(err, a.end.Close(), a.mux.Close())
	}
	for _, o := range replaced {
		o.conn.Close(errReplaced)
	}
	h.cfg.Logger.Info("an agent is connected", "link", link.String(), "token", a.token.String(), "agent", a.name, "address", r.Conn.RemoteAddr().String())
	p := r.Begin()
	p.B = append(p.B, (&hello{Version: protocolVersion}).encode()...)
	r.Send(p)
	return nil
}

// add adds an agent, and begins what goes on with it. It returns the connections that the same agent had before.
func (h *Hub) add(a *agentConn) (replaced []*agentConn, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errStopped
	}
	for _, o := range h.agents {
		if o.token == a.token {
			replaced = append(replaced, o)
		}
	}
	h.agents[a.conn] = a
	a.changed <- struct{}{} // it has room
	h.work.Go(func() { h.watch(a) })
	h.work.Go(func() { h.tellNodes(a) })
	h.work.Go(func() {
		if _, err := a.mux.AcceptStream(); err == nil {
			a.conn.Close(errOpened)
		}
	})
	return replaced, nil
}

// watch ends what goes over a connection with it, and the connection when yamux has ended.
func (h *Hub) watch(a *agentConn) {
	select {
	case <-a.conn.Context().Done():
	case <-a.mux.CloseChan():
		a.conn.Close(errEnded)
	}
	h.mu.Lock()
	delete(h.agents, a.conn)
	h.mu.Unlock()
	_ = a.end.Close()
	_ = a.mux.Close() // which has no error
	h.cfg.Logger.Info("an agent is not connected any more", "link", a.link.String(), "token", a.token.String(), "agent", a.name)
}

// tellNodes tells an agent which nodes there are, when they have changed.
func (h *Hub) tellNodes(a *agentConn) {
	var told []Node
	for {
		select {
		case <-a.changed:
		case <-a.mux.CloseChan():
			return
		}
		nodes := h.cfg.Nodes(a.listener)
		if slices.EqualFunc(nodes, told, func(a, b Node) bool { return a.ID == b.ID && slices.Equal(a.Addresses, b.Addresses) }) {
			continue
		}
		s, err := a.mux.OpenStream()
		if err == nil {
			err = errors.Join(writeNodes(s, nodes), s.Close())
		}
		if err != nil { // the connection is ending
			return
		}
		told = nodes
	}
}

// NoteNodes takes that the nodes of the cluster may be others. It does not wait.
func (h *Hub) NoteNodes() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range h.agents {
		select {
		case a.changed <- struct{}{}:
		default:
		}
	}
}

// list lists the agents of a link, those with the fewest streams first.
func (h *Hub) list(link meta.UUID) []*agentConn {
	h.mu.Lock()
	list := slices.DeleteFunc(slices.Collect(maps.Values(h.agents)), func(a *agentConn) bool { return a.link != link })
	h.mu.Unlock()
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	slices.SortStableFunc(list, func(a, b *agentConn) int { return cmp.Compare(a.mux.NumStreams(), b.mux.NumStreams()) })
	return list
}

// Dial connects to a broker of the source of a link, by one of its agents.
func (h *Hub) Dial(ctx context.Context, link meta.UUID, address string) (net.Conn, error) {
	list := h.list(link)
	if len(list) == 0 {
		return nil, ErrNoAgent
	}
	var failed error
	for i, a := range list {
		c, err := dialWithin(ctx, a, address, i < len(list)-1)
		if err == nil {
			return c, nil
		}
		failed = errors.Join(failed, fmt.Errorf("by the agent %s: %w", a.name, err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, failed
}

// dialWithin connects to a broker by an agent, and does not wait for it for long if there is another one: it may be dead, which is not known yet.
func dialWithin(ctx context.Context, a *agentConn, address string, hasOther bool) (net.Conn, error) {
	if hasOther {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, otherTime)
		defer cancel()
	}
	return a.dial(ctx, address)
}

// dial connects to a broker.
func (a *agentConn) dial(ctx context.Context, address string) (net.Conn, error) {
	s, err := a.mux.OpenStream()
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.SetDeadline(time.Unix(1, 0)) }) // which has no error
	err = askForBroker(s, address)
	if !stop() && err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err == nil {
		err = s.SetDeadline(time.Time{})
	}
	a.noteDial(address, err)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// askForBroker asks the agent for a connection to a broker.
func askForBroker(s net.Conn, address string) error {
	if len(address) > mostAddress {
		return fmt.Errorf("%w: it has %d bytes", ErrRefused, len(address))
	}
	if err := writeText(s, dialStream, address); err != nil {
		return err
	}
	o, err := readByte(s)
	if err != nil {
		return err
	}
	text, err := readText(s, mostText)
	switch {
	case err != nil:
		return err
	case outcome(o) == outcomeRefused:
		return fmt.Errorf("%w: %s", ErrRefused, text)
	case outcome(o) != outcomeDone:
		return errors.New(text)
	}
	return nil
}

// noteDial notes how a dial has ended, for people.
func (a *agentConn) noteDial(address string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.problem = ""; err != nil {
		a.problem, a.at = fmt.Sprintf("%s: %v", address, err), time.Now()
	}
}

// Status tells of the agents of a link that are connected to this node, the one that has been connected for longest first.
func (h *Hub) Status(link meta.UUID) (list []AgentStatus) {
	for _, a := range h.list(link) {
		a.mu.Lock()
		list = append(list, AgentStatus{
			Token: a.token, Name: a.name, Remote: a.conn.RemoteAddr().String(), Since: a.since, Streams: a.mux.NumStreams(), Problem: a.problem, ProblemAt: a.at,
		})
		a.mu.Unlock()
	}
	slices.SortFunc(list, func(a, b AgentStatus) int { return a.Since.Compare(b.Since) })
	return list
}

// Close ends all connections of agents, and waits for what goes over them.
func (h *Hub) Close() {
	h.mu.Lock()
	h.closed = true
	list := slices.Collect(maps.Values(h.agents))
	h.mu.Unlock()
	for _, a := range list {
		a.conn.Close(errStopped)
	}
	h.work.Wait()
}
