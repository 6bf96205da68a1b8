package replica

import (
	"context"
	"errors"
	"testing"

	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/record"
	"github.com/leatstream/leat/internal/replica/progress"
)

// TestStrangePartitionsAreBounded proves that a follower's session takes partitions that are not here, but not
// many more than the cluster has: others are refused at once, and are to be asked for later. It proves too
// that a partition which leaves the session leaves nothing behind.
func TestStrangePartitionsAreBounded(t *testing.T) {
	runCluster(t, 1, func(c *cluster) {
		c.manyTopics(2)
		set := c.node(1).present().set
		c.eventually("the partitions are here", func() bool { return set.TopicByID(c.anyTopic()) != nil })
		r := &FetchRequest{Replica: 2, MaxBytes: 1, MinBytes: 1}
		serve := func() *FetchAnswer {
			t.Helper()
			released := 0
			r.Release = func() { released++ }
			a, err := set.ServeFetch(c.t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			if released != 1 {
				t.Errorf("the lists of a request are released %d times", released)
			}
			a.Release()
			r.Session, r.Number = a.Session, r.Number+1
			return a
		}
		var asked []PartitionID
		for round := range 15 {
			topic := meta.NewUUID()
			for i := range int32(MaxNamed) {
				id := PartitionID{Topic: topic, Partition: i}
				asked = append(asked, id)
				r.Partitions = append(r.Partitions, PartitionFetch{ID: id, LastEpoch: record.NoEpoch})
			}
			a := serve()
			if want := max(0, min(MaxNamed, MaxNamed*(round-11))); len(a.Partitions) != want {
				t.Fatalf("round %d: %d partitions are answered, and %d were expected", round, len(a.Partitions), want)
			}
			for _, p := range a.Partitions {
				if p.Verdict != progress.Unavailable || p.ID.Topic != topic {
					t.Fatalf("%+v", p)
				}
			}
		}
		s := set.sessions.byFollower[2]
		if len(s.missing) != len(s.subs) || len(s.subs) != 12*MaxNamed {
			t.Errorf("%d of %d partitions are missing", len(s.missing), len(s.subs))
		}
		for i := 0; i < len(asked); i += MaxNamed {
			r.Forgotten = asked[i : i+MaxNamed]
			serve()
		}
		if len(s.missing)+len(s.subs)+len(s.ready)+len(s.refused) != 0 {
			t.Errorf("%d, %d, %d and %d partitions are left", len(s.missing), len(s.subs), len(s.ready), len(s.refused))
		}
	})
}

// TestOneFetchAtATime proves that a second request of a session is refused while one is served, so that a
// follower cannot have many wait.
func TestOneFetchAtATime(t *testing.T) {
	runCluster(t, 1, func(c *cluster) {
		set := c.node(1).present().set
		a, err := set.ServeFetch(c.t.Context(), &FetchRequest{Replica: 2})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(c.t.Context())
		first := make(chan error, 1)
		go func() {
			_, err := set.ServeFetch(ctx, &FetchRequest{Replica: 2, Session: a.Session, Number: 1, MaxWait: longestPoll})
			first <- err
		}()
		c.eventually("the first waits", func() bool { return len(set.sessions.byFollower[2].turn) == 1 })
		if _, err := set.ServeFetch(c.t.Context(), &FetchRequest{Replica: 2, Session: a.Session, Number: 2}); !errors.Is(err, ErrSessionLost) {
			t.Error(err)
		}
		cancel()
		if err := <-first; err != nil {
			t.Error(err)
		}
	})
}
