package node

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"path"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/vfs"
)

// A join has these steps, and a start with the same command goes on after whichever was the last:
//
//	node.key written -> a member admits the key -> in a secured cluster: the sealing key, node.secured and the certificate written
//	-> cluster.members written -> meta.properties written
//
// The cluster gives a key its id once, so a second admission returns the same one. Without
// meta.properties the directory has no node yet.

// peerVersions are the versions of the protocol between nodes that this binary speaks.
var peerVersions = credential.Range{Min: 1, Max: 3}

// joinTime is how long a node tries to join.
const joinTime = time.Minute

// joinEvery is how often it does.
const joinEvery = 500 * time.Millisecond

// joining is what a node that may join a cluster needs besides its settings.
type joining struct {
	own  []meta.Listener // with which it will be registered
	dial peer.DialFunc   // opens connections to other nodes
	log  *slog.Logger
	// secure has the node be secured, too, if the cluster is, before it has its identity.
	secure func(ctx context.Context, j *joined) error
}

// joined is a node that was admitted to a cluster.
type joined struct {
	id       identity
	members  []credential.Contact
	needsTLS bool // the nodes of the cluster talk to each other with TLS
}

// protocol is that of the listener for other nodes.
func (j *joining) protocol() config.Protocol {
	if len(j.own) == 0 {
		return config.Plaintext
	}
	return config.Protocol(j.own[0].Security)
}

// prepareIdentity reads the directory's identity, joins a cluster, or begins one.
func prepareIdentity(ctx context.Context, fsys vfs.FS, cfg *Config, by joining) (identity, error) {
	dir := cfg.Data
	_, err := readFile(fsys, path.Join(dir, identityFile))
	isNew := errors.Is(err, fs.ErrNotExist)
	switch {
	case len(cfg.Join) == 0 && cfg.Token != "" && isNew:
		return identity{}, fmt.Errorf("%w: a join token is given, and no node whose cluster is to be joined: add --join HOST:PORT, the address of any of its nodes", ErrConfig)
	case len(cfg.Join) > 0 && isNew:
		if err := checkReach(cfg.Join, by.own); err != nil {
			return identity{}, err
		}
		id, err := joinCluster(ctx, fsys, cfg, by)
		if err != nil {
			return identity{}, fmt.Errorf("cannot join the cluster: %w", err)
		}
		return id, nil
	}
	id, err := loadIdentity(fsys, dir, cfg.ID, cmp.Or(cfg.IDFrom, "--id"))
	if err != nil || len(cfg.Join) == 0 {
		return id, err
	}
	return id, checkJoined(dir, id, cfg.Token)
}

// checkReach refuses a join of nodes on other machines by one that they could not reach. It is only asked
// before the cluster knows the node.
func checkReach(join []string, own []meta.Listener) error {
	if len(own) == 0 || !isLoopback(own[0].Host) {
		return nil
	}
	for _, address := range join {
		hostPort, _, _ := peer.SplitAddress(address)
		host, _, err := net.SplitHostPort(hostPort)
		if err == nil && !isLoopback(host) {
			return fmt.Errorf("%w: the nodes of the cluster could not reach this one, which only serves this machine, at %s: start it with --listen :%d, or tell another address with --advertise",
				ErrConfig, net.JoinHostPort(own[0].Host, strconv.Itoa(int(own[0].Port))), own[0].Port)
		}
	}
	return nil
}

// isLoopback tells whether a host stands for the machine itself, as far as its name says.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// checkJoined refuses a directory whose node is not in the cluster that is to be joined. The same command
// may start a node that has joined.
func checkJoined(dir string, id identity, token string) error {
	if token == "" {
		return nil
	}
	t, err := credential.ParseToken(token)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if own, err := credential.ParseClusterID(id.clusterID); err != nil || own != t.Cluster() {
		return fmt.Errorf("%w %s: its node belongs to cluster %s, and the join token is for cluster %v; leave --join out to start that node, or choose another directory with --data",
			ErrDirectory, dir, id.clusterID, t.Cluster())
	}
	return nil
}

// checkJoinedNodes refuses a directory that has a node already if the nodes that are to be joined belong to another cluster, as far
// as they answer. It may take as long as a connection to the slowest of them.
func checkJoinedNodes(ctx context.Context, cfg *Config, id identity, dial peer.DialFunc) error {
	foreign := findForeign(ctx, cfg.Join, id, dial)
	if foreign == "" {
		return nil
	}
	return fmt.Errorf("%w %s: its node belongs to cluster %s, and the node at %s, which is to be joined, belongs to another cluster; leave --join out to start that node, or choose another directory with --data",
		ErrDirectory, cfg.Data, id.clusterID, foreign)
}

