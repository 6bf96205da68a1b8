package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/leatstream/leat/internal/auth"
	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/keystore"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/peer"
)

const (
	// watchEvery is how often the files of keys and certificates are looked at, and the configs that name them.
	watchEvery = 2 * time.Second
	// unsettled is how long after a change of a file it is read again even if it looks the same: it may have been changed twice
	// within the precision of its time.
	unsettled = 10 * time.Second
	// renewalDays is how many days before its end the log begins to warn of a certificate, once a day.
	renewalDays = 30
)

// encryption has the keys and certificates of a node's listeners, and those that it uses to connect to other nodes. One goroutine
// watches their files and configs, and replaces what has changed: connections that are open go on with what they had.
type encryption struct {
	listeners []*securedListener // those with TLS
	links     *securedListener   // for connections to other nodes; it is one of listeners if the one for other nodes has TLS
	inter     config.Protocol    // of the listener for other nodes
	// shared are those without TLS that take it, too, once the cluster is secured while it runs; pending until then.
	shared []*securedListener
	// later are the settings that count since then; nil: it is not secured so.
	later atomic.Pointer[config.Static]
	own   *certificates // makes the certificate that the cluster's authority signs; nil: the node is not secured
	image func() *meta.Image
	log   *slog.Logger
}

// securedListener is a listener's key, certificates and options, in three states:
//
//	current --new ones are there--> current, with these
//	   '------new ones are broken--> stale: the old ones are still used, and problem says why
//	stale ----they are mended------> current
//
// That of a secured node is pending, and has none, until the cluster's authority has signed for it the first time: before that the listener does not serve.
type securedListener struct {
	name     string
	protocol config.Protocol
	isServer bool   // it is one that this node listens on
	host     string // that clients are told; "": they are told that to which they have connected
	cluster  string // the file of the certificates of the cluster's own authority; "": the node is not secured
	names    *auth.NameRules

	now     atomic.Pointer[protection]
	problem atomic.Pointer[string] // why new ones are not used; nil: they are

	// These fields belong to the goroutine that watches.
	options tlsOptions
	stamps  string    // of the files when they were read
	read    time.Time // when
	warned  time.Time // when the log has warned of the certificate
}

// protection is what handshakes use at a time. It never changes.
type protection struct {
	server, client *tls.Config
	material       *keystore.Material
}

// prepareEncryption reads the keys and certificates that a node's own listeners need, of which the first is that for other nodes. Without them the
// node does not start. Those that the cluster's authority has not signed yet stay pending.
func prepareEncryption(cfg *Config, own []meta.Listener, image func() *meta.Image, log *slog.Logger) (*encryption, error) {
	static, err := config.NewStatic(0, cfg.Settings) // the node's number is not known yet
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	e := &encryption{image: image, log: log, inter: config.Protocol(own[0].Security)}
	for _, l := range own {
		if p := config.Protocol(l.Security); p.UsesTLS() {
			e.listeners = append(e.listeners, &securedListener{name: l.Name, protocol: p, isServer: true, host: l.Host})
		} else if p == config.Plaintext && !cfg.Secure {
			e.shared = append(e.shared, &securedListener{name: l.Name, protocol: config.SASLSSL, isServer: true, host: l.Host})
		}
	}
	if e.links = e.find(own[0].Name); e.links == nil {
		e.links = &securedListener{name: own[0].Name, protocol: e.inter}
	}
	for _, s := range e.all() {
		if cfg.Secure {
			s.cluster = filepath.FromSlash(path.Join(cfg.Data, trustedFile))
		}
		if err := s.load(static.ForListener(s.name), time.Now()); err != nil && !isPending(cfg, err) {
			return nil, fmt.Errorf("%w: listener %s: %w", ErrConfig, s.name, err)
		}
		if s.names, err = auth.ParseNameRules(static.ForListener(s.name).Text("ssl.principal.mapping.rules")); err != nil {
			return nil, fmt.Errorf("%w: listener %s: %w", ErrConfig, s.name, err)
		}
		s.warn(e.log, time.Now())
	}
	return e, nil
}

