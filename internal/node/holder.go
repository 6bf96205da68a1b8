package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/vfs"
)

// addressesFile has the addresses at which a node listened when it served last, a line each, for the
// holder of its directory. It is only a hint: nothing is lost with it.
const addressesFile = "node.addresses"

// Holder is somebody who may read the data directory of a node. To the node that runs in it, he can prove
// that.
type Holder struct {
	NodeID    int32
	Cluster   credential.ClusterID
	Addresses []string // host and port, at which the node listened when it served last; none: that is not known
	encrypted []string // those of them that are reached with TLS
	self      credential.Self
}

// ErrNoNode is wrapped by the refusal of a directory that is not there, or in which no node has started.
var ErrNoNode = errors.New("there is no node in the data directory")

// ReadHolder reads what the holder of a data directory has. It changes nothing there, and does not care
// whether the node runs.
func ReadHolder(dir string) (Holder, error) { return readHolder(vfs.OS{}, filepath.ToSlash(dir)) }

func readHolder(fsys vfs.FS, dir string) (Holder, error) {
	b, err := readFile(fsys, path.Join(dir, identityFile))
	if errors.Is(err, fs.ErrNotExist) {
		return Holder{}, fmt.Errorf("%w %s: it has no %s", ErrNoNode, dir, identityFile)
	}
	if err != nil {
		return Holder{}, fmt.Errorf("%w %s: %w", ErrDirectory, dir, err)
	}
	id, err := parseIdentity(b)
	if err == nil && id.public == (credential.PublicKey{}) {
		err = errors.New("its node has no key yet; start it once with this version of leat")
	}
	if err == nil {
		id.key, err = readKey(fsys, dir)
	}
	if err != nil {
		return Holder{}, fmt.Errorf("%w %s: %w", ErrDirectory, dir, err)
	}
	cluster, err := credential.ParseClusterID(id.clusterID)
	if err != nil {
		return Holder{}, fmt.Errorf("%w %s: %s: %w", ErrDirectory, dir, identityFile, err)
	}
	addresses, encrypted := readAddresses(fsys, dir)
	return Holder{
		NodeID: id.nodeID, Cluster: cluster, Addresses: addresses, encrypted: encrypted,
		self: credential.Self{Versions: peerVersions, Cluster: cluster, Epoch: id.epoch, NodeID: id.nodeID, Key: id.key},
	}, nil
}

// Dial connects to the node, and proves to it who holds its directory. Nothing is proven to another node
// that answers. The address may have a protocol in front, PROTOCOL://HOST:PORT; else it is what the directory says, and for one that the
// directory does not know TLS is tried if the other end hangs up, or at once if the node has only listeners with TLS. The errors are those of
// peer.Dial.
func (h *Holder) Dial(ctx context.Context, address string) (*peer.Conn, error) {
	hostPort, protocol, isKnown := peer.SplitAddress(address)
	mayTry := false
	if !isKnown {
		isOwn := slices.Contains(h.Addresses, hostPort)
		if slices.Contains(h.encrypted, hostPort) || !isOwn && len(h.encrypted) > 0 && len(h.encrypted) == len(h.Addresses) {
			protocol = config.SSL
		}
		mayTry = !isOwn && !protocol.UsesTLS()
	}
	c, err := h.dialBy(ctx, protocol, hostPort)
	if !mayTry || !errors.Is(err, peer.ErrHandshake) {
		return c, err
	}
	if c, tlsErr := h.dialBy(ctx, config.SSL, hostPort); !errors.Is(tlsErr, errTLSHandshake) && !errors.Is(tlsErr, errNotTLS) {
		return c, tlsErr
	}
	return nil, err
}

// dialBy connects to the node by a protocol. Since the certificate that the node shows is not checked, the proofs must be bound to the
// connection, but for one within this machine.
func (h *Holder) dialBy(ctx context.Context, protocol config.Protocol, hostPort string) (*peer.Conn, error) {
	d := credential.DialAsAdministrator(h.self, credential.Target{Nodes: h, NodeID: h.NodeID}, rand.Reader)
	return peer.Dial(ctx, withProtocol(protocol, hostPort), d, dialUnverified(bindOnWays))
}

// IsReachedWithTLS tells whether a node has told in its welcome that other nodes reach it with TLS. Then a token for its cluster needs TLS, too.
func (h *Holder) IsReachedWithTLS(w *credential.Welcome) bool {
	at := slices.IndexFunc(w.Members, func(c credential.Contact) bool { return c.NodeID == h.NodeID })
	if at < 0 || len(w.Members[at].Addresses) == 0 {
		return false
	}
	return !slices.ContainsFunc(w.Members[at].Addresses, func(address string) bool {
		_, protocol, _ := peer.SplitAddress(address)
		return !protocol.UsesTLS()
	})
}

// FindNode finds the only node that the holder knows.
func (h *Holder) FindNode(id int32) (credential.Member, bool) {
	return credential.Member{Key: h.self.Key.Public()}, id == h.NodeID
}

// encryptedMark begins the lines of addresses that are reached with TLS.
const encryptedMark = "tls://"

// readAddresses reads the addresses of a node, those without encryption first, and which of them are reached with TLS; none: they are not known.
func readAddresses(fsys vfs.FS, dir string) (all, encrypted []string) {
	b, err := readFile(fsys, path.Join(dir, addressesFile))
	if err != nil {
		return nil, nil
	}
	for line := range strings.FieldsSeq(string(b)) {
		if address, marked := strings.CutPrefix(line, encryptedMark); marked {
			encrypted = append(encrypted, address)
		} else {
			all = append(all, address)
		}
	}
	return append(all, encrypted...), encrypted
}

// noteAddresses notes at which addresses the node listens. A power cut may take the note, and a full disk
// may have no room for it: then the holder has to know them.
func noteAddresses(n *Node) {
	var text strings.Builder
	for _, l := range n.listeners {
		if l.Protocol.UsesTLS() || l.Sharing != nil && n.securing.takesTLS.Load() {
			text.WriteString(encryptedMark)
		}
		text.WriteString(dialableAddress(l.Addr()) + "\n")
	}
	if err := writeFile(n.fs, path.Join(n.cfg.Data, addressesFile), []byte(text.String()), vfs.Fresh); err != nil {
		n.loggers.loggerOf(rootLogger).Warn("the addresses of this node could not be noted in its directory; leat cluster token and the like need --bootstrap", "err", err)
	}
}

// dialableAddress is an address at which a listener can be reached from this machine.
func dialableAddress(a net.Addr) string {
	if t, ok := a.(*net.TCPAddr); ok && t.IP.IsUnspecified() {
		return fmt.Sprintf("localhost:%d", t.Port)
	}
	return a.String()
}