// findForeign asks the nodes at addresses for their cluster. It returns an address at which a node of another cluster is, unless a node of
// this cluster answers at another one.
func findForeign(ctx context.Context, addresses []string, id identity, dial peer.DialFunc) (foreign string) {
	own, err := credential.ParseClusterID(id.clusterID)
	if err != nil {
		return "" // preparePeers says so
	}
	self := credential.Self{Versions: peerVersions, Cluster: own, Epoch: id.epoch, NodeID: id.nodeID, Key: id.key}
	nobody := credential.Target{Nodes: directory{image: meta.Empty}, NodeID: credential.AnyNode}
	results := make([]error, len(addresses))
	var asking sync.WaitGroup
	for i, address := range addresses {
		asking.Go(func() {
			_, results[i] = peer.Dial(ctx, address, credential.DialAsNode(self, credential.Incarnation{}, nobody, rand.Reader), dial)
		})
	}
	asking.Wait()
	for i, err := range results {
		switch {
		case errors.Is(err, credential.ErrForeignCluster):
			foreign = addresses[i]
		case errors.Is(err, credential.ErrUnknownNode), errors.Is(err, credential.ErrWrongNode): // only a node of the same cluster says who it is
			return ""
		}
	}
	return foreign
}

// joinCluster makes the node of this directory a member of the cluster of other nodes.
func joinCluster(ctx context.Context, fsys vfs.FS, cfg *Config, by joining) (identity, error) {
	dir := cfg.Data
	if cfg.Token == "" {
		return identity{}, fmt.Errorf("%w: a join needs a token: run leat cluster token where a node of the cluster runs, and give it by --token, --token-file or LEAT_TOKEN", ErrConfig)
	}
	token, err := credential.ParseToken(cfg.Token)
	if err != nil {
		return identity{}, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if err := inspectDirectory(fsys, dir); err != nil {
		return identity{}, fmt.Errorf("%w %s: %w", ErrDirectory, dir, err)
	}
	id := identity{clusterID: token.Cluster().String(), joined: true}
	if id.key, err = prepareKey(fsys, dir); err != nil {
		return identity{}, fmt.Errorf("%w %s: %w", ErrDirectory, dir, err)
	}
	id.public = id.key.Public()
	id.directory = directoryOf(id.public)
	wanted := credential.AnyNode
	if cfg.ID != nil {
		wanted = *cfg.ID
	}
	welcome, epoch, err := askToJoin(ctx, cfg.Join, by, credential.Join{
		Token: token, Versions: peerVersions, Key: id.key, Directory: credential.DirectoryID(id.directory), NodeID: wanted,
	})
	if err != nil {
		return identity{}, err
	}
	id.nodeID, id.epoch = welcome.NodeID, epoch
	if err := by.secure(ctx, &joined{id, welcome.Members, token.NeedsTLS()}); err != nil {
		return identity{}, err
	}
	if err := writeMembers(fsys, dir, welcome.Members); err != nil {
		return identity{}, fmt.Errorf("%w %s: cannot write to it: %w", ErrDirectory, dir, err)
	}
	if err := writeIdentity(fsys, dir, id); err != nil {
		return identity{}, fmt.Errorf("%w %s: %w", ErrDirectory, dir, err)
	}
	by.log.Info("this node has joined a cluster", "node", id.nodeID, "cluster", id.clusterID)
	return id, nil
}

// prepareKey returns the key that a directory has from an earlier try, or makes one. When it returns the
// key is durable: the cluster must not know a key that is lost.
func prepareKey(fsys vfs.FS, dir string) (credential.NodeKey, error) {
	key, err := readKey(fsys, dir)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = credential.NewNodeKey(rand.Reader)
	}
	if err != nil {
		return credential.NodeKey{}, err
	}
	if err := writeFile(fsys, path.Join(dir, keyFile), key.Encode(), vfs.Secret); err != nil {
		return credential.NodeKey{}, fmt.Errorf("cannot write to it: %w", err)
	}
	return key, syncIdentity(fsys, dir)
}

// directoryOf is the id of the directory of a node that joins. It follows from the key, which is drawn
// once for each directory, so a second try has the same one.
func directoryOf(key credential.PublicKey) (id meta.UUID) {
	sum := sha256.Sum256(append([]byte("leat directory id 1\x00"), key[:]...))
	copy(id[:], sum[:])
	return id
}

// askToJoin asks the nodes to be joined, one after the other and again, until one of them decides. It returns the epoch
// of the cluster, too.
func askToJoin(ctx context.Context, addresses []string, by joining, j credential.Join) (w credential.Welcome, epoch uint32, err error) {
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	var last error // of the last round that was not cut short, which says more
	for told := false; ; {
		var failed error
		for _, address := range addresses {
			c, reached, err := dialToJoin(ctx, address, by, &j)
			if err == nil {
				w, s := c.Welcome(), c.Session()
				c.Close()
				return addAddress(w, s.Peer, reached), s.Epoch, nil
			}
			if isFinal(err) {
				return credential.Welcome{}, 0, err
			}
			failed = errors.Join(failed, err)
		}
		if ctx.Err() == nil || last == nil {
			last = failed
		}
		if !told {
			told = true
			by.log.Warn("no node of the cluster lets this one in yet; it is tried again for a minute", "err", failed)
		}
		select {
		case <-time.After(joinEvery):
		case <-ctx.Done():
			return credential.Welcome{}, 0, last
		}
	}
}

