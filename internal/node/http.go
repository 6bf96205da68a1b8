package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/leatstream/leat/internal/weblogin"
)

// admin is the HTTP server of a node, for health, metrics and profiles.
type admin struct {
	server    *http.Server
	addr      string
	isExposed bool                           // other machines reach the address
	elsewhere string                         // why it is not on the default address; "": it is, or another one was asked for
	ready     atomic.Bool                    // the node has started and does not stop yet
	pages     atomic.Pointer[statePages]     // nil while there is nothing to measure yet
	login     atomic.Pointer[weblogin.Login] // who may see the pages; nil: everybody
	hosts     atomic.Pointer[[]string]       // further names by which a loopback address may be asked; nil: none
	done      chan error                     // the result of Serve; buffered
	cancel    func()                         // ends requests that take long, such as profiles
}

const (
	readHeaderTimeout = 5 * time.Second
	readBodyTimeout   = 5 * time.Second // nothing here has a body, but the server reads one before it answers
	idleTimeout       = 2 * time.Minute
	writeTimeout      = 10 * time.Minute // a client may ask for a profile or a trace of some minutes
	maxHeaderBytes    = 64 << 10
	maxProfiles       = 2 // at a time
)

// openHTTP serves health, metrics and profiles.
func (n *Node) openHTTP(ctx context.Context) (err error) {
	n.admin, err = openAdmin(ctx, adminConfig{
		addr: n.cfg.HTTP, conns: n.descriptors.http, isClosed: n.cfg.Secure || n.securing.kept.Load() != nil || len(n.cfg.Join) > 0, encrypted: httpTLS(n),
		log: n.loggers.loggerOf("wire"), health: n.checkHealth,
	})
	if _, own := n.addresses.findOverlap(DefaultHTTP); own && err == nil && n.admin != nil && n.admin.elsewhere != "" {
		n.admin.elsewhere = DefaultHTTP + " is for this node's clients"
	}
	return err
}

// adminConfig is what an admin works with.
type adminConfig struct {
	addr      string       // "": the default one, or a free one; "off": none
	conns     int          // how many connections there are at a time; 0: no bound
	isClosed  bool         // only health is shown at first
	encrypted *tls.Config  // of connections with TLS
	log       *slog.Logger // of the server, whose lines are about broken clients; nil: the process's own
	health    func() health
}

