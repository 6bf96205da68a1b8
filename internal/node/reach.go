package node

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/leatstream/leat/internal/meta"
)

// checkListeners compares the listeners that a node wants to register with those of the other nodes. It refuses a node that the
// others could not reach, and one that has no listener of a name that others have: each client would see either them or it. The
// warning tells of names that only some have. isHere tells whether a host is this machine.
func checkListeners(m *meta.Image, id int32, own []meta.Listener, isHere func(host string) bool) (warning string, err error) {
	if len(own) == 0 {
		return "", nil
	}
	names := listenerNames(own)
	for _, other := range slices.Sorted(maps.Keys(m.Brokers)) {
		b := m.Brokers[other]
		if other == id || len(b.Listeners) == 0 {
			continue
		}
		if isLoopback(own[0].Host) && !isHere(b.Listeners[0].Host) {
			return "", fmt.Errorf("%w: this node would tell the others to reach it at %s, which is their own machine for them: node %d is at %s; start it with --listen :%d, or tell another address with --advertise",
				ErrConfig, net.JoinHostPort(own[0].Host, strconv.Itoa(int(own[0].Port))), other, b.Listeners[0].Host, own[0].Port)
		}
		theirs := listenerNames(b.Listeners)
		if slices.Equal(names, theirs) {
			continue
		}
		if !slices.ContainsFunc(names, func(name string) bool { return slices.Contains(theirs, name) }) {
			return "", fmt.Errorf("%w: the names of this node's listeners are %s, and those of node %d are %s: a client sees only nodes that have the listener by which it has come, so name one as theirs, such as --listen %s=HOST:PORT",
				ErrConfig, strings.Join(names, ", "), other, strings.Join(theirs, ", "), theirs[0])
		}
		if warning == "" {
			warning = fmt.Sprintf("the names of this node's listeners are %s, and those of node %d are %s: a client sees only nodes that have the listener by which it has come", strings.Join(names, ", "), other, strings.Join(theirs, ", "))
		}
	}
	return warning, nil
}

// listenerNames are the names of listeners, sorted.
func listenerNames(list []meta.Listener) []string {
	names := make([]string, 0, len(list))
	for _, l := range list {
		names = append(names, l.Name)
	}
	slices.Sort(names)
	return names
}

// isThisMachine tells whether a host is this machine, as far as that can be found out; if not, it may be.
func isThisMachine(ctx context.Context, host string) bool {
	if isLoopback(host) {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, lookUpTime)
	defer cancel()
	found, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	own, ownErr := net.InterfaceAddrs()
	if err != nil || ownErr != nil {
		return true
	}
	return slices.ContainsFunc(found, func(a net.IPAddr) bool {
		return a.IP.IsLoopback() || slices.ContainsFunc(own, func(o net.Addr) bool {
			n, ok := o.(*net.IPNet)
			return ok && n.IP.Equal(a.IP)
		})
	})
}
