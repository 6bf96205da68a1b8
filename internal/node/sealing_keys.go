package node

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/leatstream/leat/internal/authority"
	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/sealing"
	"github.com/leatstream/leat/internal/vfs"
)

const (
	// keepKeyTime is how long another node may take to have a key. It takes it from this one, and writes it.
	keepKeyTime = 10 * time.Second
	// sealedTime is how long a node may take to learn that all secrets are sealed by the new key, and lookAtSealed how often it looks.
	sealedTime   = 5 * time.Second
	lookAtSealed = 20 * time.Millisecond
	// moveLinkTime is how long another node's connection may have no TLS, when it could have: securing.advance ends it every watchEvery.
	moveLinkTime = 3 * watchEvery
	// askKeysEvery is the pause between two rounds in which a node that has started asks the others for their keys.
	askKeysEvery = 2 * time.Second
)

// sealingKeys replace the sealing key of a secured cluster, in two steps that an administrator asks for. Each node has the keys in its file, of which the last one
// seals. K is the old key, and N the new one:
//
//	        begin: N is made on the node that is asked,
//	        and the others take it from that node             finish: all nodes have N; the secrets are sealed anew by N
//	K seals --------------------------------------> N, K: K seals --------------------------------------> K, N: N seals --> N seals, K is gone
//
// A node that was away takes N from any other node when it starts (catchUp), or when begin or finish is asked for again, on a node that knows which key was begun. Nothing is sealed by N before all nodes
// have it, and K goes only when nothing is sealed by it any more, so that each node can open all secrets at any time, and sealing goes on by a key that all have.
//
// node.secured names the key that a node must have, and the one that was begun. A kill between two changes of the files leaves one of the states above, from which the
// same command goes on: N is in the file before node.secured has its name, it seals before node.secured says that it must be there, and K leaves the file last. All
// steps can be done again. A key that a kill has left in the file without a name in node.secured is of no use, and finish removes it.
//
// To finish without having begun makes the key that seals the only one.
type sealingKeys struct {
	n  *Node
	mu sync.Mutex // held while the files are changed
}

// errKeyFile is returned if the file of the sealing keys cannot be changed.
var errKeyFile = errors.New("the file of the sealing keys cannot be written")

func refuseKey(format string, args ...any) *controller.Error {
	return &controller.Error{Kind: controller.PolicyViolation, Message: fmt.Sprintf(format, args...)}
}

// Keep is that of cluster.SealingKeeper.
func (k *sealingKeys) Keep(ctx context.Context, w *cluster.SealingWish) (refused *controller.Error, err error) {
	id, err := sealing.ParseID(w.Key)
	switch {
	case err != nil:
		return refuseKey("%v", err), nil
	case k.kept() == nil:
		return refuseKey("%s", k.whyNone()), nil
	case k.hasBegunAnother(id):
		return refuseKey("it knows of another sealing key that was begun to take the place of the one that seals: run the command on the machine of this node"), nil
	case w.Only && !k.awaitSealedBy(ctx, id):
		return refuseKey("This node does not know yet that the secrets in the metadata are sealed by the new key: run the command again."), nil
	}
	if err := k.take(ctx, id, w.From); err != nil {
		return refuseKey("%v", err), nil
	}
	if w.Only {
		err = k.keepOnly(id)
	} else {
		err = k.noteNext(id)
	}
	if err != nil {
		return refuseKey("%v", err), nil
	}
	return nil, nil
}

// kept is what this node keeps of how it is secured, at its first start or while it runs; nil: it has no sealing key so far.
func (k *sealingKeys) kept() *secured {
	if k.n.secured != nil {
		return k.n.secured
	}
	return k.n.securing.kept.Load()
}

// whyNone says why this node has no sealing key.
func (k *sealingKeys) whyNone() string {
	if k.n.image.Load().Securing() != nil {
		return "This node does not have the sealing key yet: \"leat secure --status\" says why."
	}
	return ErrNotSecured.Error() + "."
}

// hasBegunAnother tells whether this node knows of a key that is to take the place of a key of an id, so that this one must not become the only one.
func (k *sealingKeys) hasBegunAnother(id sealing.ID) bool {
	ids := k.kept().keys()
	return ids.now == id && ids.next != sealing.ID{} && ids.next != id
}

