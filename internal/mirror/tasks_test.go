package mirror_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leatstream/leat/internal/config"
	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror"
	"github.com/leatstream/leat/internal/mirror/tunnel"
)

// withTasks runs a test on the node of the active controller.
func withTasks(t *testing.T, test func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		test(newRig(t, func(c *mirror.Config) { c.IsController = func() bool { return true } }))
	})
}

// names are the names of the topics here that mirror, in order.
func (r *rig) names() (list []string) {
	for t := range r.image.Load().Topics() {
		if t.IsMirror() {
			list = append(list, t.Name)
		}
	}
	slices.Sort(list)
	return list
}

// task is the status of a task.
func (r *rig) task(name string) mirror.TaskStatus {
	for _, s := range r.service.Tasks() {
		if s.Task == name {
			return s
		}
	}
	return mirror.TaskStatus{}
}

func (r *rig) configOf(topic, key string) string {
	return r.image.Load().Overrides(config.Resource{Type: config.Topic, Name: topic})[key]
}

// TestTopicsAreMade proves that the topics which a link chooses are made here with their partitions and configs, by the names that the link gives them, and that those it leaves out are told of.
func TestTopicsAreMade(t *testing.T) {
	withTasks(t, func(r *rig) {
		r.source.create("orders", 3, 1)
		r.source.create("orders-eu", 2, 2)
		r.source.create("orders-app-changelog", 1, 3)
		r.source.create("__consumer_offsets", 1, 4)
		r.source.create("payments", 1, 5)
		r.source.create("taken", 1, 6)
		r.source.change(func() {
			c := r.source.topics["orders"].configs
			c["cleanup.policy"], c["retention.ms"], c["leader.replication.throttled.replicas"], c["unknown.config"] = "compact", "1234567", "*", "x"
		})
		r.apply(meta.Append(nil, meta.TopicCreated{ID: meta.UUID{15: 200}, Name: "x.taken"}))
		r.link(meta.LinkSetting{Key: "topics", Value: "orders*,__consumer*,taken,absent"}, meta.LinkSetting{Key: "prefix", Value: "x."}, meta.LinkSetting{Key: "rename", Value: "orders-eu=eu"})
		r.await("the topics are made", func() bool { return len(r.names()) == 2 })
		if got := r.names(); !slices.Equal(got, []string{"eu", "x.orders"}) {
			r.Errorf("%q", got)
		}
		made := r.image.Load().Topic("x.orders")
		if m := made.Mirror; len(made.Partitions) != 3 || m.Topic != "orders" || m.TopicID != (meta.UUID{9, 15: 1}) || !slices.Equal(m.Path, []string{"there"}) || m.Link != linkID {
			r.Errorf("%+v, %+v", made, m)
		}
		if got := r.configOf("x.orders", "cleanup.policy") + r.configOf("x.orders", "retention.ms") + r.configOf("x.orders", "leader.replication.throttled.replicas"); got != "compact1234567" {
			r.Errorf("the configs are %q", got)
		}
		reason := r.task("topics").Reason
		for _, want := range []string{"__consumer_offsets is not mirrored", "orders-app-changelog is not mirrored", "Topic taken is not mirrored, since there is a topic x.taken here", "There are more warnings, 1."} {
			if !strings.Contains(reason, want) {
				r.Errorf("no %q in %q", want, reason)
			}
		}
		if s := r.task("topics"); s.State != mirror.TaskRunning || s.Last.IsZero() || s.Link != linkID {
			r.Errorf("%+v", s)
		}
	})
}

// TestTopicsGrow proves that new partitions of a source are here within 5 s, and changed configs within a minute; what a person has changed here of them is put back.
func TestTopicsGrow(t *testing.T) {
	withTasks(t, func(r *rig) {
		r.source.create("orders", 1, 1)
		r.link(meta.LinkSetting{Key: "topics", Value: "*"})
		r.await("the topic is made", func() bool { return len(r.names()) == 1 })
		r.source.grow("orders", 4)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if n := len(r.image.Load().Topic("orders").Partitions); n != 4 {
			r.Errorf("%d partitions", n)
		}
		for _, retention := range []string{"700000", "800000"} {
			r.source.change(func() { r.source.topics["orders"].configs["retention.ms"] = retention })
			time.Sleep(time.Minute)
			if synctest.Wait(); r.configOf("orders", "retention.ms") != retention {
				r.Errorf("retention.ms is %q, and not %s", r.configOf("orders", "retention.ms"), retention)
			}
		}
		_, _ = r.alterConfigs(r.Context(), []controller.ConfigChanges{{Resource: config.Resource{Type: config.Topic, Name: "orders"}, Changes: []controller.ConfigChange{
			{Op: controller.Set, Key: "retention.ms", Value: "1"}, {Op: controller.Set, Key: "min.insync.replicas", Value: "2"},
		}}})
		time.Sleep(time.Minute)
		if synctest.Wait(); r.configOf("orders", "retention.ms") != "800000" || r.configOf("orders", "min.insync.replicas") != "2" {
			r.Errorf("retention.ms is %q", r.configOf("orders", "retention.ms"))
		}
		for i := range int32(4) {
			r.lead("orders", i, 1)
		}
		r.source.produce("orders", 3, 2, 10)
		r.awaitCopies("orders", 4)
	})
}

