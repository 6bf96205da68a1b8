package mirror_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/mirror/progress"
)

// promote begins the promotion of a topic, and returns what is known of the source of its first partition then.
func (r *rig) promote(name string) *meta.Parting {
	r.Helper()
	r.must(&controller.LinksChange{Kind: controller.PromoteMirrors, Topics: []controller.MirrorTopic{{ID: r.image.Load().Topic(name).ID}}})
	r.await("the promotion is noted", func() bool { return r.status(name, 0).Parting != nil })
	if s := r.status(name, 0); s.State != progress.Promoting {
		r.Errorf("%+v", s)
	}
	return r.status(name, 0).Parting
}

// stopAll stops all brokers of the source.
func (r *rig) stopAll() {
	r.source.stop(1)
	r.source.stop(2)
}

// TestPartings proves what is noted of the source when a partition is promoted: where it ended and how much of it is missing here, when it has last answered, and as of when all of it was here; that what is not known is
// noted as that; and that it stays as it was when the promotion began.
func TestPartings(t *testing.T) {
	t.Run("all is here, and the source is gone", func(t *testing.T) {
		inBubble(t, func(r *rig) {
			r.source.create("orders", 1, 1)
			r.source.produce("orders", 0, 7, 100)
			r.link()
			r.mirror("orders")
			r.awaitCopies("orders", 1)
			time.Sleep(5 * time.Second)
			gone := time.Now().UnixMilli()
			r.stopAll()
			time.Sleep(time.Minute)
			begun := time.Now().UnixMilli()
			p := r.promote("orders")
			if p.State != meta.PartitionMirrors || p.End != 7 || p.SourceEnd != 7 || p.Bytes != 0 || p.BegunMs < begun || p.BegunMs > begun+1000 {
				r.Errorf("%+v", p)
			}
			if p.ContactMs > gone || p.ContactMs < gone-2000 || p.AsOfMs > p.ContactMs || p.AsOfMs < gone-4000 {
				r.Errorf("it was gone at %d: %+v", gone, p)
			}
			time.Sleep(time.Minute)
			if again := r.status("orders", 0).Parting; again != p {
				r.Errorf("it becomes %+v", again)
			}
			r.lead("orders", 0, 1)
			synctest.Wait()
			if again := r.status("orders", 0).Parting; again != p {
				r.Errorf("in the next epoch it becomes %+v", again)
			}
			r.lead("orders", 0, 2)
			synctest.Wait()
			r.lead("orders", 0, 1)
			r.await("it leads again", func() bool { return r.status("orders", 0).Parting != nil })
			if p := r.status("orders", 0).Parting; p.State != 0 || p.End != 7 || p.SourceEnd != -1 || p.Bytes != -1 || p.ContactMs != 0 || p.AsOfMs != 0 || p.BegunMs == 0 {
				r.Errorf("a leader that has not led before knows %+v", p)
			}
		})
	})
	t.Run("it is behind", func(t *testing.T) {
		inBubble(t, func(r *rig) {
			r.source.create("orders", 1, 1)
			r.link(meta.LinkSetting{Key: "throttle.bytes.per.second", Value: "1000000"})
			r.mirror("orders")
			for range 200 {
				r.source.produce("orders", 0, 1, 100_000)
			}
			r.await("some is here", func() bool { return r.status("orders", 0).Log.End > 20 })
			r.stopAll()
			synctest.Wait()
			end := int64(r.status("orders", 0).Log.End)
			p := r.promote("orders")
			if missing := 200 - end; p.SourceEnd != 200 || p.End != end || p.Bytes < missing*90_000 || p.Bytes > missing*110_000 {
				r.Errorf("the log ends at %d: %+v", end, p)
			}
		})
	})
	t.Run("it has a gap", func(t *testing.T) {
		inBubble(t, func(r *rig) {
			r.source.create("orders", 1, 1)
			r.source.produce("orders", 0, 5, 10)
			r.link()
			topic := r.mirror("orders")
			r.awaitCopies("orders", 1)
			r.must(&controller.LinksChange{Kind: controller.PauseMirrors, Topics: []controller.MirrorTopic{{ID: topic.ID}}})
			for range 4 {
				r.source.produce("orders", 0, 5, 10)
			}
			r.source.trim("orders", 0, 20)
			r.must(&controller.LinksChange{Kind: controller.ResumeMirrors, Topics: []controller.MirrorTopic{{ID: topic.ID}}})
			r.awaitState("orders", 0, progress.Gap)
			if p := r.promote("orders"); p.State != meta.PartitionGap || p.End != 5 || p.SourceEnd != 20 || p.Bytes != -1 {
				r.Errorf("%+v", p)
			}
		})
	})
	t.Run("the source has another topic", func(t *testing.T) {
		inBubble(t, func(r *rig) {
			r.source.create("orders", 1, 1)
			r.source.produce("orders", 0, 5, 10)
			r.link()
			r.mirror("orders")
			r.awaitCopies("orders", 1)
			r.source.create("orders", 1, 2)
			r.source.produce("orders", 0, 9, 10)
			r.awaitState("orders", 0, progress.SourceRecreated)
			if p := r.promote("orders"); p.State != meta.PartitionRecreated || p.End != 5 || p.SourceEnd != -1 || p.Bytes != -1 {
				r.Errorf("%+v", p)
			}
		})
	})
	t.Run("nothing has ever come", func(t *testing.T) {
		inBubble(t, func(r *rig) {
			r.source.create("orders", 1, 1)
			r.link()
			r.stopAll()
			r.mirror("orders")
			r.awaitState("orders", 0, progress.Waiting)
			if p := r.promote("orders"); p.State != meta.PartitionMirrors || p.End != 0 || p.SourceEnd != -1 || p.Bytes != -1 || p.ContactMs != 0 || p.AsOfMs != 0 {
				r.Errorf("%+v", p)
			}
		})
	})
}

