package cluster

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/peer"
)

// TestLinksReachTheController proves that changes of links, of topics that mirror and of their partitions reach the active controller from any node, and may be asked for twice, as
// after a lost answer; that their effects are seen on the node that has asked; and that what was refused, of the whole or of one topic, comes back with its sentence.
func TestLinksReachTheController(t *testing.T) {
	w := newWorld(t)
	all := w.startMembers(3, 1, nil)
	link := &meta.Link{
		ID: meta.UUID{1, 15: 2}, Name: "north", Source: "BBBBBBBBBBBBBBBBBBBBBB", Secret: []byte{0, 255},
		Settings: []meta.LinkSetting{{Key: "bootstrap.servers", Value: "h:1"}, {Key: "topics", Value: "a*"}},
	}
	ask := func(m *member, q *controller.LinksChange) []*controller.Error {
		t.Helper()
		results, refused, err := ChangeLinks(t.Context(), m.ctl, q)
		if refused != nil || err != nil {
			t.Fatal(refused, err)
		}
		return results
	}
	mirror := func(name string) controller.MirrorTopic {
		return controller.MirrorTopic{Name: name, Partitions: 2, ReplicationFactor: 3, Configs: map[string]string{"retention.ms": "5"}, Mirror: &meta.Mirror{
			Link: link.ID, Topic: "s", TopicID: meta.UUID{7}, Path: []string{link.Source},
		}}
	}
	for _, m := range all[1:] {
		for range 2 {
			if results := ask(m, &controller.LinksChange{Kind: controller.CreateLink, Link: link}); results != nil {
				t.Error(results)
			}
		}
		if got := m.meta.image.Load().Links().FindName("north"); !got.Equal(link) {
			t.Errorf("node %d has the link %+v", m.id, got)
		}
		results := ask(m, &controller.LinksChange{Kind: controller.CreateMirrors, Topics: []controller.MirrorTopic{mirror("a"), mirror("b c"), mirror("d")}})
		if len(results) != 3 || results[0] != nil || results[1] == nil || results[1].Kind != controller.InvalidTopic || !strings.Contains(results[1].Message, "'b c'") || results[2] != nil {
			t.Errorf("%v", results)
		}
		topic := m.meta.image.Load().Topic("a")
		if topic == nil || !topic.IsMirror() || len(topic.Partitions) != 2 {
			t.Fatalf("node %d has the topic %+v", m.id, topic)
		}
		number := topic.Partitions[1].Mirror.LastCut().Number + 1
		cut := controller.MirrorPartition{Topic: topic.ID, Number: 1, LeaderEpoch: topic.Partitions[1].LeaderEpoch, Cut: meta.Cut{Number: number, Offset: 9}}
		for range 2 {
			if results := ask(m, &controller.LinksChange{Kind: controller.CutMirrors, Partitions: []controller.MirrorPartition{cut}}); len(results) != 1 || results[0] != nil {
				t.Error(results)
			}
			if got := m.meta.image.Load().Topic("a").Partitions[1]; got.Mirror.LastCut() != cut.Cut || got.LeaderEpoch != cut.LeaderEpoch+1 {
				t.Errorf("node %d has the partition %+v, %+v", m.id, got, got.Mirror)
			}
		}
		_, refused, err := ChangeLinks(t.Context(), m.ctl, &controller.LinksChange{Kind: controller.RemoveLink, LinkID: link.ID})
		if refused == nil || refused.Kind != controller.PolicyViolation || !strings.Contains(refused.Message, "2 topics mirror") || err != nil {
			t.Errorf("a link that is used: %v, %v", refused, err)
		}
	}
	large := mirror(strings.Repeat("x", maxCommand))
	if _, _, err := ChangeLinks(t.Context(), all[1].ctl, &controller.LinksChange{Kind: controller.CreateMirrors, Topics: []controller.MirrorTopic{large}}); !errors.Is(err, peer.ErrTooLarge) {
		t.Errorf("a change that is too large: %v", err)
	}
	all[0].kill()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, _, err := ChangeLinks(ctx, all[1].ctl, &controller.LinksChange{Kind: controller.CreateLink, Link: link}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without a controller: %v", err)
	}
}