// isSealedBy tells whether all secrets in the metadata are sealed by a key: that of the certificate authority, and those of links.
func (k *sealingKeys) isSealedBy(id sealing.ID) bool {
	m := k.n.image.Load()
	a := m.Authority()
	return a != nil && isSecretSealedBy(a.SealedKey, id) && !slices.ContainsFunc(m.Links().All(), func(l *meta.Link) bool { return !isSecretSealedBy(l.Secret, id) })
}

// isSecretSealedBy tells whether a secret is sealed by a key, or there is none.
func isSecretSealedBy(sealed []byte, id sealing.ID) bool {
	by, err := sealing.KeyOf(sealed)
	return len(sealed) == 0 || err == nil && by == id
}

// awaitSealedBy waits for a while until this node knows that all secrets are sealed by a key.
func (k *sealingKeys) awaitSealedBy(ctx context.Context, id sealing.ID) bool {
	ctx, cancel := context.WithTimeout(ctx, sealedTime)
	defer cancel()
	for !k.isSealedBy(id) {
		select {
		case <-time.After(lookAtSealed):
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// take has the key of an id be in the file of this node. If it is not there, another node is asked.
func (k *sealingKeys) take(ctx context.Context, id sealing.ID, from int32) error {
	ring, err := k.kept().readRing(k.n.fs)
	if err != nil || ring.Has(id) {
		return err
	}
	return k.askFor(ctx, from, func(theirs *sealing.Ring) error {
		if !theirs.Has(id) {
			return fmt.Errorf("node %d does not have the sealing key %v", from, id)
		}
		return nil
	})
}

// askFor asks another node for its keys, and adds those that this one lacks to its file.
func (k *sealingKeys) askFor(ctx context.Context, node int32, check func(theirs *sealing.Ring) error) error {
	s, err := k.askSecuredOf(ctx, node)
	if err != nil {
		return fmt.Errorf("node %d does not tell its sealing keys: %w", node, err)
	}
	theirs, err := sealing.ParseRing(s.Keys)
	if err == nil {
		err = check(theirs)
	}
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	ring, err := k.kept().readRing(k.n.fs)
	if err != nil {
		return err
	}
	merged, err := ring.Merge(theirs)
	if err != nil {
		return err
	}
	if merged != ring {
		if err := k.writeRingLocked(merged); err != nil {
			return err
		}
		k.n.loggers.loggerOf(rootLogger).Info("a sealing key was taken from another node", "from", node, "file", k.kept().keyFile, "keys", fmt.Sprint(merged.IDs()))
	}
	return nil
}

// errUnboundLink says that another node tells no keys, since the connection to it has no TLS.
var errUnboundLink = errors.New("the connection to it is one without TLS, of before: run the command again")

// askSecuredOf asks another node for what it keeps. While a cluster is secured as it runs, a connection of before may have no TLS, over which nothing is told;
// securing.moveLinks ends it, and the next one has TLS.
func (k *sealingKeys) askSecuredOf(ctx context.Context, node int32) (s cluster.SecuredCluster, err error) {
	ctx, cancel := context.WithTimeout(ctx, moveLinkTime)
	defer cancel()
	for {
		s, refused, err := cluster.AskSecuredOf(ctx, k.n.peers.commands, node)
		switch {
		case refused != nil:
			return s, refused
		case err != nil || s.IsSecured:
			return s, err
		}
		select {
		case <-time.After(lookAtSealed):
		case <-ctx.Done():
			return s, errUnboundLink
		}
	}
}

// writeRingLocked replaces the file of the keys, and makes it durable.
func (k *sealingKeys) writeRingLocked(ring *sealing.Ring) error {
	file := k.kept().keyFile
	err := writeFile(k.n.fs, file, ring.Encode(), vfs.Secret)
	if err == nil {
		err = k.n.fs.SyncDir(path.Dir(file))
	}
	if err != nil {
		return fmt.Errorf("%w (%s: %w): have it be one that the node may replace, or change it by hand as the file of another node is", errKeyFile, file, err)
	}
	return nil
}

// noteNext notes which key is to take the place of the one that seals.
func (k *sealingKeys) noteNext(id sealing.ID) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	ids := k.kept().keys()
	if ids.next == id || ids.now == id {
		return nil
	}
	return k.noteKeysLocked(keyIDs{now: ids.now, next: id})
}

// noteKeysLocked writes the ids of the keys into node.secured.
func (k *sealingKeys) noteKeysLocked(ids keyIDs) error {
	changed, err := parseSecured(k.kept().encode()) // a copy
	if err != nil {
		return err
	}
	changed.keyID = ids.now
	changed.changed.Store(&ids)
	if err := changed.write(k.n.fs, k.n.cfg.Data); err != nil {
		return err
	}
	k.kept().changed.Store(&ids)
	return nil
}

// keepOnly has this node have no other key than that of an id, by which all secrets are sealed.
func (k *sealingKeys) keepOnly(id sealing.ID) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	ring, err := k.kept().readRing(k.n.fs)
	if err != nil {
		return err
	}
	if !ring.Has(id) {
		return fmt.Errorf("the sealing key %v is not in %s", id, k.kept().keyFile)
	}
	if ring.Newest() != id {
		ring = ring.SealBy(id)
		err = k.writeRingLocked(ring)
	}
	if only := (keyIDs{now: id}); err == nil && k.kept().keys() != only {
		err = k.noteKeysLocked(only)
	}
	if err != nil || len(ring.IDs()) == 1 {
		return err
	}
	if err := k.writeRingLocked(ring.Only(id)); err != nil {
		return err
	}
	k.n.loggers.loggerOf(rootLogger).Info("the old sealing keys were removed", "file", k.kept().keyFile, "key", id.String())
	return nil
}

// Rotate is that of cluster.SealingKeeper.
func (k *sealingKeys) Rotate(ctx context.Context, finishes bool) (keys cluster.SealingKeys, refused *controller.Error, err error) {
	if k.kept() == nil || k.n.image.Load().Authority() == nil {
		return keys, refuseKey("%s", k.whyNone()), nil
	}
	id, err := k.begin(finishes)
	if err != nil {
		return keys, refuseKey("%v", err), nil
	}
	keys = cluster.SealingKeys{Key: id.String(), Nodes: k.handOut(ctx, id, false)}
	if !finishes {
		return keys, nil, nil
	}
	if missing := describeMissing(keys.Nodes); missing != "" {
		return keys, refuseKey("Not all nodes have the new sealing key, so the old one stays, and goes on to seal: %s. Start these nodes, or remove them with leat cluster remove, and run the command again.", missing), nil
	}
	if refused, err := k.sealAnew(ctx, id); err != nil || refused != nil {
		return keys, refused, err
	}
	keys.Nodes = k.handOut(ctx, id, true)
	if left := describeMissing(keys.Nodes); left != "" {
		return keys, refuseKey("The new key seals, and these nodes may still have the old one in their files: %s. Run the command again.", left), nil
	}
	if err := k.keepOnly(id); err != nil {
		return keys, refuseKey("%v", err), nil
	}
	keys.Finished = true
	return keys, nil, nil
}

// begin returns the key that is to seal. Without one, it makes one, or finishes with the one that seals.
func (k *sealingKeys) begin(finishes bool) (id sealing.ID, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	ring, err := k.kept().readRing(k.n.fs)
	if err != nil {
		return id, err
	}
	ids := k.kept().keys()
	switch {
	case ids.next != sealing.ID{} && ring.Has(ids.next):
		return ids.next, nil
	case finishes:
		return ring.Newest(), nil
	}
	ring, id, err = ring.Prepare()
	if err == nil {
		err = k.writeRingLocked(ring)
	}
	if err == nil {
		err = k.noteKeysLocked(keyIDs{now: ids.now, next: id})
	}
	if err == nil {
		k.n.loggers.loggerOf(rootLogger).Info("a new sealing key was made, which does not seal yet", "file", k.kept().keyFile, "key", id.String())
	}
	return id, err
}

// handOut has all other nodes have a key, or only that, and says which do. Of this one it is known.
func (k *sealingKeys) handOut(ctx context.Context, id sealing.ID, only bool) []cluster.SealingOf {
	own := k.n.id.nodeID
	all := []cluster.SealingOf{{Node: own, Has: true}}
	others := k.n.peers.listOthers()
	answers := make([]cluster.SealingOf, len(others))
	var asking sync.WaitGroup
	for i, node := range others {
		asking.Go(func() {
			answers[i] = cluster.SealingOf{Node: node, Has: true}
			if err := k.askToKeep(ctx, node, id, only); err != nil {
				answers[i].Has, answers[i].Problem = false, err.Error()
			}
		})
	}
	asking.Wait()
	all = append(all, answers...)
	slices.SortFunc(all, func(a, b cluster.SealingOf) int { return int(a.Node - b.Node) })
	return all
}

// askToKeep has another node have a key, or only that.
func (k *sealingKeys) askToKeep(ctx context.Context, node int32, id sealing.ID, only bool) error {
	ctx, cancel := context.WithTimeout(ctx, keepKeyTime)
	defer cancel()
	refused, err := cluster.KeepSealingKey(ctx, k.n.peers.commands, node, &cluster.SealingWish{Key: id.String(), From: k.n.id.nodeID, Only: only})
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return errors.New("it does not answer")
	case err != nil:
		return err
	case refused != nil:
		return errors.New(refused.Message)
	}
	return nil
}

