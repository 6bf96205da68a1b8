package node

import (
	"context"
	"log/slog"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/vfs"
)

// TestSecuredJoinIsKilled proves that wherever the join of a node to a secured cluster is killed, the same command finishes it: the node is secured, has the cluster's sealing key
// and a certificate of its authority, lets nobody in but users of the cluster, and is one member and not two. When it was removed, it is nothing any more.
func TestSecuredJoinIsKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("a node joins many times")
	}
	m := newSecuredMachines(t, 1, "SASL_SSL")
	m.start(0, Config{Secure: true, Listen: m.ports[:1]})
	first := m.nodes[0]
	login, err := ReadFirstLogin(first.Info().Secured.FirstLogin)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := func(data, token string) Config {
		return Config{
			Data: data, Join: m.ports[:1], Token: token, Listen: []string{"127.0.0.1:0"}, HTTP: "off", Logger: slog.New(slog.DiscardHandler),
			Settings: map[string]string{"group.initial.rebalance.delay.ms": "0"},
		}
	}
	var changes atomic.Int64
	runUntil := func(cfg Config, last int64) (n *Node) { // nil: the start was killed
		changes.Store(0)
		fsys := vfs.NewFaulty(vfs.OS{}, func(op vfs.Op, _ string) error {
			if op.Changes() && op != vfs.OpLock && changes.Add(1) > last {
				return errKilled
			}
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		n, err := startOn(ctx, cfg, fsys, "before")
		if err != nil {
			return nil
		}
		return n
	}
	isMember := func(id int32) bool {
		n := first.image.Load().Nodes[id]
		return n != nil && !n.Removed
	}
	end := func(n *Node) {
		t.Helper()
		id := n.id.nodeID
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = n.Stop(ctx) // the disk may fail
		eventually(t, "the node is removed", func() bool {
			refused, err := first.peers.commands.RemoveNode(t.Context(), id, true)
			return err == nil && refused == nil && !isMember(id)
		})
	}
	n := runUntil(config(filepath.Join(dir, "whole"), m.makeToken(0)), 1<<40)
	if n == nil {
		t.Fatal("a join fails")
	}
	all := changes.Load()
	end(n)
	const step = 9 // another run begins elsewhere
	for last := mathrand.Int64N(step); last < all; last += step {
		data := filepath.Join(dir, "killed", time.Duration(last).String())
		cfg := config(data, m.makeToken(0))
		if n := runUntil(cfg, last); n != nil {
			end(n)
			break
		}
		before := len(first.image.Load().Nodes)
		n, err := Start(t.Context(), cfg)
		if err != nil {
			t.Errorf("after %d of %d changes: %v", last, all, err)
			continue
		}
		if joined := len(first.image.Load().Nodes) - before; joined > 1 || !isMember(n.id.nodeID) {
			t.Errorf("after %d of %d changes there are %d more members", last, all, joined)
		}
		info := n.Info().Secured
		if info == nil {
			t.Fatalf("after %d of %d changes the node is open", last, all)
		}
		if own, err := os.ReadFile(info.SealingKey); err != nil || len(own) == 0 {
			t.Errorf("after %d of %d changes: %v", last, all, err)
		}
		if err := loggedIn(t, n, login).Ping(deadline(t)); err != nil {
			t.Errorf("after %d of %d changes: %v", last, all, err)
		}
		if loggedIn(t, n, BootstrapUser{login.Name, "wrong"}).Ping(deadline(t)) == nil {
			t.Errorf("after %d of %d changes a wrong password lets a client in", last, all)
		}
		stopped := n.id.nodeID
		end(n)
		if isMember(stopped) {
			t.Errorf("after %d of %d changes node %d stays", last, all, stopped)
		}
	}
}
