package wan

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os/exec"
	"sync"
	"time"
)

// maxSites is how many sites a network may have: their addresses differ in the last byte.
const maxSites = 250

// ErrUnavailable is returned by New if this machine, or this user, cannot have networks of the kind.
var ErrUnavailable = errors.New("this kind of network is not available here")

// Kind is the means by which a network is emulated.
type Kind int

const (
	// Any takes network namespaces where they are available, and else proxies.
	Any Kind = iota
	// Namespaces has a network namespace for each site. It needs Linux, /dev/net/tun, and the rights CAP_SYS_ADMIN and CAP_NET_ADMIN, such as root's.
	Namespaces
	// Proxies has an address of 127.0.0.0/8 for each site, and proxies that carry connections between them.
	Proxies
)

func (k Kind) String() string {
	switch k {
	case Namespaces:
		return "namespaces"
	case Proxies:
		return "proxies"
	default:
		return "any"
	}
}

// Config says which network is made.
type Config struct {
	// Sites has the names of the sites; from one to 250.
	Sites []string
	// Kind is the means of emulation.
	Kind Kind
	// Here names the site in which this process itself is, without Site.Dial and Site.Listen; "": none. With namespaces the site has no namespace of its
	// own, but a device in that of the process, which ought to be a namespace of its own for each test. With proxies it changes nothing.
	Here string
	// MTU is how large a packet may be, in bytes of IP; 0: 1500.
	MTU int
	// Seed draws which packets are lost and so on; 0: another seed each time.
	Seed uint64
}

func (c *Config) validate() error {
	if len(c.Sites) == 0 || len(c.Sites) > maxSites {
		return fmt.Errorf("wan: there are %d sites: from 1 to %d are possible", len(c.Sites), maxSites)
	}
	names := map[string]bool{}
	for _, name := range c.Sites {
		if names[name] || name == "" {
			return fmt.Errorf("wan: site %q has no name of its own", name)
		}
		names[name] = true
	}
	if c.Here != "" && !names[c.Here] {
		return fmt.Errorf("wan: there is no site %q", c.Here)
	}
	if c.MTU != 0 && (c.MTU < 576 || c.MTU > 65535) {
		return fmt.Errorf("wan: an MTU of %d is not possible", c.MTU)
	}
	return nil
}

// Network is a number of sites and the paths between them. Any goroutine may call its methods.
type Network struct {
	kind    Kind
	sites   []*Site
	paths   [][]*path // from, to
	means   means
	closed  chan struct{} // closed by Close
	closing sync.Once
	running sync.WaitGroup // all goroutines of the network
	err     error          // of Close; guarded by closing
}

// means is what a kind of network does in its own way. Sites are numbered in the order of Config.Sites.
type means interface {
	// address is that of a site.
	address(site int) netip.Addr
	// prepare is called before a path gets other settings, and returns those that the path has to get.
	prepare(from, to int, s Settings) Settings
	// listen opens a port of a site; 0: a free one.
	listen(ctx context.Context, site int, port uint16) (net.Listener, error)
	// dial connects from a site to an address.
	dial(ctx context.Context, from int, to netip.AddrPort) (net.Conn, error)
	// reach returns the address by which processes of a site reach an address of another one.
	reach(ctx context.Context, from int, to netip.AddrPort) (netip.AddrPort, error)
	// start starts a command in a site.
	start(site int, cmd *exec.Cmd) error
	// dropped counts the packets of a site that were dropped before they came to a path.
	dropped(site int) (int64, error)
	// close ends all that the means have begun, but for the goroutines in Network.running.
	close() error
}

// New makes a network. All paths are without fault. It lasts until Close.
func New(ctx context.Context, c Config) (*Network, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if c.MTU == 0 {
		c.MTU = 1500
	}
	if c.Seed == 0 {
		c.Seed = rand.Uint64()
	}
	n := &Network{kind: c.Kind, closed: make(chan struct{})}
	clock := clock{time.Now()}
	for i, name := range c.Sites {
		n.sites = append(n.sites, &Site{n, i, name})
		var paths []*path
		for j := range c.Sites {
			paths = append(paths, newPath(clock, c.Seed, uint64(i*maxSites+j)))
		}
		n.paths = append(n.paths, paths)
	}
	if err := n.findMeans(ctx, &c); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	for _, paths := range n.paths {
		for _, p := range paths {
			n.running.Go(func() { p.run(n.closed) })
		}
	}
	return n, nil
}

// findMeans makes what the kind of network needs.
func (n *Network) findMeans(ctx context.Context, c *Config) error {
	if c.Kind != Proxies {
		m, err := newNamespaces(n, c)
		if err == nil {
			n.kind, n.means = Namespaces, m
			return nil
		}
		if c.Kind == Namespaces || !errors.Is(err, ErrUnavailable) {
			return fmt.Errorf("wan: %w", err)
		}
	}
	m, err := newProxies(ctx, n)
	if err != nil {
		return fmt.Errorf("wan: %w", err)
	}
	n.kind, n.means = Proxies, m
	return nil
}

// Kind says by which means the network is emulated: never Any.
func (n *Network) Kind() Kind { return n.kind }

// Site returns a site by its name. It panics if there is none.
func (n *Network) Site(name string) *Site {
	for _, s := range n.sites {
		if s.name == name {
			return s
		}
	}
	panic("BUG: the network has no site " + name)
}

// Sites returns all sites, in the order of Config.Sites.
func (n *Network) Sites() []*Site { return append([]*Site(nil), n.sites...) }

// Set changes the path from one site to another, in this direction, from the next packet on. It panics if the settings are impossible.
func (n *Network) Set(from, to *Site, s Settings) {
	if err := s.validate(); err != nil {
		panic("BUG: settings of a path: " + err.Error())
	}
	n.paths[from.number][to.number].set(n.means.prepare(from.number, to.number, s))
}

// SetBetween changes all paths between a site and others, both ways.
func (n *Network) SetBetween(a *Site, others []*Site, s Settings) {
	for _, b := range others {
		if b != a {
			n.Set(a, b, s)
			n.Set(b, a, s)
		}
	}
}

// Mend makes all paths work without fault.
func (n *Network) Mend() {
	for _, s := range n.sites {
		n.SetBetween(s, n.sites, Settings{})
	}
}

// Counters returns what the path from one site to another did, in this direction.
func (n *Network) Counters(from, to *Site) Counters {
	return n.paths[from.number][to.number].count()
}

// Dropped counts the packets that sites have sent, and that the kernel dropped since this process did not read them fast enough. A measurement during which it grows is one of a machine that
// is too slow for it. Counters do not have them. With proxies it is 0.
func (n *Network) Dropped() (all int64, err error) {
	for _, s := range n.sites {
		dropped, err := n.means.dropped(s.number)
		if err != nil {
			return 0, fmt.Errorf("wan: %w", err)
		}
		all += dropped
	}
	return all, nil
}

// Close kills the processes that run in sites, and removes all that the network has made. Further calls do nothing.
func (n *Network) Close() error {
	n.closing.Do(func() {
		close(n.closed)
		if n.means != nil {
			n.err = n.means.close()
		}
		n.running.Wait()
	})
	return n.err
}

// isClosed tells whether Close was called.
func (n *Network) isClosed() bool {
	select {
	case <-n.closed:
		return true
	default:
		return false
	}
}

// siteOf finds the site that has an address; nil: none.
func (n *Network) siteOf(addr netip.Addr) *Site {
	for _, s := range n.sites {
		if n.means.address(s.number) == addr {
			return s
		}
	}
	return nil
}