// openAdmin serves HTTP. If the address
// is empty and another program has the default port, it takes a free one instead, since the
// operator did not ask for that port, and says so. The node is not ready yet, and has no metrics. On a secured node connections to an
// address that other machines reach have TLS.
func openAdmin(ctx context.Context, cfg adminConfig) (*admin, error) {
	addr := cfg.addr
	if addr == "off" {
		return nil, nil
	}
	var lc net.ListenConfig
	byDefault := addr == ""
	if byDefault {
		addr = DefaultHTTP
	}
	elsewhere := ""
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil && byDefault {
		elsewhere = fmt.Sprintf("%s cannot be used (%v)", addr, err)
		if errors.Is(err, syscall.EADDRINUSE) {
			elsewhere = addr + " is taken by another program"
		}
		l, err = lc.Listen(ctx, "tcp", "127.0.0.1:0")
	}
	if err != nil {
		return nil, listenError(addr, err, "choose another address for health and metrics with --http HOST:PORT, or --http off")
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	a := &admin{addr: l.Addr().String(), elsewhere: elsewhere, done: make(chan error, 1), cancel: cancel}
	a.server = a.newServer(life, cfg.health)
	if cfg.log != nil {
		a.server.ErrorLog = slog.NewLogLogger(cfg.log.Handler(), slog.LevelDebug)
	}
	if cfg.isClosed {
		a.login.Store(&weblogin.Login{})
	}
	if cfg.conns > 0 {
		l = &boundedListener{Listener: l, most: cfg.conns}
	}
	if a.isExposed = !isLoopbackAddr(l.Addr()); a.isExposed {
		l = &maybeTLS{l, &a.login, cfg.encrypted}
	}
	go func() { a.done <- a.server.Serve(l) }()
	return a, nil
}

// newServer makes the server, whose requests end with the context.
func (a *admin) newServer(life context.Context, health func() health) *http.Server {
	return &http.Server{
		Handler: weblogin.GuardBrowsers(boundBodies(a.guardHost(a.newMux(health)))), MaxHeaderBytes: maxHeaderBytes,
		ReadHeaderTimeout: readHeaderTimeout, IdleTimeout: idleTimeout, WriteTimeout: writeTimeout,
		BaseContext: func(net.Listener) context.Context { return life },
		ConnState:   noteHTTPState, ConnContext: noteOrigin,
	}
}

// boundBodies has clients send the bodies of their requests within readBodyTimeout. The server's
// ReadTimeout would do so too, but it would also end profiles that take longer. A connection ends behind a body in chunks: a proxy that
// goes by a Content-Length beside them takes for a body what is read here as the next request (RFC 9112, 6.1).
func boundBodies(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TransferEncoding) > 0 {
			w.Header().Set("Connection", "close")
		}
		if r.ContentLength != 0 {
			if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(readBodyTimeout)); err != nil {
				writeText(w, http.StatusInternalServerError, err.Error())
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// statePages are the pages that show what a started node does.
type statePages struct {
	metrics, compaction http.Handler
}

// setReady tells that clients are served, and shows the node's metrics and its compaction from now on.
func (a *admin) setReady(reg *prometheus.Registry, compaction http.Handler) {
	a.pages.Store(&statePages{promhttp.HandlerFor(reg, promhttp.HandlerOpts{}), compaction})
	a.ready.Store(true)
}

// pathsText is what a browser shows that has only the address.
const pathsText = `This is a node of Leat. Its paths for HTTP:

/healthz       whether the process runs
/readyz        whether it serves clients, and what is wrong
/metrics       metrics in the format of Prometheus
/compaction    how far each compacted partition is compacted, and why not further
/debug/pprof/  profiles of the process
/login         log in or out, on a secured node
`

// newMux makes the pages. All but those of health are in one table, with the right that each of them needs.
func (a *admin) newMux(health func() health) *http.ServeMux {
	profiles := make(chan struct{}, maxProfiles)
	mux := http.NewServeMux()
	for _, p := range []struct {
		pattern string
		needs   weblogin.Right
		serve   http.HandlerFunc
	}{
		{"GET /{$}", weblogin.AnyUser, func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, pathsText) }},
		{"GET /metrics", weblogin.SeeMetrics, a.onceStarted(func(p *statePages) http.Handler { return p.metrics })},
		{"GET /compaction", weblogin.DescribeCluster, a.onceStarted(func(p *statePages) http.Handler { return p.compaction })},
		// not the command line, which may have a join token
		{"/debug/pprof/", weblogin.AlterCluster, boundProfiles(profiles, pprof.Index).ServeHTTP},
		{"/debug/pprof/profile", weblogin.AlterCluster, boundProfiles(profiles, pprof.Profile).ServeHTTP},
		{"/debug/pprof/symbol", weblogin.AlterCluster, boundProfiles(profiles, pprof.Symbol).ServeHTTP},
		{"/debug/pprof/trace", weblogin.AlterCluster, boundProfiles(profiles, pprof.Trace).ServeHTTP},
	} {
		mux.HandleFunc(p.pattern, func(w http.ResponseWriter, r *http.Request) {
			if _, mayBeShown := a.login.Load().Admit(w, r, p.needs); mayBeShown {
				p.serve(w, r)
			}
		})
	}
	logins := func(w http.ResponseWriter, r *http.Request) { a.login.Load().ServeHTTP(w, r) }
	mux.HandleFunc("/login", logins)
	mux.HandleFunc("/login/", logins)
	mux.HandleFunc("/logout", logins)
	mux.HandleFunc("GET "+livenessPath, func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET "+readinessPath, func(w http.ResponseWriter, r *http.Request) { a.showReadiness(w, r, health) })
	return mux
}

// The pages of health, which probes of all kinds ask for.
const (
	livenessPath  = "/healthz"
	readinessPath = "/readyz"
)

// showReadiness tells whether the node serves clients, and what is wrong to those who may know. A probe needs no login, and learns no more than what to do.
func (a *admin) showReadiness(w http.ResponseWriter, r *http.Request, health func() health) {
	if !a.ready.Load() {
		writeText(w, http.StatusServiceUnavailable, "starting or stopping")
		return
	}
	h, login := health(), a.login.Load()
	if login != nil && !login.HasLogin(r) {
		writeReadiness(w, h.unready == nil)
		return
	}
	if _, mayBeShown := login.Admit(w, r, weblogin.DescribeCluster); !mayBeShown {
		return
	}
	switch {
	case h.unready != nil:
		writeText(w, http.StatusServiceUnavailable, h.unready.Error())
	case len(h.degraded) > 0:
		writeText(w, http.StatusOK, "ready, but degraded:\n- "+strings.Join(h.degraded, "\n- "))
	default:
		writeText(w, http.StatusOK, "ready")
	}
}

// onceStarted serves one of the pages that show what a started node does.
func (a *admin) onceStarted(pick func(p *statePages) http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if p := a.pages.Load(); p != nil {
			pick(p).ServeHTTP(w, r)
			return
		}
		writeText(w, http.StatusServiceUnavailable, "starting")
	}
}

// guardHost refuses requests to a loopback address that name another host: a web site may have its own name resolve to that address, and is no other site
// than the node's then for the browser.
func (a *admin) guardHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var others []string
		if known := a.hosts.Load(); known != nil {
			others = *known
		}
		if !a.isExposed && r.URL.Path != livenessPath && r.URL.Path != readinessPath && !weblogin.IsOwnHost(r.Host, others) {
			writeText(w, http.StatusMisdirectedRequest, "this port is on a loopback address, and was asked for by another name: ask for localhost, or name the host in leat.http.hosts")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// boundProfiles makes as many profiles at a time as the channel has room for, since one of many
// goroutines takes up to 64 MiB.
func boundProfiles(running chan struct{}, serve http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case running <- struct{}{}:
			defer func() { <-running }()
			serve(w, r)
		default:
			writeText(w, http.StatusServiceUnavailable, "other profiles are being made")
		}
	})
}

// httpTLS is what connections to the HTTP port use in handshakes, if they have TLS.
func httpTLS(n *Node) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		if p := n.encryption.links.now.Load(); p != nil && p.material.Certificate != nil {
			return p.material.Certificate, nil
		}
		return nil, errors.New("this node has no certificate yet")
	}}
}

// close stops the server; with a nil admin it does nothing.
func (a *admin) close(ctx context.Context) error {
	if a == nil {
		return nil
	}
	a.cancel()
	err := a.server.Shutdown(ctx)
	if err != nil {
		err = a.server.Close()
	}
	if serve := <-a.done; !errors.Is(serve, http.ErrServerClosed) {
		err = errors.Join(err, serve)
	}
	return err
}