// describeMissing says which nodes do not have a key, and why; "": all have it.
func describeMissing(nodes []cluster.SealingOf) string {
	var list []string
	for _, o := range nodes {
		if !o.Has {
			list = append(list, fmt.Sprintf("node %d (%s)", o.Node, strings.TrimSuffix(o.Problem, ".")))
		}
	}
	return strings.Join(list, ", ")
}

// sealAnew has all secrets in the metadata be sealed by a key that all nodes have.
func (k *sealingKeys) sealAnew(ctx context.Context, id sealing.ID) (refused *controller.Error, err error) {
	if k.isSealedBy(id) {
		return nil, nil
	}
	ring, err := k.kept().readRing(k.n.fs)
	if err != nil {
		return refuseKey("%v", err), nil
	}
	if refused, err = k.sealLinksAnew(ctx, ring.SealBy(id), id); refused != nil || err != nil {
		return refused, err
	}
	before := k.n.image.Load().Authority()
	if isSecretSealedBy(before.SealedKey, id) {
		return nil, nil
	}
	next, err := authority.Reseal(ring.SealBy(id), k.n.id.clusterID, before)
	if err != nil {
		return refuseKey("%v", err), nil
	}
	return cluster.SetAuthority(ctx, k.n.peers.commands, before, &next)
}