// TestCyclesAreRefused proves that a topic which has come from this cluster, over however many others, is not mirrored back, and that one that comes over others keeps its path.
func TestCyclesAreRefused(t *testing.T) {
	withTasks(t, func(r *rig) {
		r.source.create("back", 1, 1)
		r.source.create("chained", 1, 2)
		r.source.change(func() {
			r.source.topics["back"].configs[meta.MirrorPathConfig] = "here,other"
			r.source.topics["chained"].configs[meta.MirrorPathConfig] = "origin,other"
		})
		r.link(meta.LinkSetting{Key: "topics", Value: "*"})
		r.await("the topic is made", func() bool { return len(r.names()) == 1 })
		if got := r.image.Load().Topic("chained").Mirror.Path; !slices.Equal(got, []string{"origin", "other", "there"}) {
			r.Errorf("%q", got)
		}
		if reason := r.task("topics").Reason; !strings.Contains(reason, "Topic back is not mirrored, since it comes from this cluster: over here, other, there.") {
			r.Errorf("%q", reason)
		}
	})
}

// TestTasksWait proves that a task whose source does not answer says so, and goes on when it does; and that tasks of a paused link are paused.
func TestTasksWait(t *testing.T) {
	withTasks(t, func(r *rig) {
		r.source.create("orders", 1, 1)
		r.source.stop(1)
		r.source.stop(2)
		r.link(meta.LinkSetting{Key: "topics", Value: "*"})
		r.await("it waits", func() bool { return r.task("topics").State == mirror.TaskWaiting })
		if s := r.task("topics"); !strings.Contains(s.Reason, "refuses the connection") || !s.Last.IsZero() {
			r.Errorf("%+v", s)
		}
		r.source.restart(2)
		r.await("the topic is made", func() bool { return len(r.names()) == 1 })
		r.await("they run", func() bool {
			return r.task("topics").State == mirror.TaskRunning && r.task("configs").State == mirror.TaskRunning
		})
		isPaused := true
		r.must(&controller.LinksChange{Kind: controller.ChangeLink, LinkID: linkID, Change: &controller.LinkChange{Paused: &isPaused}})
		r.await("it is paused", func() bool {
			return r.task("topics").State == mirror.TaskPaused && r.task("configs").State == mirror.TaskPaused
		})
	})
}

// TestSourceIsFoundByAgents proves that a link which is reached by agents, and made before its source could be asked, learns which cluster that is and its tag by an agent alone, and mirrors then; that it stays as it is, and says why, if the source is this very cluster or has its tag;
// and that the connections stay when another agent gets a token.
func TestSourceIsFoundByAgents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r *rig
		var isConnected atomic.Bool
		var dials atomic.Int64
		r = newRig(t, func(c *mirror.Config) {
			c.IsController = func() bool { return true }
			direct := c.Dial
			c.Dial = func(context.Context, string, string) (net.Conn, error) {
				return nil, errors.New("it cannot be dialled")
			}
			c.DialByAgent = func(ctx context.Context, link meta.UUID, address string) (net.Conn, error) {
				if link != linkID || !isConnected.Load() {
					return nil, tunnel.ErrNoAgent
				}
				dials.Add(1)
				return direct(ctx, "tcp", address)
			}
		})
		r.source.create("orders", 1, 1)
		l := &meta.Link{ID: linkID, Name: "north", Settings: []meta.LinkSetting{{Key: "bootstrap.servers", Value: "b1:9092"}, {Key: "topics", Value: "*"}, {Key: "via", Value: "agent"}}}
		r.must(&controller.LinksChange{Kind: controller.CreateLink, Link: l})
		says := func(words string) {
			t.Helper()
			r.await("the task says "+words, func() bool {
				return slices.ContainsFunc(r.service.Tasks(), func(s mirror.TaskStatus) bool {
					return s.State == mirror.TaskWaiting && strings.Contains(s.Reason, words)
				})
			})
		}
		now := func() *meta.Link { return r.image.Load().Links().Find(linkID) }
		says("no agent of the link")
		r.source.change(func() { r.source.id = "here" })
		isConnected.Store(true)
		says("this cluster")
		if now().Source != "" {
			t.Errorf("its source is %q", now().Source)
		}
		r.source.change(func() { r.source.id = "there" })
		r.await("the topic is made", func() bool { return r.image.Load().Topic("orders") != nil })
		if now().Source != "there" {
			t.Errorf("its source is %q", now().Source)
		}
		r.await("nothing is dialled any more", func() bool {
			before := dials.Load()
			time.Sleep(time.Minute)
			return dials.Load() == before
		})
		before := dials.Load()
		r.must(&controller.LinksChange{Kind: controller.ChangeLink, LinkID: linkID, Change: &controller.LinkChange{Agent: &controller.AgentChange{Made: &meta.LinkAgent{Token: [8]byte{1}, Expires: 1}}}})
		time.Sleep(time.Minute)
		if dials.Load() != before {
			t.Error("the connections were made anew for a token")
		}
	})
}