// isPending tells whether a listener of a secured node could not be loaded since the cluster's authority has not signed for it yet.
func isPending(cfg *Config, err error) bool {
	return cfg.Secure && errors.Is(err, fs.ErrNotExist)
}

// loadPending loads what was pending.
func (e *encryption) loadPending(static *config.Static) error {
	for _, s := range e.all() {
		if s.now.Load() != nil {
			continue
		}
		if err := s.load(static.ForListener(s.name), time.Now()); err != nil {
			return fmt.Errorf("%w: listener %s: %w", ErrConfig, s.name, err)
		}
		s.warn(e.log, time.Now())
	}
	return nil
}

// loadShared has the shared listeners, and connections to other nodes, use what settings name from now on. cluster is securedListener.cluster.
func (e *encryption) loadShared(static *config.Static, cluster string) error {
	for _, s := range append([]*securedListener{e.links}, e.shared...) {
		s.cluster = cluster
		if err := s.load(e.image().View(static).ForListener(s.name), time.Now()); err != nil {
			return fmt.Errorf("listener %s: %w", s.name, err)
		}
	}
	e.later.Store(static)
	return nil
}

// sharedTLS is what a shared listener's handshakes use. Without a certificate they fail.
func (e *encryption) sharedTLS(listener string) *tls.Config {
	for _, s := range e.shared {
		if p := s.now.Load(); s.name == listener && p != nil {
			return p.server
		}
	}
	return &tls.Config{MinVersion: tls.VersionTLS12}
}

// nameRules are what makes the names of a listener's users of their certificates.
func (e *encryption) nameRules(listener string) *auth.NameRules { return e.find(listener).names }

// certifiedName is the name that a client of a listener is told in place of an address, if it has named no server in its handshake; "": it is
// told the address.
func (e *encryption) certifiedName(listener string, address net.IP) string {
	for _, s := range slices.Concat(e.listeners, e.shared) {
		if c := s.certificate(); s.name == listener && c != nil {
			return nameFor(c, address)
		}
	}
	return ""
}

// nameFor is the name by which a client has most likely reached an address that a certificate does not have: one without a dot, since Java
// names all others in its handshake, and localhost for addresses of the loopback only. "": there is none, or the certificate has the address.
func nameFor(c *x509.Certificate, address net.IP) string {
	if c.VerifyHostname(address.String()) == nil {
		return ""
	}
	const local = "localhost"
	if address.IsLoopback() && slices.Contains(c.DNSNames, local) {
		return local
	}
	for _, name := range c.DNSNames {
		if name != local && !strings.ContainsAny(name, ".*") {
			return name
		}
	}
	return ""
}

// all are the listeners with TLS, and links.
func (e *encryption) all() []*securedListener {
	if e.find(e.links.name) != nil {
		return e.listeners
	}
	return append([]*securedListener{e.links}, e.listeners...)
}

// find finds a listener with TLS; nil: there is none of that name.
func (e *encryption) find(name string) *securedListener {
	for _, s := range e.listeners {
		if s.name == name {
			return s
		}
	}
	return nil
}

// watch looks after files and configs, and makes the steps of securing, until the context ends: step looks whether some
// are due, and is called again when poked says so.
func (e *encryption) watch(ctx context.Context, static *config.Static, step func(ctx context.Context), poked <-chan struct{}) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		step(ctx)
		select {
		case <-poked:
		case now := <-ticker.C:
			e.own.keep(e.image().Authority(), now)
			of, watched := static, e.all()
			if later := e.later.Load(); later != nil {
				of, watched = later, slices.Concat(watched, e.shared)
			}
			for _, s := range watched {
				s.refresh(e.image().View(of).ForListener(s.name), e.log, now)
				s.warn(e.log, now)
			}
		case <-ctx.Done():
			return
		}
	}
}

