package node

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/sealing"
	"github.com/leatstream/leat/internal/vfs"
)

// idsIn are the ids of the sealing keys of the node of a directory, the one that seals last.
func idsIn(t *testing.T, dir string) []sealing.ID {
	t.Helper()
	ring, err := readRing(vfs.OS{}, filepath.ToSlash(dir)+".key")
	if err != nil {
		t.Fatal(err)
	}
	return ring.IDs()
}

// rotateKey has a node replace the sealing key, and returns the key.
func rotateKey(t *testing.T, n *Node, finishes bool) (cluster.SealingKeys, *controller.Error, sealing.ID) {
	t.Helper()
	keys, refused, err := n.keys.Rotate(deadline(t), finishes)
	if err != nil {
		t.Fatal(err)
	}
	id, _ := sealing.ParseID(keys.Key) // with a refusal there may be none
	return keys, refused, id
}

// sealedBy is the key by which the secrets in a node's metadata are sealed.
func sealedBy(t *testing.T, n *Node) sealing.ID {
	t.Helper()
	id, err := sealing.KeyOf(n.image.Load().Authority().SealedKey)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestSealingKeyIsReplaced proves, with three nodes, that a new key is made on one and taken by the others, and seals nothing until all have it; that a node
// that was away takes it when it comes back, and that nothing is finished before; that then all secrets are sealed by it, all nodes renew their certificates,
// and the old key is in no file; that the nodes start with it, and one joins; and that a node whose files of before were restored takes it again.
func TestSealingKeyIsReplaced(t *testing.T) {
	if testing.Short() {
		t.Skip("a cluster is restarted")
	}
	m := newSecuredMachines(t, 4, "")
	start := func(i int, cfg Config) {
		t.Helper()
		cfg.Listen = m.ports[i : i+1] // a node that joins learns that it is secured
		m.start(i, cfg)
	}
	start(0, Config{Secure: true})
	token := withTLS(t, m.makeToken(0))
	for i := 1; i < 3; i++ {
		start(i, Config{Join: m.ports[:1], Token: token})
	}
	m.awaitVoters(3)
	want := func(what string, nodes []int, ids ...sealing.ID) {
		t.Helper()
		for _, i := range nodes {
			if got := idsIn(t, m.dirs[i]); !slices.Equal(got, ids) {
				t.Errorf("%s: node %d has the keys %v, want %v", what, i+1, got, ids)
			}
		}
	}
	old := idsIn(t, m.dirs[0])[0]
	want("at first", []int{0, 1, 2}, old)
	if _, refused, _ := rotateKey(t, m.nodes[1], true); refused != nil {
		t.Errorf("finishing what was not begun: %v", refused)
	}
	want("after that", []int{0, 1, 2}, old)

	m.stop(2)
	keys, refused, next := rotateKey(t, m.nodes[1], false)
	if refused != nil || keys.Finished || len(keys.Nodes) != 3 || !keys.Nodes[0].Has || !keys.Nodes[1].Has || keys.Nodes[2].Has || keys.Nodes[2].Problem == "" {
		t.Fatalf("%+v, %v", keys, refused)
	}
	want("begun", []int{0, 1}, next, old)
	want("away", []int{2}, old)
	if again, _, id := rotateKey(t, m.nodes[0], false); id != next {
		t.Errorf("beginning again on another node is about %v: %+v", id, again)
	}
	if _, refused, _ := rotateKey(t, m.nodes[0], true); refused == nil || !strings.Contains(refused.Message, "so the old one stays, and goes on to seal: node 3 (") {
		t.Errorf("finishing without node 3: %v", refused)
	}
	want("not finished", []int{0, 1}, next, old)
	if by := sealedBy(t, m.nodes[0]); by != old {
		t.Errorf("the secrets are sealed by %v, want %v", by, old)
	}
	for _, w := range []cluster.SealingWish{{Key: sealing.ID{1}.String(), From: 1}, {Key: next.String(), From: 1, Only: true}, {Key: "x", From: 1}, {Key: old.String(), From: 1}, {Key: old.String(), From: 1, Only: true}} {
		if refused, err := m.nodes[1].keys.Keep(deadline(t), &w); refused == nil || err != nil {
			t.Errorf("the wish %+v: %v, %v", w, refused, err)
		}
	}
	want("after bad wishes", []int{0, 1}, next, old)

	var kept [2]string // node 3's files from before
	files := []string{m.dirs[2] + ".key", filepath.Join(m.dirs[2], securedFile)}
	for i, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		kept[i] = string(b)
	}
	start(2, Config{})
	eventually(t, "node 3 has taken the new key", func() bool { return slices.Equal(idsIn(t, m.dirs[2]), []sealing.ID{next, old}) })
	if _, refused, _ := rotateKey(t, m.nodes[2], true); refused == nil || !strings.Contains(refused.Message, "node 1 (it knows of another sealing key that was begun") {
		t.Errorf("finishing on a node that does not know what was begun: %v", refused)
	}
	want("back", []int{0, 1, 2}, next, old)
	var serials []string
	for i := range 3 {
		serials = append(serials, m.serial(i))
	}
	if keys, refused, _ = rotateKey(t, m.nodes[0], true); refused != nil || !keys.Finished {
		t.Fatalf("%+v, %v", keys, refused)
	}
	want("finished", []int{0, 1, 2}, next)
	for i, n := range m.nodes[:3] {
		if by := sealedBy(t, n); by != next {
			t.Errorf("node %d: the secrets are sealed by %v, want %v", i+1, by, next)
		}
		if ids := n.secured.keys(); ids != (keyIDs{now: next}) {
			t.Errorf("node %d notes the keys %v", i+1, ids)
		}
		eventually(t, "a new certificate is used", func() bool { return m.serial(i) != serials[i] })
	}
	if _, refused, _ := rotateKey(t, m.nodes[0], true); refused != nil {
		t.Errorf("finishing again: %v", refused)
	}
	for i := range 3 {
		m.stop(i)
		start(i, Config{})
	}
	m.awaitBound()
	start(3, Config{Join: m.ports[:1], Token: token})
	want("at last", []int{0, 1, 2, 3}, next)

	m.stop(2)
	for i, name := range files {
		if err := os.WriteFile(name, []byte(kept[i]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	start(2, Config{})
	eventually(t, "node 3 has taken the key again, which seals", func() bool { return slices.Equal(idsIn(t, m.dirs[2]), []sealing.ID{old, next}) })
	if _, refused, _ := rotateKey(t, m.nodes[1], true); refused != nil {
		t.Error(refused)
	}
	want("with the files of before", []int{0, 1, 2, 3}, next)
}

// TestSealingKeyRotationIsKilled proves that wherever a node is killed that replaces the sealing key, it starts again, can open all secrets, and ends with a new
// key alone when the commands are given again.
func TestSealingKeyRotationIsKilled(t *testing.T) {
	dir := t.TempDir()
	var changes, last atomic.Int64
	rotateUntil := func(data string, at int64) (old sealing.ID) {
		last.Store(1 << 40)
		fsys := vfs.NewFaulty(vfs.OS{}, func(op vfs.Op, name string) error {
			isOurs := strings.Contains(name, "data.key") || strings.Contains(name, securedFile)
			if op.Changes() && op != vfs.OpLock && isOurs && changes.Add(1) > last.Load() {
				return errKilled
			}
			return nil
		})
		n, err := startOn(t.Context(), securedConfig(data), fsys, "before")
		if err != nil {
			t.Fatal(err)
		}
		old = idsIn(t, data)[0]
		changes.Store(0)
		last.Store(at)
		for _, finishes := range []bool{false, true} {
			if _, refused, _ := rotateKey(t, n, finishes); refused != nil {
				break
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = n.Stop(ctx) // the disk may fail
		return old
	}
	rotateUntil(filepath.Join(dir, "whole", "data"), 1<<40)
	all := changes.Load()
	if all < 20 {
		t.Fatalf("only %d changes of the disk", all)
	}
	step := int64(1)
	if testing.Short() {
		step = 5
	}
	for at := int64(0); at <= all; at += step {
		data := filepath.Join(dir, time.Duration(at).String(), "data")
		old := rotateUntil(data, at)
		n, err := Start(t.Context(), securedConfig(data))
		if err != nil {
			t.Errorf("after %d of %d changes: %v", at, all, err)
			continue
		}
		ids := idsIn(t, data)
		if by := sealedBy(t, n); !slices.Contains(ids, by) {
			t.Errorf("after %d of %d changes: the secrets are sealed by %v, and there is %v", at, all, by, ids)
		}
		if at < all {
			_, refused, _ := rotateKey(t, n, false)
			if refused != nil {
				t.Errorf("after %d of %d changes: %v", at, all, refused)
			}
		}
		keys, refused, id := rotateKey(t, n, true)
		if ids := idsIn(t, data); refused != nil || !keys.Finished || !slices.Equal(ids, []sealing.ID{id}) || id == old || sealedBy(t, n) != id {
			t.Errorf("after %d of %d changes, and again: %+v, %v, the file has %v, the secrets are sealed by %v", at, all, keys, refused, ids, sealedBy(t, n))
		}
		stop(t, n)
	}
}

// TestSealingKeyIsReplacedAfterSecuring proves that the sealing key of a cluster that was secured while it ran is replaced as that of any other: also for a
// node that was away when the new key was made, before the securing is finished and after, and for one that joins.
func TestSealingKeyIsReplacedAfterSecuring(t *testing.T) {
	if testing.Short() {
		t.Skip("a cluster is restarted")
	}
	m := newSecuredMachines(t, 4, "PLAINTEXT")
	m.start(0, Config{})
	token := m.makeToken(0)
	for i := 1; i < 3; i++ {
		m.start(i, Config{Join: m.ports[:1], Token: token})
	}
	m.awaitVoters(3)
	if _, refused, _ := rotateKey(t, m.nodes[0], false); refused == nil || !strings.Contains(refused.Message, "not secured") {
		t.Errorf("on a plain cluster: %v", refused)
	}
	if _, refused := secure(t, m.nodes[0], cluster.SecureRequest{Verb: cluster.SecureBegin}); refused != nil {
		t.Fatal(refused)
	}
	want := func(what string, nodes []int, ids ...sealing.ID) {
		t.Helper()
		for _, i := range nodes {
			eventually(t, what, func() bool {
				got := idsIn(t, m.dirs[i])
				return slices.Equal(got, ids)
			})
		}
	}
	replace := func(what string) {
		t.Helper()
		old := idsIn(t, m.dirs[0])[0]
		want(what+": before", []int{0, 1, 2}, old)
		m.stop(2)
		keys, refused, next := rotateKey(t, m.nodes[1], false)
		if refused != nil || len(keys.Nodes) < 3 || !keys.Nodes[0].Has || !keys.Nodes[1].Has || keys.Nodes[2].Has {
			t.Fatalf("%s: %+v, %v", what, keys, refused)
		}
		if _, refused, _ := rotateKey(t, m.nodes[1], true); refused == nil || !strings.Contains(refused.Message, "node 3 (") {
			t.Errorf("%s: finishing without node 3: %v", what, refused)
		}
		m.start(2, Config{})
		want(what+": node 3 takes the key", []int{0, 1, 2}, next, old)
		eventually(t, "the key is replaced", func() bool {
			keys, refused, _ = rotateKey(t, m.nodes[1], true)
			return refused == nil && keys.Finished
		})
		want(what+": after", []int{0, 1, 2}, next)
		for i := range 3 {
			if by := sealedBy(t, m.nodes[i]); by != next {
				t.Errorf("%s: node %d has secrets that are sealed by %v, want %v", what, i+1, by, next)
			}
		}
	}
	replace("before the end")
	if _, refused := secure(t, m.nodes[0], cluster.SecureRequest{Verb: cluster.SecureFinish, Force: true}); refused != nil {
		t.Fatal(refused)
	}
	replace("after the end")
	for i := range 3 {
		m.stop(i)
		m.start(i, Config{})
	}
	m.start(3, Config{Join: m.ports[:1], Token: m.makeToken(0)})
	want("at last", []int{0, 1, 2, 3}, idsIn(t, m.dirs[0])...)
}
