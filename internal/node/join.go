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

	"github.com/leatstream/leat/internal/credential"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/peer"
	"github.com/leatstream/leat/internal/vfs"
)

// A join has these steps, and a start with the same command goes on after whichever was the last:
//
//	node.key written -> a member admits the key -> cluster.members written -> meta.properties written
//
// The cluster gives a key its id once, so a second admission returns the same one. Without
// meta.properties the directory has no node yet.

// peerVersions are the versions of the protocol between nodes that this binary speaks.
var peerVersions = credential.Range{Min: 1, Max: 2}

// joinTime is how long a node tries to join.
const joinTime = time.Minute

// joinEvery is how often it does.
const joinEvery = 500 * time.Millisecond

// prepareIdentity reads the directory's identity, joins a cluster, or begins one.
func prepareIdentity(ctx context.Context, fsys vfs.FS, cfg *Config, own []meta.Listener, log *slog.Logger) (identity, error) {
	dir := cfg.Data
	_, err := readFile(fsys, path.Join(dir, identityFile))
	isNew := errors.Is(err, fs.ErrNotExist)
	switch {
	case len(cfg.Join) == 0 && cfg.Token != "" && isNew:
		return identity{}, fmt.Errorf("%w: a join token is given, and no node whose cluster is to be joined: add --join HOST:PORT, the address of any of its nodes", ErrConfig)
	case len(cfg.Join) > 0 && isNew:
		if err := checkReach(cfg.Join, own); err != nil {
			return identity{}, err
		}
		id, err := joinCluster(ctx, fsys, cfg, log)
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
		host, _, err := net.SplitHostPort(address)
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
func checkJoinedNodes(ctx context.Context, cfg *Config, id identity) error {
	foreign := findForeign(ctx, cfg.Join, id)
	if foreign == "" {
		return nil
	}
	return fmt.Errorf("%w %s: its node belongs to cluster %s, and the node at %s, which is to be joined, belongs to another cluster; leave --join out to start that node, or choose another directory with --data",
		ErrDirectory, cfg.Data, id.clusterID, foreign)
}

// findForeign asks the nodes at addresses for their cluster. It returns an address at which a node of another cluster is, unless a node of
// this cluster answers at another one.
func findForeign(ctx context.Context, addresses []string, id identity) (foreign string) {
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
			_, results[i] = peer.Dial(ctx, address, credential.DialAsNode(self, credential.Incarnation{}, nobody, rand.Reader), nil)
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
func joinCluster(ctx context.Context, fsys vfs.FS, cfg *Config, log *slog.Logger) (identity, error) {
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
	welcome, epoch, err := askToJoin(ctx, cfg.Join, log, credential.Join{
		Token: token, Versions: peerVersions, Key: id.key, Directory: credential.DirectoryID(id.directory), NodeID: wanted,
	})
	if err != nil {
		return identity{}, err
	}
	id.nodeID, id.epoch = welcome.NodeID, epoch
	if err := writeMembers(fsys, dir, welcome.Members); err != nil {
		return identity{}, fmt.Errorf("%w %s: cannot write to it: %w", ErrDirectory, dir, err)
	}
	if err := writeIdentity(fsys, dir, id); err != nil {
		return identity{}, fmt.Errorf("%w %s: %w", ErrDirectory, dir, err)
	}
	log.Info("this node has joined a cluster", "node", id.nodeID, "cluster", id.clusterID)
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
func askToJoin(ctx context.Context, addresses []string, log *slog.Logger, j credential.Join) (w credential.Welcome, epoch uint32, err error) {
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	for told := false; ; {
		var failed error
		for _, address := range addresses {
			c, err := peer.Dial(ctx, address, credential.DialAsJoiner(j, rand.Reader), nil)
			if err == nil {
				w, s := c.Welcome(), c.Session()
				c.Close()
				return addAddress(w, s.Peer, address), s.Epoch, nil
			}
			if isFinal(err) {
				return credential.Welcome{}, 0, err
			}
			failed = errors.Join(failed, err)
		}
		if !told {
			told = true
			log.Warn("no node of the cluster lets this one in yet; it is tried again for a minute", "err", failed)
		}
		select {
		case <-time.After(joinEvery):
		case <-ctx.Done():
			return credential.Welcome{}, 0, failed
		}
	}
}

// addAddress adds to the members in a welcome the address at which the one was reached that let this node
// in: it may have registered a name that this machine does not know.
func addAddress(w credential.Welcome, by credential.Peer, address string) credential.Welcome {
	at := slices.IndexFunc(w.Members, func(c credential.Contact) bool { return c.NodeID == by.NodeID })
	if at < 0 {
		w.Members = append(w.Members, credential.Contact{NodeID: by.NodeID, Key: by.Key})
		at = len(w.Members) - 1
	}
	if m := &w.Members[at]; !slices.Contains(m.Addresses, address) {
		m.Addresses = append(m.Addresses, address)
	}
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

// contact is a member of the cluster in the file of members.
type contact struct {
	Node      int32    `json:"node"`
	Key       string   `json:"key"`
	Addresses []string `json:"addresses"`
}

// writeMembers writes whom the node has met when it joined. The caller syncs the directory.
func writeMembers(fsys vfs.FS, dir string, members []credential.Contact) error {
	list := make([]contact, len(members))
	for i, m := range members {
		list[i] = contact{m.NodeID, m.Key.String(), m.Addresses}
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
		members = append(members, credential.Contact{NodeID: c.Node, Key: key, Addresses: c.Addresses})
	}
	return members, nil
}
