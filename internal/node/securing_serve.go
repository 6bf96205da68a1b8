package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/authority"
	"github.com/leatstream/leat/internal/broker"
	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/sealing"
)

const (
	// askSecuringTime is how long another node may take to say how far it is.
	askSecuringTime = 5 * time.Second
	// lookAtSecuring is how often is looked whether nodes are ready.
	lookAtSecuring = 50 * time.Millisecond
	// mostListed is how many clients a refusal names.
	mostListed = 10
)

// Serve serves a request of the holder of the data directory.
func (s *securing) Serve(ctx context.Context, q *cluster.SecureRequest) (a cluster.SecureAnswer, refused *controller.Error, err error) {
	otherwise := s.findOtherwise()
	switch {
	case otherwise != cluster.NotOtherwise && q.Verb == cluster.SecureStatus:
		return s.answerOtherwise(otherwise), nil, nil
	case otherwise == cluster.AtFirstStart && s.isDoneAtStart(q):
		return s.answerOtherwise(otherwise), nil, nil
	case otherwise == cluster.AtFirstStart:
		return a, refuseKey("This cluster was secured at its first start, with the administrator %q: ACLs decide, and nothing else can be chosen.", s.n.secured.super), nil
	}
	switch q.Verb {
	case cluster.SecureBegin:
		refused, err = s.begin(ctx, q)
	case cluster.SecureFinish:
		refused, err = s.finish(ctx, q)
	case cluster.SecureStatus, cluster.SecureSuggest:
	default:
		refused = &controller.Error{Kind: controller.InvalidRequest, Message: fmt.Sprintf("This version of Leat does not know %q.", q.Verb)}
	}
	if refused != nil || err != nil {
		return a, refused, err
	}
	return s.answer(ctx, q.Verb == cluster.SecureSuggest), nil, nil
}

// isDoneAtStart tells whether a cluster that was secured at its first start has all that is asked for.
func (s *securing) isDoneAtStart(q *cluster.SecureRequest) bool {
	return (q.Verb == cluster.SecureBegin || q.Verb == cluster.SecureFinish) && q.Observe == nil && (q.User == "" || q.User == s.n.secured.super)
}

// findOtherwise says how the cluster is secured, if not by this.
func (s *securing) findOtherwise() cluster.SecuredOtherwise {
	n := s.n
	m := n.image.Load()
	if n.secured != nil {
		return cluster.AtFirstStart
	}
	isSecured := func(l meta.Listener) bool { return l.Security != meta.Plaintext }
	isAnySecured := n.authorizer != nil
	for _, b := range m.Brokers {
		isAnySecured = isAnySecured || slices.ContainsFunc(b.Listeners, isSecured)
	}
	if m.Securing() == nil && isAnySecured {
		return cluster.ByHand
	}
	return cluster.NotOtherwise
}

// mostListeners is how many listeners an answer names.
const mostListeners = 100

// answerOtherwise says how a cluster is secured that has other security.
func (s *securing) answerOtherwise(how cluster.SecuredOtherwise) cluster.SecureAnswer {
	n := s.n
	m := n.image.Load()
	a := cluster.SecureAnswer{Otherwise: how, HasACLs: n.authorizer != nil, Nodes: []cluster.NodeSecuring{}}
	if n.secured != nil {
		a.User = n.secured.super
	}
	for _, id := range slices.Sorted(maps.Keys(m.Brokers)) {
		for _, l := range m.Brokers[id].Listeners {
			if len(a.Listeners) < mostListeners {
				a.Listeners = append(a.Listeners, cluster.ListenerSecurity{Node: id, Listener: l.Name, Protocol: config.Protocol(l.Security).String()})
			}
		}
	}
	if own := n.addresses.listenersToRegister(n.listeners); len(own) > 0 {
		a.Address = net.JoinHostPort(own[0].Host, strconv.Itoa(int(own[0].Port)))
	}
	return a
}