// dialToJoin opens a connection to a node that is to be joined, and returns its address with the protocol that it has. An address that says a
// protocol is reached by that, unless the token needs TLS, and another one as this node's listener for other nodes is. If that has no TLS and
// the other end hangs up, TLS is tried, too: never the other way round, which somebody on the way could bring about.
func dialToJoin(ctx context.Context, address string, by joining, j *credential.Join) (*peer.Conn, string, error) {
	hostPort, protocol, isKnown := peer.SplitAddress(address)
	if !isKnown {
		protocol = by.protocol()
	}
	if j.Token.NeedsTLS() && !protocol.UsesTLS() {
		protocol = config.SSL
	}
	address = withProtocol(protocol, hostPort)
	c, err := peer.Dial(ctx, address, credential.DialAsJoiner(*j, rand.Reader), by.dial)
	if isKnown || protocol.UsesTLS() || !errors.Is(err, peer.ErrHandshake) {
		return c, address, err
	}
	address = withProtocol(config.SSL, hostPort)
	c, tlsErr := peer.Dial(ctx, address, credential.DialAsJoiner(*j, rand.Reader), by.dial)
	if tlsErr != nil {
		return nil, "", errors.Join(err, tlsErr)
	}
	return c, address, nil
}

// withProtocol puts a protocol in front of an address.
func withProtocol(p config.Protocol, hostPort string) string { return p.String() + "://" + hostPort }

// addAddress adds to the members in a welcome the address at which the one was reached that let this node
// in: it may have registered a name that this machine does not know.
func addAddress(w credential.Welcome, by credential.Peer, address string) credential.Welcome {
	at := slices.IndexFunc(w.Members, func(c credential.Contact) bool { return c.NodeID == by.NodeID })
	if at < 0 {
		w.Members = append(w.Members, credential.Contact{NodeID: by.NodeID, Key: by.Key})
		at = len(w.Members) - 1
	}
	m := &w.Members[at]
	m.Addresses = addTarget(m.Addresses, nil, address)
	return w
}

// isFinal tells whether a join that was refused will be refused again. A proof that does not hold is not:
// the node that was asked may not have heard of the token yet.
func isFinal(err error) bool {
	for _, final := range []error{
		credential.ErrForeignCluster, credential.ErrVersion, credential.ErrTokenExpired, credential.ErrTokenRevoked,
		credential.ErrNodeRemoved, credential.ErrNodeIDTaken,
	} {
		if errors.Is(err, final) {
			return true
		}
	}
	return false
}

// contact is a member of the cluster in the file of members. An address and its protocol have the same place in their lists, so that versions
// which know no protocols can read the file; "": it is not known.
type contact struct {
	Node      int32    `json:"node"`
	Key       string   `json:"key"`
	Addresses []string `json:"addresses"`
	Protocols []string `json:"protocols,omitempty"`
}

// newContact makes a contact of what another node has told.
func newContact(c *credential.Contact) contact {
	made := contact{Node: c.NodeID, Key: c.Key.String(), Addresses: make([]string, len(c.Addresses)), Protocols: make([]string, len(c.Addresses))}
	for i, address := range c.Addresses {
		hostPort, protocol, isKnown := peer.SplitAddress(address)
		if made.Addresses[i] = hostPort; isKnown {
			made.Protocols[i] = protocol.String()
		}
	}
	return made
}

// fullAddresses are the addresses with the protocols that are known.
func (c *contact) fullAddresses() []string {
	full := slices.Clone(c.Addresses)
	for i, name := range c.Protocols {
		if protocol, ok := config.ParseProtocol(name); ok && i < len(full) {
			full[i] = withProtocol(protocol, full[i])
		}
	}
	return full
}

// writeMembers writes whom the node has met when it joined. The caller syncs the directory.
func writeMembers(fsys vfs.FS, dir string, members []credential.Contact) error {
	list := make([]contact, len(members))
	for i := range members {
		list[i] = newContact(&members[i])
	}
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return writeFile(fsys, path.Join(dir, membersFile), append(b, '\n'), vfs.Fresh)
}

// readMembers reads whom the node has met when it joined. A node that has the metadata needs them no more.
func readMembers(fsys vfs.FS, dir string) (members []credential.Contact, err error) {
	b, err := readFile(fsys, path.Join(dir, membersFile))
	if err != nil {
		return nil, fmt.Errorf("%s: %w; restore it from a backup, or join with another directory", membersFile, err)
	}
	var list []contact
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w; restore it from a backup, or join with another directory", membersFile, err)
	}
	for _, c := range list {
		key, err := credential.ParsePublicKey(c.Key)
		if err != nil {
			return nil, fmt.Errorf("%s is damaged: %w; restore it from a backup, or join with another directory", membersFile, err)
		}
		members = append(members, credential.Contact{NodeID: c.Node, Key: key, Addresses: c.fullAddresses()})
	}
	return members, nil
}