// sealLinksAnew has the secrets of links be sealed by a key.
func (k *sealingKeys) sealLinksAnew(ctx context.Context, ring *sealing.Ring, id sealing.ID) (refused *controller.Error, err error) {
	for _, l := range k.n.image.Load().Links().All() {
		if isSecretSealedBy(l.Secret, id) {
			continue
		}
		sealed, err := k.n.linking.resealSecret(ring, l.Secret)
		if err != nil {
			return refuseKey("the secret of the link %s: %v", l.Name, err), nil
		}
		_, refused, err = cluster.ChangeLinks(ctx, k.n.peers.commands, &controller.LinksChange{Kind: controller.ChangeLink, LinkID: l.ID, Change: &controller.LinkChange{Secret: &sealed}})
		if refused != nil && refused.Kind == controller.UnknownLink { // it was removed meanwhile
			refused = nil
		}
		if refused != nil || err != nil {
			return refused, err
		}
	}
	return nil, nil
}

// catchUp takes the keys that this node lacks, since it was away or is a copy from before, from the first other node that tells them.
func (k *sealingKeys) catchUp(ctx context.Context) {
	for k.kept() != nil {
		others := k.n.peers.listOthers()
		for _, node := range others {
			ctx, cancel := context.WithTimeout(ctx, keepKeyTime)
			err := k.askFor(ctx, node, func(*sealing.Ring) error { return nil })
			cancel()
			switch {
			case errors.Is(err, errKeyFile):
				k.n.loggers.loggerOf(rootLogger).Warn("a sealing key that other nodes have cannot be kept", "from", node, "err", err)
				return
			case err == nil:
				return
			}
		}
		if len(others) == 0 {
			return
		}
		select {
		case <-time.After(askKeysEvery):
		case <-ctx.Done():
			return
		}
	}
}
