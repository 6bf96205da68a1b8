package main_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// chaosAdmin is an administrator who makes and deletes topics, moves replicas and has leaders elected
// without pause. What it was told it expects to find in the end. Its goroutine owns it until that has ended.
type chaosAdmin struct {
	nodes  int
	rng    *rand.Rand
	expect map[string]bool // topics that were made (true) or deleted (false)
	made   int
	moves  int // reassignments that were accepted
}

const temporaryTopics = "temporary-"

// addAdministrator adds an administrator to a load.
func (l *chaosLoad) addAdministrator(ctx context.Context, t *testing.T, nodes int, seed uint64) *chaosAdmin {
	t.Helper()
	a := &chaosAdmin{nodes: nodes, rng: rand.New(rand.NewPCG(seed, 4)), expect: map[string]bool{}}
	cl := l.client(t, kgo.RetryTimeout(5*time.Second))
	l.writers.Go(func() {
		defer cl.Close()
		adm := kadm.NewClient(cl)
		for ; ctx.Err() == nil; pause(ctx, time.Duration(a.rng.IntN(1000))*time.Millisecond) {
			a.act(ctx, adm)
		}
	})
	return a
}

// act does one thing. An error tells nothing about what was done.
func (a *chaosAdmin) act(ctx context.Context, adm *kadm.Client) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	switch a.rng.IntN(4) {
	case 0:
		name := fmt.Sprint(temporaryTopics, a.made)
		a.made++
		if resp, err := adm.CreateTopic(ctx, 3, -1, nil, name); err == nil && resp.Err == nil {
			a.expect[name] = true
		}
	case 1:
		for name, exists := range a.expect {
			if exists {
				delete(a.expect, name) // until the answer it may be there or not
				if resp, err := adm.DeleteTopic(ctx, name); err == nil && resp.Err == nil {
					a.expect[name] = false
				}
				return
			}
		}
	case 2:
		if a.nodes == 3 {
			return // all have everything
		}
		var to []int32
		for _, i := range a.rng.Perm(a.nodes)[:3] {
			to = append(to, int32(i+1))
		}
		var req kadm.AlterPartitionAssignmentsReq
		req.Assign("plain", int32(a.rng.IntN(3)), to)
		if resp, err := adm.AlterPartitionAssignments(ctx, req); err == nil && resp.Error() == nil {
			a.moves++
		}
	case 3:
		_, _ = adm.ElectLeaders(ctx, kadm.ElectPreferredReplica, nil)
	}
}

// check proves that every node knows the topics that it should.
func (a *chaosAdmin) check(t *testing.T, c *chaosCluster) {
	t.Helper()
	for _, m := range c.machines {
		md, err := m.metadata(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, topic := range md.Topics {
			names = append(names, *topic.Topic)
		}
		for name, exists := range a.expect {
			if slices.Contains(names, name) != exists {
				t.Errorf("%v: topic %s is there: %v; the answer to the administrator said otherwise", m, name, !exists)
			}
		}
	}
	t.Logf("%d topics were made, %d reassignments accepted", a.made, a.moves)
}