// TestProbes proves who is taken to be a source that answers: any broker at one of the link's addresses, also one that lets nobody in or is of another cluster; and that silence is told with its reason.
func TestProbes(t *testing.T) {
	for what, c := range map[string]struct {
		prepare func(r *rig)
		answers bool
		words   string
	}{
		"both answer":             {nil, true, "The source answers at b"},
		"one answers":             {func(r *rig) { r.source.stop(1) }, true, "The source answers at b2:9092."},
		"one cannot be reached":   {func(r *rig) { r.source.unreachable = "b1:9092"; r.source.stop(1) }, true, "The source answers at b2:9092."},
		"none answers":            {(*rig).stopAll, false, "Nobody answers at b1:9092: "},
		"another cluster answers": {func(r *rig) { r.source.id = "other" }, true, "another cluster answers, other, and not there."},
		"it is too old":           {func(r *rig) { r.source.fetchMax = 9 }, true, "does not let this link in"},
	} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(r *rig) {
				r.link()
				if c.prepare != nil {
					c.prepare(r)
				}
				began := time.Now()
				a, err := r.service.Probe(r.Context(), r.image.Load().Links().Find(linkID), nil)
				if err != nil || a.Answers != c.answers || !strings.Contains(a.Text, c.words) || !c.answers && !strings.Contains(a.Text, "Nobody answers at b2:9092: ") {
					r.Errorf("%+v, %v", a, err)
				}
				if d := time.Since(began); d > 6*time.Second {
					r.Errorf("it took %v", d)
				}
			})
		})
	}
	inBubble(t, func(r *rig) {
		if _, err := r.service.Probe(r.Context(), &meta.Link{Settings: []meta.LinkSetting{{Key: "no.such", Value: "x"}}}, nil); err == nil {
			r.Error("a link that cannot be")
		}
	})
	inBubble(t, func(r *rig) { // the nodes cannot dial the source of such a link: that they do not reach it says nothing
		r.link()
		l := *r.image.Load().Links().Find(linkID)
		l.Settings = append(slices.Clone(l.Settings), meta.LinkSetting{Key: "via", Value: meta.ViaAgent})
		if a, err := r.service.Probe(r.Context(), &l, nil); err != nil || !a.Answers || !strings.HasPrefix(a.Text, "No agent of the link is connected") {
			r.Errorf("by agents: %+v, %v", a, err)
		}
	})
}
