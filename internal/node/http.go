package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// admin is the HTTP server of a node, for health, metrics and profiles.
type admin struct {
	server    *http.Server
	addr      string
	elsewhere string                       // why it is not on the default address; "": it is, or another one was asked for
	ready     atomic.Bool                  // the node has started and does not stop yet
	metrics   atomic.Pointer[http.Handler] // nil while there is nothing to measure yet
	done      chan error                   // the result of Serve; buffered
	cancel    func()                       // ends requests that take long, such as profiles
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
	n.admin, err = openAdmin(ctx, n.cfg.HTTP, n.descriptors.http, n.checkHealth)
	if _, own := n.addresses.findOverlap(DefaultHTTP); own && err == nil && n.admin != nil && n.admin.elsewhere != "" {
		n.admin.elsewhere = DefaultHTTP + " is for this node's clients"
	}
	return err
}

// openAdmin serves HTTP on addr, for at most conns connections at a time (0: no bound). If addr
// is empty and another program has the default port, it takes a free one instead, since the
// operator did not ask for that port, and says so. The node is not ready yet, and has no metrics.
func openAdmin(ctx context.Context, addr string, conns int, health func() health) (*admin, error) {
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
	a.server = a.newServer(life, health)
	if conns > 0 {
		l = &boundedListener{Listener: l, most: conns}
	}
	go func() { a.done <- a.server.Serve(l) }()
	return a, nil
}

// newServer makes the server, whose requests end with the context.
func (a *admin) newServer(life context.Context, health func() health) *http.Server {
	return &http.Server{
		Handler: boundBodies(a.newMux(health)), MaxHeaderBytes: maxHeaderBytes,
		ReadHeaderTimeout: readHeaderTimeout, IdleTimeout: idleTimeout, WriteTimeout: writeTimeout,
		BaseContext: func(net.Listener) context.Context { return life },
		ConnState:   noteHTTPState,
	}
}

// boundBodies has clients send the bodies of their requests within readBodyTimeout. The server's
// ReadTimeout would do so too, but it would also end profiles that take longer.
func boundBodies(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(readBodyTimeout)); err != nil {
				writeText(w, http.StatusInternalServerError, err.Error())
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// setReady tells that clients are served, and shows the node's metrics from now on.
func (a *admin) setReady(reg *prometheus.Registry) {
	metrics := promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
	a.metrics.Store(&metrics)
	a.ready.Store(true)
}

// pathsText is what a browser shows that has only the address.
const pathsText = `This is a node of Leat. Its paths for HTTP:

/healthz       whether the process runs
/readyz        whether it serves clients, and what is wrong
/metrics       metrics in the format of Prometheus
/debug/pprof/  profiles of the process
`

func (a *admin) newMux(health func() health) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, pathsText) })
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !a.ready.Load() {
			writeText(w, http.StatusServiceUnavailable, "starting or stopping")
			return
		}
		switch h := health(); {
		case h.unready != nil:
			writeText(w, http.StatusServiceUnavailable, h.unready.Error())
		case len(h.degraded) > 0:
			writeText(w, http.StatusOK, "ready, but degraded:\n- "+strings.Join(h.degraded, "\n- "))
		default:
			writeText(w, http.StatusOK, "ready")
		}
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		metrics := a.metrics.Load()
		if metrics == nil {
			writeText(w, http.StatusServiceUnavailable, "starting")
			return
		}
		(*metrics).ServeHTTP(w, r)
	})
	profiles := make(chan struct{}, maxProfiles)
	for path, serve := range map[string]http.HandlerFunc{ // not the command line, which may have a join token
		"": pprof.Index, "profile": pprof.Profile, "symbol": pprof.Symbol, "trace": pprof.Trace,
	} {
		mux.Handle("/debug/pprof/"+path, boundProfiles(profiles, serve))
	}
	return mux
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

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = fmt.Fprintln(w, text) // fails only if the client is gone
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
