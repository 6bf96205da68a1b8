package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/cluster"
	"github.com/leatstream/leat/internal/record"
)

// consumeSome has a consumer of a group read so many records of a topic, commit, and leave. It returns them.
func consumeSome(t *testing.T, client func(opts ...kgo.Opt) *kgo.Client, group, topic string, count int) (read []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cl := client(kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer cl.Close()
	for len(read) < count {
		fs := cl.PollRecords(ctx, count-len(read))
		if err := fs.Err(); err != nil {
			t.Fatal(err)
		}
		fs.EachRecord(func(r *kgo.Record) { read = append(read, fmt.Sprintf("%d-%d", r.Partition, r.Offset)) })
	}
	if err := cl.CommitUncommittedOffsets(ctx); err != nil {
		t.Fatal(err)
	}
	return read
}

// committed are the positions that a client is told, as in topic-partition:offset; "-": there are none.
func committed(t *testing.T, cl *kgo.Client, group string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	list, err := kadm.NewClient(cl).FetchOffsets(ctx, group)
	if err != nil {
		return err.Error()
	}
	all := []string{}
	list.Each(func(o kadm.OffsetResponse) {
		if o.Err != nil {
			all = append(all, o.Err.Error())
			return
		}
		text := fmt.Sprintf("%s-%d:%d", o.Topic, o.Partition, o.At)
		if o.Metadata != "" && !strings.HasPrefix(o.Metadata, "kgo-") { // a member has its id there
			text += " " + o.Metadata
		}
		all = append(all, text)
	})
	if slices.Sort(all); len(all) == 0 {
		return "-"
	}
	return strings.Join(all, " ")
}

// awaitCommitted waits until clients are told some positions of a group here.
func (s *site) awaitCommitted(group, want string) {
	s.t.Helper()
	got := ""
	defer func() {
		if s.t.Failed() {
			s.t.Logf("the group %s has %s, want %s", group, got, want)
			s.logMirrors()
		}
	}()
	cl := s.client()
	defer cl.Close()
	eventually(s.t, "group "+group+" is at "+want, func() bool {
		got = committed(s.t, cl, group)
		return got == want
	})
}

// setPosition commits a position of a group without members.
func setPosition(t *testing.T, cl *kgo.Client, group string, o kadm.Offset) {
	t.Helper()
	of := kadm.Offsets{}
	of.Add(o)
	if err := kadm.NewClient(cl).CommitAllOffsets(deadline(t), group, of); err != nil {
		t.Fatal(err)
	}
}

func at(topic string, partition int32, offset int64, metadata string) kadm.Offset {
	return kadm.Offset{Topic: topic, Partition: partition, At: offset, LeaderEpoch: -1, Metadata: metadata}
}

// positionsTask is how the task for positions does; nil: no node tells.
func (s *site) positionsTask() *cluster.TaskStatus {
	for _, n := range s.nodes {
		if n == nil {
			continue
		}
		for _, st := range n.linking.ListTasks() {
			if st.Task == "positions" {
				return &st
			}
		}
	}
	return nil
}

// awaitMode waits until positions are followed in a way.
func (s *site) awaitMode(mode string) {
	s.t.Helper()
	eventually(s.t, "positions are "+mode, func() bool {
		st := s.positionsTask()
		return st != nil && st.Positions.Mode == mode && st.State == "RUNNING"
	})
}

// TestPositionsFollow proves, with a cluster that mirrors another one, that a consumer of a group here goes on where the group was at the source, and that resets are followed.
func TestPositionsFollow(t *testing.T) {
	there, here := newSite(t, 1), newSite(t, 3)
	there.create("orders", 2, nil)
	there.produce("orders", 100)
	here.link(there, map[string]string{"prefix": "north."})
	here.awaitMirroredAs(there, "orders", "north.orders")
	first := consumeSome(t, there.client, "billing", "orders", 120)
	want := strings.ReplaceAll(committed(t, there.client(), "billing"), "orders", "north.orders")
	here.awaitCommitted("billing", want)
	here.awaitMode("tailed")
	rest := consumeSome(t, here.client, "billing", "north.orders", 80)
	if all := append(slices.Clone(first), rest...); len(all) != 200 || len(slices.Compact(slices.Sorted(slices.Values(all)))) != 200 {
		t.Errorf("the consumers have read %d records there and %d others here", len(first), len(rest))
	}
	cl := there.client()
	setPosition(t, cl, "audit", at("orders", 0, 90, "by hand"))
	setPosition(t, cl, "audit", at("orders", 1, 50, ""))
	here.awaitCommitted("audit", "north.orders-0:90 by hand north.orders-1:50")
	setPosition(t, cl, "audit", at("orders", 0, 10, ""))
	here.awaitCommitted("audit", "north.orders-0:10 north.orders-1:50")
}

// TestPositionsOfActiveGroups proves that a group with members here is left alone, also afterwards as long as it has committed here later than at the source, and is followed again after a later commit there.
func TestPositionsOfActiveGroups(t *testing.T) {
	there, here := newSite(t, 1), newSite(t, 1)
	there.create("orders", 1, nil)
	there.produce("orders", 100)
	here.link(there, nil)
	here.awaitMirrored(there, "orders")
	cl := there.client()
	setPosition(t, cl, "billing", at("orders", 0, 10, ""))
	here.awaitCommitted("billing", "orders-0:10")
	member := here.client(kgo.ConsumerGroup("billing"), kgo.ConsumeTopics("orders"), kgo.DisableAutoCommit())
	if fs := member.PollRecords(deadline(t), 5); fs.NumRecords() != 5 || fs.Records()[0].Offset != 10 {
		t.Fatalf("the member here reads %v", fs.Records())
	}
	setPosition(t, cl, "billing", at("orders", 0, 70, ""))
	eventually(t, "the position is left alone", func() bool {
		st := here.positionsTask()
		return st != nil && st.Positions.Held["the group has members here"] == 1
	})
	if err := member.CommitUncommittedOffsets(deadline(t)); err != nil {
		t.Fatal(err)
	}
	member.Close()
	here.awaitCommitted("billing", "orders-0:15")
	setPosition(t, cl, "other", at("orders", 0, 33, "")) // behind it in time, so that what came before was decided on
	here.awaitCommitted("other", "orders-0:33")
	here.awaitCommitted("billing", "orders-0:15")
	setPosition(t, cl, "billing", at("orders", 0, 71, ""))
	here.awaitCommitted("billing", "orders-0:71")
}

// TestPositionsOfTransactions proves that positions of transactions wait for their markers: those of one that is committed are followed, those of one that is aborted are not.
func TestPositionsOfTransactions(t *testing.T) {
	there, here := newSite(t, 1), newSite(t, 1)
	there.create("in", 1, nil)
	there.create("out", 1, nil)
	there.produce("in", 100)
	here.link(there, nil)
	here.awaitMirrored(there, "in")
	s, err := kgo.NewGroupTransactSession(kgo.SeedBrokers(there.ports...), kgo.TransactionalID("copier"), kgo.ConsumerGroup("copy"), kgo.ConsumeTopics("in"), kgo.DefaultProduceTopic("out"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	copySome(t, s, 30, kgo.TryCommit)
	here.awaitCommitted("copy", "in-0:30")
	copySome(t, s, 30, kgo.TryAbort)
	setPosition(t, there.client(), "later", at("in", 0, 5, ""))
	here.awaitCommitted("later", "in-0:5")
	here.awaitCommitted("copy", "in-0:30")
	copySome(t, s, 40, kgo.TryCommit)
	here.awaitCommitted("copy", "in-0:70")
}

// TestPositionsAreBounded proves that a position beyond what the mirror has is told as its end until the records are here, by the coordinator of the group, whichever node leads the partition.
func TestPositionsAreBounded(t *testing.T) {
	there, here := newSite(t, 1), newSite(t, 3)
	there.create("orders", 6, nil)
	there.produce("orders", 20)
	here.link(there, nil)
	here.awaitMirrored(there, "orders")
	ask := func(verb cluster.LinkVerb) {
		t.Helper()
		a, refused, err := here.any().linking.ServeLink(deadline(t), &cluster.LinkRequest{Verb: verb, Name: "north", Topics: []string{"orders"}})
		if refused != nil || err != nil || !a.Changed {
			t.Fatalf("%+v, %v, %v", a, refused, err)
		}
	}
	ask(cluster.LinkPause)
	there.produce("orders", 20)
	var want, bounded []string
	for p := range 6 {
		setPosition(t, there.client(), "billing", at("orders", int32(p), int64(15+p*2), "mine"))
		want = append(want, fmt.Sprintf("orders-%d:%d mine", p, 15+p*2))
		if bounded = append(bounded, want[p]); 15+p*2 > 20 {
			bounded[p] = fmt.Sprintf("orders-%d:20", p)
		}
	}
	here.awaitCommitted("billing", strings.Join(bounded, " "))
	ask(cluster.LinkResume)
	here.awaitCommitted("billing", strings.Join(want, " "))
}

// TestPositionsSurviveRestarts proves that positions go on after restarts of nodes here and there, whichever node coordinates the groups and runs the task, and that what is here already is not committed again.
func TestPositionsSurviveRestarts(t *testing.T) {
	there, here := newSite(t, 1), newSite(t, 3)
	there.create("orders", 1, nil)
	there.produce("orders", 100)
	here.link(there, nil)
	here.awaitMirrored(there, "orders")
	cl := there.client()
	groups := func(offset int64) {
		t.Helper()
		for g := range 6 {
			setPosition(t, cl, fmt.Sprint("group-", g), at("orders", 0, offset, ""))
		}
	}
	await := func(offset int) {
		t.Helper()
		for g := range 6 {
			here.awaitCommitted(fmt.Sprint("group-", g), fmt.Sprintf("orders-0:%d", offset))
		}
	}
	groups(5)
	await(5)
	for i := range 2 {
		here.stop(i)
		groups(int64(10 + i))
		await(10 + i)
		here.start(i, Config{})
	}
	eventually(t, "all replicas are in sync", func() bool {
		for _, p := range here.any().image.Load().Topic("__consumer_offsets").Partitions {
			if len(p.ISR) != 3 {
				return false
			}
		}
		return true
	})
	before := int64(-1)
	eventually(t, "all groups have coordinators", func() bool { before = here.offsetsEnd(); return before >= 0 })
	for i, n := range here.nodes {
		if _, is := n.quorum.Leading(); is {
			here.stop(i)
			here.start(i, Config{})
		}
	}
	began := time.Now()
	eventually(t, "all is known again", func() bool {
		st := here.positionsTask()
		return st != nil && st.Positions.Groups == 6 && st.Last.After(began)
	})
	after := int64(-1)
	eventually(t, "all groups have coordinators again", func() bool { after = here.offsetsEnd(); return after >= 0 })
	if after != before {
		t.Errorf("%d records were written for what was here already", after-before)
	}
}

// offsetsEnd is how many records the logs of groups have together; -1: some have no leader now.
func (s *site) offsetsEnd() (sum int64) {
	for p := range s.partitions("__consumer_offsets") {
		end := record.Offset(-1)
		for _, n := range s.nodes {
			if n == nil {
				continue
			}
			if of := n.set.Partition("__consumer_offsets", int32(p)); of != nil && of.CheckLeader(record.NoEpoch) == nil {
				if e, err := of.End(); err == nil {
					end = e
				}
			}
		}
		if end < 0 {
			return -1
		}
		sum += int64(end)
	}
	return sum
}