// begin makes all steps that are missing until clients can come with TLS and log in.
func (s *securing) begin(ctx context.Context, q *cluster.SecureRequest) (refused *controller.Error, err error) {
	n := s.n
	select {
	case s.beginning <- struct{}{}: // two keys must not be made at once
		defer func() { <-s.beginning }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if g := n.image.Load().Securing(); g == nil {
		if refused, err = s.beginNew(ctx, cmp.Or(q.User, defaultSuperUser)); refused != nil || err != nil {
			return refused, err
		}
	} else if q.User != "" && q.User != g.Super {
		return &controller.Error{Kind: controller.InvalidRequest, Message: fmt.Sprintf("This cluster is secured already, with the administrator %q.", g.Super)}, nil
	}
	s.poke()
	within, cancel := context.WithTimeout(ctx, q.Within)
	defer cancel()
	if !s.awaitReady(within, func(b *meta.Broker) bool { return b.ID == n.id.nodeID }) {
		why := "it has not said why"
		if p := s.problem.Load(); p != nil {
			why = *p
		}
		return refuseKey("This node does not take TLS yet: %s. Run \"leat secure\" again when that is mended; it does what is missing.", why), nil
	}
	s.awaitReady(within, func(b *meta.Broker) bool { return b.State != meta.BrokerFenced }) // the others go on by themselves
	if refused, err = s.makeSuperUser(ctx); refused != nil || err != nil || q.Observe == nil {
		return refused, err
	}
	step := controller.OpenSecuring
	if *q.Observe {
		step = controller.ObserveSecuring
	}
	return n.peers.commands.ChangeSecuring(ctx, &controller.SecuringChange{Step: step})
}

// beginNew makes the sealing key and the authority.
func (s *securing) beginNew(ctx context.Context, super string) (refused *controller.Error, err error) {
	n := s.n
	if !plainName.MatchString(super) {
		return &controller.Error{Kind: controller.InvalidRequest, Message: fmt.Sprintf("The administrator has a name of letters, digits, dots, dashes, underscores and @, and not %q.", super)}, nil
	}
	if refused = controller.CheckSecuring(n.image.Load(), super); refused != nil {
		return refused, nil
	}
	if err := s.checkSettings(); err != nil {
		return &controller.Error{Kind: controller.PolicyViolation, Message: err.Error()}, nil
	}
	file, err := keyFileOf(&n.cfg)
	if err != nil {
		return nil, err
	}
	ring, err := prepareRing(n.fs, file, func() *sealing.Ring {
		ring := sealing.NewRing()
		s.made.Store(new(ring.Newest()))
		return ring
	})
	if err != nil {
		return refuseKey("%v. Then run \"leat secure\" again; nothing was changed.", err), nil
	}
	a, err := authority.Make(ring, n.id.clusterID, time.Now())
	if err != nil {
		return nil, fmt.Errorf("cannot make the certificate authority: %w", err)
	}
	n.loggers.loggerOf(rootLogger).Info("the cluster is secured while it runs: the certificate authority was made", "sealing_key", file)
	return n.peers.commands.ChangeSecuring(ctx, &controller.SecuringChange{Step: controller.BeginSecuring, Authority: &a, KeyID: ring.Newest(), Super: super})
}

// awaitReady waits until all nodes that count are ready; false: until the context ends.
func (s *securing) awaitReady(ctx context.Context, counts func(b *meta.Broker) bool) bool {
	tick := time.NewTicker(lookAtSecuring)
	defer tick.Stop()
	for {
		m := s.n.image.Load()
		isReady := true
		for _, b := range m.Brokers {
			isReady = isReady && (!counts(b) || m.Securing().IsReady(b))
		}
		if isReady {
			return true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
}

// makeSuperUser makes the super user, with the password of first-login.properties.
func (s *securing) makeSuperUser(ctx context.Context) (refused *controller.Error, err error) {
	n := s.n
	g := n.image.Load().Securing()
	if g.HasUser {
		return nil, nil
	}
	login, err := keepFirstLogin(n, g.Super)
	if err != nil {
		return nil, err
	}
	credentials, err := credentialsOf(login)
	if err != nil {
		return nil, err
	}
	if refused, err = n.peers.commands.ChangeSecuring(ctx, &controller.SecuringChange{Step: controller.MakeSuperUser, Credentials: credentials}); refused == nil && err == nil {
		recordFirstUser(n, login.Name)
	}
	return refused, err
}

// listPlain lists the clients that are connected without TLS, or have come so.
func (s *securing) listPlain() (list []cluster.PlainClient, forgotten int64) {
	return s.plain.list(func(yield func(clientID, host string)) { broker.EachPlainClient(s.n.broker, yield) })
}

// finish ends plain connections, unless somebody needs them.
func (s *securing) finish(ctx context.Context, q *cluster.SecureRequest) (refused *controller.Error, err error) {
	if g := s.n.image.Load().Securing(); g != nil && g.State != meta.SecuringFinished {
		nodes := s.askAll(ctx)
		why := describeUnready(nodes)
		if why == "" && !q.Force {
			why = findPlain(nodes, q.Quiet)
		}
		if why != "" {
			return refuseKey("%s", why), nil
		}
	}
	refused, err = s.n.peers.commands.ChangeSecuring(ctx, &controller.SecuringChange{Step: controller.FinishSecuring})
	s.poke()
	return refused, err
}

// describeUnready says which nodes do not take TLS yet, and why; "": all do.
func describeUnready(nodes []cluster.NodeSecuring) string {
	var list []string
	for i := range nodes {
		at := &nodes[i]
		why := at.Problem
		switch {
		case at.Ready:
			continue
		case !at.Answers:
			why += ": start it, or remove one that is gone with \"leat cluster remove\""
		case why == "":
			why = "it is about to: try again in some seconds"
		}
		list = append(list, fmt.Sprintf("node %d (%s)", at.Node, why))
	}
	if len(list) == 0 {
		return ""
	}
	return "Not all nodes take connections with TLS yet, and no force helps: " + strings.Join(list, "; ") + "."
}

// findPlain says who comes without TLS, or has in the last time, and which nodes do not know that for so long yet; "": nobody does, on any node.
func findPlain(nodes []cluster.NodeSecuring, quiet time.Duration) string {
	for i := range nodes {
		if at := &nodes[i]; !at.Answers {
			return fmt.Sprintf("Node %d cannot be asked who comes to it without TLS (%s): start it, or finish all the same with --force.", at.Node, at.Problem)
		}
	}
	var all []string
	if clients := describePlain(nodes, quiet); clients != "" {
		all = append(all, clients)
	}
	if young := describeYoung(nodes, quiet); young != "" {
		all = append(all, young)
	}
	return strings.Join(all, " ")
}

// describePlain says who is connected to nodes without TLS, or has come so in the last time; "": nobody is and has.
func describePlain(nodes []cluster.NodeSecuring, quiet time.Duration) string {
	var list []string
	count := 0
	for i := range nodes {
		at := &nodes[i]
		for _, c := range at.Plain {
			ago := at.At.Sub(c.Last) // by the clock of that node
			if c.Open == 0 && ago >= quiet {
				continue
			}
			if count++; count > mostListed {
				continue
			}
			name, when := strconv.Quote(c.ClientID), max(ago, 0).Round(time.Second).String()+" ago"
			switch {
			case c.Last.IsZero():
				name, when = "a client", "which is connected, and has sent nothing since then"
			case c.Open > 0:
				when = "which is connected"
			}
			list = append(list, fmt.Sprintf("%s from %s, %s, on node %d", name, c.Host, when, at.Node))
		}
	}
	if count == 0 {
		return ""
	}
	if count > mostListed {
		list = append(list, fmt.Sprintf("and %d more", count-mostListed))
	}
	return fmt.Sprintf("These clients are connected without TLS, or have come so in the last %v, and would be locked out: %s. Move them first, or finish all the same with --force; --quiet-for says how long ago is long enough.", quiet, strings.Join(list, "; "))
}

// describeYoung says which nodes do not note for so long yet who comes without TLS, and from when on they have; "": all do.
func describeYoung(nodes []cluster.NodeSecuring, quiet time.Duration) string {
	var list []string
	missing := time.Duration(0)
	for i := range nodes {
		at := &nodes[i]
		noted := time.Duration(0)
		if !at.Since.IsZero() {
			noted = at.At.Sub(at.Since)
		}
		switch {
		case at.Since.IsZero():
			list = append(list, fmt.Sprintf("node %d not at all so far", at.Node))
		case noted < quiet:
			list = append(list, fmt.Sprintf("node %d since %s", at.Node, at.Since.Format(time.TimeOnly+" MST")))
		default:
			continue
		}
		missing = max(missing, quiet-noted, time.Second)
	}
	if len(list) == 0 {
		return ""
	}
	missing = missing.Truncate(time.Second) + time.Second
	return fmt.Sprintf("A client that comes seldom may not have come yet: nodes note who comes without TLS from \"leat secure\" on, anew when they are started again, and not for the %v of --quiet-for yet: %s. %v are missing: try again at %s, give a shorter --quiet-for, or finish all the same with --force.",
		quiet, strings.Join(list, ", "), missing, time.Now().UTC().Add(missing).Format(time.TimeOnly+" MST"))
}

// answer says how far securing is.
func (s *securing) answer(ctx context.Context, withDenied bool) (a cluster.SecureAnswer) {
	n := s.n
	if own := n.addresses.listenersToRegister(n.listeners); len(own) > 0 {
		a.Address = net.JoinHostPort(own[0].Host, strconv.Itoa(int(own[0].Port)))
	}
	if g := n.image.Load().Securing(); g != nil {
		a.State, a.User, a.HasUser = g.State, g.Super, g.HasUser
		login, err := readFirstLogin(n.fs, path.Join(n.cfg.Data, firstLoginFile))
		a.HasLogin = g.HasUser && err == nil && login.Name == g.Super && n.users.CheckPassword(ctx, login.Name, login.Password)
	}
	a.Nodes = s.askAll(ctx)
	for i := range a.Nodes {
		if withDenied {
			a.Denied, a.Uncounted = append(a.Denied, a.Nodes[i].Denied...), a.Uncounted+a.Nodes[i].Uncounted
		}
		a.Nodes[i].Denied = nil
	}
	a.Denied, a.Uncounted = fitDenied(a.Denied, a.Uncounted)
	return a
}

// askAll asks all nodes how far they are.
func (s *securing) askAll(ctx context.Context) []cluster.NodeSecuring {
	ctx, cancel := context.WithTimeout(ctx, askSecuringTime)
	defer cancel()
	m := s.n.image.Load()
	ids := slices.Sorted(maps.Keys(m.Brokers))
	list := make([]cluster.NodeSecuring, len(ids))
	var asking sync.WaitGroup
	for i, id := range ids {
		asking.Go(func() {
			if id == s.n.id.nodeID {
				list[i] = s.Show()
				return
			}
			at, err := cluster.ShowSecuring(ctx, s.n.peers.commands, id)
			if err != nil {
				at = cluster.NodeSecuring{Problem: err.Error()}
				if errors.Is(err, context.DeadlineExceeded) {
					at.Problem = "it does not answer"
				}
			}
			at.Answers = err == nil
			at.Node, at.Ready = id, m.Securing() != nil && m.Securing().IsReady(m.Brokers[id])
			list[i] = at
		})
	}
	asking.Wait()
	return list
}

// Show says how far this node is.
func (s *securing) Show() cluster.NodeSecuring {
	n := s.n
	at := cluster.NodeSecuring{Node: n.id.nodeID, Answers: true, Since: s.plain.begun().UTC(), At: time.Now().UTC()}
	m := n.image.Load()
	if b := m.Brokers[at.Node]; b != nil && m.Securing() != nil {
		at.Ready = m.Securing().IsReady(b)
	}
	if p := s.problem.Load(); p != nil {
		at.Problem = *p
	}
	at.Plain, at.Forgotten = s.listPlain()
	at.Denied, at.Uncounted = s.denied.list()
	return at
}

// credentialsOf are the credentials of a login, for both mechanisms.
func credentialsOf(u BootstrapUser) (list []meta.ScramCredential, err error) {
	for _, m := range []meta.ScramMechanism{meta.ScramSHA256, meta.ScramSHA512} {
		c, err := auth.NewCredential(meta.CredentialOwner{User: u.Name, Mechanism: m}, u.Password, auth.DefaultIterations)
		if err != nil {
			return nil, fmt.Errorf("%w: bootstrap-user: %w", ErrConfig, err)
		}
		list = append(list, c)
	}
	return list, nil
}