// refresh reads what has changed, and says so.
func (s *securedListener) refresh(c config.ListenerConfigs, log *slog.Logger, now time.Time) {
	before, had := s.now.Load(), s.problem.Load()
	err := s.load(c, now)
	switch after := s.now.Load(); {
	case err != nil:
		text := err.Error()
		if s.problem.Store(&text); had == nil || *had != text {
			log.Warn("new keys, certificates or settings of TLS are not used, and the old ones stay", "listener", s.name, "err", err)
		}
	case after != before:
		s.warned = time.Time{}
		attrs := []any{"listener", s.name}
		if after.material.Certificate != nil {
			leaf := after.material.Certificate.Leaf
			attrs = append(attrs, "subject", leaf.Subject.String(), "ends", leaf.NotAfter, "serial", leaf.SerialNumber.Text(16))
		}
		log.Info("new keys, certificates or settings of TLS are used from now on", append(attrs, "trusted", len(after.material.Anchors))...)
	case had != nil:
		log.Info("the keys, certificates and settings of TLS are again those that are used", "listener", s.name)
	}
}

// load reads the options and the files, if any has changed. After an error what is used stays.
//
// The certificates of the cluster's own authority are for its clients. A node does not ask other nodes for one of them: it knows them by their keys,
// bound to the connection. So a node that was away while the authority was replaced, or whose clock is wrong, comes back.
func (s *securedListener) load(c config.ListenerConfigs, now time.Time) error {
	options := readTLSOptions(c, s.protocol)
	stamps, newest := stampFiles(options.source.Files())
	isSame := s.now.Load() != nil && options == s.options && stamps == s.stamps
	if isSame && s.read.Sub(newest) > unsettled {
		if s.problem.Load() != nil && stamps == s.stamps {
			s.problem.Store(nil)
		}
		return nil
	}
	material, err := keystore.Read(&options.source, readSmallFile)
	if err != nil {
		return err
	}
	if before := s.now.Load(); before == nil || options != s.options || material.Sum != before.material.Sum {
		p := &protection{material: material}
		if s.isServer {
			if p.server, err = serverTLS(&options, material); err != nil {
				return err
			}
		}
		trusting := material
		if s.cluster != "" && options.source.TrustFile == s.cluster {
			trusting = &keystore.Material{Certificate: material.Certificate}
		}
		if p.client, err = clientTLS(&options, trusting); err != nil {
			return err
		}
		s.now.Store(p)
	}
	s.options, s.stamps, s.read = options, stamps, now
	s.problem.Store(nil)
	return nil
}

// stampFiles is a text that is another one when one of the files has changed, and when the newest was changed.
func stampFiles(paths []string) (stamps string, newest time.Time) {
	for _, path := range paths {
		i, err := os.Stat(path)
		if err != nil {
			stamps += path + ": " + err.Error() + "\n"
			continue
		}
		stamps += fmt.Sprintf("%s: %d %d\n", path, i.Size(), i.ModTime().UnixNano())
		if i.ModTime().After(newest) {
			newest = i.ModTime()
		}
	}
	return stamps, newest
}

// readSmallFile reads a file of keys or certificates.
func readSmallFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	b, err := io.ReadAll(io.LimitReader(f, keystore.MaxFile+1))
	if err == nil && len(b) > keystore.MaxFile {
		err = fmt.Errorf("%s has more than %d bytes", path, keystore.MaxFile)
	}
	return b, err
}

// certificate is the one that is shown; nil: there is none.
func (s *securedListener) certificate() *x509.Certificate {
	if p := s.now.Load(); p != nil && p.material.Certificate != nil {
		return p.material.Certificate.Leaf
	}
	return nil
}

// daysLeft is how many days are left until a certificate ends; below 0: it has ended.
func daysLeft(c *x509.Certificate, now time.Time) float64 { return c.NotAfter.Sub(now).Hours() / 24 }

// warn warns once a day of a certificate that ends soon, is not valid yet, or does not have the name that clients are told.
func (s *securedListener) warn(log *slog.Logger, now time.Time) {
	c := s.certificate()
	if c == nil || now.Sub(s.warned) < 24*time.Hour {
		return
	}
	s.warned = now
	switch left := daysLeft(c, now); {
	case left < 0:
		log.Warn("the certificate of a listener has ended: clients refuse it", "listener", s.name, "ended", c.NotAfter)
	case left < renewalDays:
		log.Warn("the certificate of a listener ends soon: replace its file, which is read again at once", "listener", s.name, "ends", c.NotAfter, "days_left", int(left))
	}
	if now.Before(c.NotBefore) {
		log.Warn("the certificate of a listener is not valid yet: clients refuse it", "listener", s.name, "begins", c.NotBefore)
	}
	if s.host != "" && c.VerifyHostname(s.host) != nil {
		log.Warn("the certificate of a listener does not have the name that clients are told: those that check it refuse it; make one with that name, or tell another one with --advertise",
			"listener", s.name, "told", s.host, "names", c.DNSNames, "addresses", fmt.Sprint(c.IPAddresses))
	}
}

