package classic

import (
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/coord"
	"github.com/leatstream/leat/internal/group/memory"
)

// The scripts and the random histories of package group run this one, too.

// metadata is a consumer's, subscribed to topics written t1+t2.
func metadata(topics string) []byte {
	m := kmsg.NewConsumerMemberMetadata()
	if topics != "" {
		m.Topics = strings.Split(topics, "+")
	}
	return m.AppendTo(nil)
}

// TestWhatIsKeptIsAlone proves that a member's metadata does not keep its request's buffer
// in memory.
func TestWhatIsKeptIsAlone(t *testing.T) {
	account := memory.NewAccount(memory.NewBudget(slog.New(slog.DiscardHandler), 0))
	g := New(&Host{
		Timers: new(coord.Timers), Memory: account, Groups: account,
		Settings: func() Settings { return Settings{} }, NewID: func() string { return "1" },
	}, "g")
	frame := make([]byte, 1000)
	req := kmsg.NewPtrJoinGroupRequest()
	req.Version, req.Group, req.ProtocolType = 3, "g", "other"
	req.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: frame[10:20]}}
	g.Join(coord.NewStep(time.UnixMilli(0)), Client{ID: "c"}, req, func(*kmsg.JoinGroupResponse) {})
	kept := g.members[0].protocols
	if len(kept) != 1 || cap(kept[0].Metadata) >= 1000-20 || &kept[0].Metadata[0] == &frame[10] {
		t.Errorf("%d protocols, %d bytes", len(kept), cap(kept[0].Metadata))
	}
	if _, err := g.Check(); err != nil {
		t.Error(err)
	}
}

// TestSubscription proves that the topics in a consumer's metadata are read, and that
// other bytes are refused.
func TestSubscription(t *testing.T) {
	f := func(b []byte, want string, ok bool) {
		t.Helper()
		got := map[string]struct{}{}
		took, read := addSubscribedTopics(got, b, memory.Max)
		if read != ok {
			t.Errorf("%x: ok is %v", b, !ok)
		}
		if names := strings.Join(slices.Sorted(maps.Keys(got)), " "); ok && (names != want || took != int64(len(got)*(topicBytes+1))) {
			t.Errorf("%x: %q, %d bytes", b, names, took)
		}
	}
	f(metadata("a+b"), "a b", true)
	f(metadata(""), "", true)
	f(nil, "", false)
	f([]byte{0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 1, 'a'}, "", false)
	f(metadata("a+b")[:9], "", false)
}
