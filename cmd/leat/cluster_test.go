//go:build unix

package main_test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// clusterSight is the part of the output of "leat cluster -o json" that the tests look at.
type clusterSight struct {
	ID      string `json:"id"`
	Level   int16  `json:"metadata_level"`
	Brokers []struct {
		ID      int32  `json:"id"`
		Address string `json:"address"`
		State   string `json:"state"`
		Role    string `json:"role"`
		Highest int16  `json:"highest_level"`
		Leads   int    `json:"leads"`
		Disk    int64  `json:"disk_total"`
		Free    int64  `json:"disk_usable"`
	} `json:"brokers"`
	Offline int `json:"offline_partitions"`
	Missing int `json:"under_replicated_partitions"`
}

// lookAtCluster runs the verb that shows the cluster.
func lookAtCluster(t *testing.T, addr string) (c clusterSight) {
	t.Helper()
	r := tryVerb(t, t.TempDir(), "", "cluster -o json --bootstrap "+addr)
	r.expect(t, 0)
	if err := json.Unmarshal([]byte(r.stdout), &c); err != nil {
		t.Fatalf("%v: %s", err, r.stdout)
	}
	return c
}

// countActive counts the nodes that serve.
func (c *clusterSight) countActive() (n int) {
	for _, b := range c.Brokers {
		if b.State == "active" {
			n++
		}
	}
	return n
}

// countVoters counts the nodes that vote on the metadata.
func (c *clusterSight) countVoters() (n int) {
	for _, b := range c.Brokers {
		if b.Role == "leader" || b.Role == "voter" {
			n++
		}
	}
	return n
}

// awaitCluster looks at a cluster until it is as it should be. The node that answers may not have heard of the
// newest changes, or may be starting.
func awaitCluster(t *testing.T, addr, what string, ok func(c *clusterSight) bool) {
	t.Helper()
	for until := time.Now().Add(readyLimit); ; {
		var c clusterSight
		r := tryVerb(t, t.TempDir(), "", "cluster -o json --bootstrap "+addr)
		if r.code == 0 && json.Unmarshal([]byte(r.stdout), &c) == nil && ok(&c) {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("not within %v: %s\n%s%s", readyLimit, what, r.stdout, r.stderr)
		}
	}
}

// TestClusterShowsANode proves that the table has all facts about a node of Leat.
func TestClusterShowsANode(t *testing.T) {
	t.Parallel()
	p := up(t, t.TempDir(), "--rack", "r1")
	tryVerb(t, t.TempDir(), "", "topic create t --partitions 3 --bootstrap "+p.addr).expect(t, 0)
	c := lookAtCluster(t, p.addr)
	if len(c.Brokers) != 1 || len(c.ID) != 22 || c.Level < 1 || c.Offline != 0 || c.Missing != 0 {
		t.Fatalf("%+v", c)
	}
	b := c.Brokers[0]
	if b.ID != 1 || b.Address != p.addr || b.State != "active" || b.Role != "leader" || b.Highest < c.Level || b.Leads != 3 || b.Disk <= 0 || b.Free > b.Disk {
		t.Errorf("%+v", b)
	}
	text := tryVerb(t, t.TempDir(), "", "cluster --bootstrap "+p.addr).stdout
	if strings.Contains(text, "does not tell") || !strings.Contains(text, "All partitions have a leader") || !strings.Contains(text, "  r1  ") {
		t.Error(text)
	}
}

// TestFinalize proves that the level of an earlier version's metadata stays as it is until somebody raises
// it, that the verb says from which level to which, and that it can be run again.
func TestFinalize(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	unpack(t, filepath.Join(formats, "v1-stopped.tar.gz"), dir)
	p := up(t, dir, formatSettings...)
	before := lookAtCluster(t, p.addr)
	if before.Level != 0 || before.Brokers[0].Highest < 1 {
		t.Fatalf("%+v", before)
	}
	if text := tryVerb(t, t.TempDir(), "", "cluster --bootstrap "+p.addr).stdout; !strings.Contains(text, "leat cluster finalize") {
		t.Errorf("it does not say that the level can be raised:\n%s", text)
	}
	raised := tryVerb(t, t.TempDir(), "", "cluster finalize --bootstrap "+p.addr)
	raised.expect(t, 0)
	if !strings.Contains(raised.stdout, "raised the level of leat.metadata from 0 to ") || !strings.Contains(raised.stdout, "raised the level of transaction.version from 0 to 2") {
		t.Error(raised.stdout)
	}
	if after := lookAtCluster(t, p.addr); after.Level != before.Brokers[0].Highest {
		t.Errorf("%+v", after)
	}
	again := tryVerb(t, t.TempDir(), "", "cluster finalize --bootstrap "+p.addr)
	again.expect(t, 0)
	if !strings.Contains(again.stdout, "there is nothing to do") {
		t.Error(again.stdout)
	}
	p.stop(t)
	p = up(t, dir, formatSettings...)
	if after := lookAtCluster(t, p.addr); after.Level != before.Brokers[0].Highest {
		t.Errorf("after a restart: %+v", after)
	}
}
