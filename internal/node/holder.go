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
	"strings"

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
	Addresses []string // at which the node listened when it served last; none: that is not known
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
	return Holder{
		NodeID: id.nodeID, Cluster: cluster, Addresses: readAddresses(fsys, dir),
		self: credential.Self{Versions: peerVersions, Cluster: cluster, Epoch: id.epoch, NodeID: id.nodeID, Key: id.key},
	}, nil
}

// Dial connects to the node, and proves to it who holds its directory. Nothing is proven to another node
// that answers. The errors are those of peer.Dial.
func (h *Holder) Dial(ctx context.Context, address string) (*peer.Conn, error) {
	return peer.Dial(ctx, address, credential.DialAsAdministrator(h.self, credential.Target{Nodes: h, NodeID: h.NodeID}, rand.Reader), nil)
}

// FindNode finds the only node that the holder knows.
func (h *Holder) FindNode(id int32) (credential.Member, bool) {
	return credential.Member{Key: h.self.Key.Public()}, id == h.NodeID
}

// readAddresses reads the addresses of a node; none: they are not known.
func readAddresses(fsys vfs.FS, dir string) []string {
	b, err := readFile(fsys, path.Join(dir, addressesFile))
	if err != nil {
		return nil
	}
	return strings.Fields(string(b))
}

// noteAddresses notes at which addresses the node listens. A power cut may take the note, and a full disk
// may have no room for it: then the holder has to know them.
func noteAddresses(n *Node) {
	var text strings.Builder
	for _, l := range n.listeners {
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