// errNotTLS says that another node was to be reached with TLS, and did not speak it.
var errNotTLS = errors.New("the other end does not speak TLS, as the listener for other nodes does here (inter.broker.listener.name)")

// dialPeer opens a connection to another node, with TLS if that is the protocol of the address. For one that says none it is that of the
// listener which some node has registered there, else that of this node's listener for other nodes.
func (e *encryption) dialPeer(ctx context.Context, network, address string) (net.Conn, error) {
	address, protocol, isKnown := peer.SplitAddress(address)
	if !isKnown {
		protocol = protocolAt(e.image(), address, e.inter)
	}
	nc, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil || !protocol.UsesTLS() {
		return nc, err
	}
	cfg := &tls.Config{InsecureSkipVerify: true} //nolint:gosec // this node joins a secured cluster, and knows nobody yet: see beginTLS
	if p := e.links.now.Load(); p != nil {
		cfg = p.client
	}
	return beginTLS(ctx, nc, cfg, address)
}

// errTLSHandshake is wrapped by the failure of a handshake of TLS with another node.
var errTLSHandshake = errors.New("TLS handshake")

// beginTLS does the handshake of a client. If it checks no certificate, that of the other end is checked against those that the system
// trusts; if that fails, too, the nodes' handshake must be bound to the connection.
func beginTLS(ctx context.Context, nc net.Conn, cfg *tls.Config, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, errors.Join(err, nc.Close())
	}
	cfg = cfg.Clone()
	cfg.ServerName = host
	conn := tls.Client(nc, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = nc.Close() // an error would have no effect
		if head := (tls.RecordHeaderError{}); errors.As(err, &head) {
			return nil, errNotTLS
		}
		return nil, fmt.Errorf("%w: %w", errTLSHandshake, err)
	}
	isChecked := !cfg.InsecureSkipVerify || cfg.VerifyConnection != nil || verifyChain(conn.ConnectionState().PeerCertificates, nil, host) == nil
	if !isChecked {
		return peer.Unverified{Conn: conn}, nil
	}
	return conn, nil
}

// protocolAt is the protocol of the listener that some node has registered for an address; other is that of addresses that none has.
func protocolAt(img *meta.Image, address string, other config.Protocol) config.Protocol {
	for _, b := range img.Brokers {
		for i := range b.Listeners {
			if l := &b.Listeners[i]; net.JoinHostPort(l.Host, strconv.Itoa(int(l.Port))) == address {
				if i == 0 {
					return config.Protocol(img.PeerSecurity(b))
				}
				return config.Protocol(l.Security)
			}
		}
	}
	return other
}

// bindingRule says when a handshake must be bound to a connection with TLS whose certificate is not checked.
type bindingRule int

const (
	bindIfBoth bindingRule = iota // if both ends can: all that is told is who is there
	bindOnWays                    // unless the other end is on this machine
)

// dialUnverified opens a connection to an address with a protocol, and does not check the certificate of the node there. It is for those
// who prove themselves and have the node do so.
func dialUnverified(rule bindingRule) peer.DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		address, protocol, _ := peer.SplitAddress(address)
		nc, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil || !protocol.UsesTLS() {
			return nc, err
		}
		conn, err := beginTLS(ctx, nc, &tls.Config{InsecureSkipVerify: true}, address) //nolint:gosec // see above
		if err != nil {
			return nil, err
		}
		host, _, _ := net.SplitHostPort(address) // beginTLS has done it, too
		if u, ok := conn.(peer.Unverified); ok && (rule == bindIfBoth || isLoopback(host)) {
			return u.Conn, nil
		}
		return conn, nil
	}
}
