package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/controller"
	"github.com/leatstream/leat/internal/meta"
	"github.com/leatstream/leat/internal/quorum"
)

var record431 = flag.Bool("record", false, "write what the Kafka at LEAT_TEST_KAFKA answers into testdata")

const golden = "testdata/kafka-4.3.1-admin.txt"

// newAdminRig is a rig with a controller; static are the node's own settings.
func newAdminRig(t *testing.T, static map[string]string) *rig {
	t.Helper()
	st, err := meta.NewStatic(1, static)
	if err != nil {
		t.Fatal(err)
	}
	var g *rig
	g = newRig(t, func(c *Config) {
		c.Static, c.LogDir = st, "/data"
		c.Quorum = func() quorum.Status {
			return quorum.Status{Leader: 1, Term: 1, Voters: []int32{1}, Commit: 7, Applied: 7}
		}
		c.Controller = controller.New(controller.Config{Image: c.Image, Static: st, Propose: func(_ context.Context, b []byte) error {
			img, d, err := meta.Apply(c.Image(), b)
			if err != nil {
				return err
			}
			g.image.Store(img)
			g.set.Apply(d, img)
			return nil
		}})
	})
	g.apply(meta.BrokerRegistered{Broker: meta.Broker{ID: 1, Host: "127.0.0.1", Port: 9092, Rack: "r0", Epoch: 1}})
	return g
}

// step is a request in a series; id tells the id of a topic made before.
type step struct {
	name string
	req  func(id func(topic string) [16]byte) kmsg.Request
}

// TestAdminAnswersAreKafkas proves that a series of requests of the admin APIs gets
// the codes, the messages and the contents that Apache Kafka 4.3.1 gave for it,
// which are kept in testdata. With LEAT_TEST_KAFKA, the address of a fresh Kafka
// with node.id=1 and broker.rack=r0, it proves too that the record is Kafka's.
func TestAdminAnswersAreKafkas(t *testing.T) {
	want, err := os.ReadFile(golden)
	if err != nil && !*record431 {
		t.Fatal(err)
	}
	if addr := os.Getenv("LEAT_TEST_KAFKA"); addr != "" {
		got := transcript(t, addr)
		if *record431 {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			want = []byte(got)
		}
		if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); d != "" {
			t.Errorf("Kafka answers otherwise than recorded: %s", d)
		}
	}
	got := transcript(t, newAdminRig(t, nil).addr)
	for name, theirs := range sections(string(want)) {
		if b, ok := betterThanKafka()[name]; ok {
			theirs = b + "\n\n"
		}
		if ours := sections(got)[name]; ours != theirs {
			t.Errorf("%s: %s", name, cmp.Diff(strings.Split(theirs, "\n"), strings.Split(ours, "\n")))
		}
	}
	if len(sections(got)) != len(adminSteps()) || len(sections(got)) != len(sections(string(want))) {
		t.Error("the series of requests is not the one recorded: record it again")
	}
}

func sections(s string) map[string]string {
	all := map[string]string{}
	for part := range strings.SplitSeq(s, "## ") {
		if name, body, ok := strings.Cut(part, "\n"); ok {
			all[name] = body
		}
	}
	return all
}

func transcript(t *testing.T, addr string) string {
	t.Helper()
	c := dial(t, addr)
	ids := map[string][16]byte{}
	var out strings.Builder
	for _, s := range adminSteps() {
		req := s.req(func(topic string) [16]byte { return ids[topic] })
		resp := ask[kmsg.Response](c, req)
		if made, ok := resp.(*kmsg.CreateTopicsResponse); ok {
			for _, mt := range made.Topics {
				if mt.ErrorCode == 0 {
					ids[mt.Topic] = mt.TopicID
				}
			}
		}
		fmt.Fprintf(&out, "## %s: %s v%d\n%s\n\n", s.name, kmsg.NameForKey(req.Key()), req.GetVersion(), plain(t, resp))
	}
	return out.String()
}

// plain writes an answer without what differs from run to run: ids, ports, times,
// the order of what has no order.
func plain(t *testing.T, resp kmsg.Response) string {
	t.Helper()
	b, err := json.Marshal(resp)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(simplify(v)); err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(strings.TrimSpace(buf.String()), "},{", "},\n{")
}

func simplify(v any) any {
	switch v := v.(type) {
	case map[string]any:
		return simplifyObject(v)
	case []any:
		v = slices.DeleteFunc(slices.Clone(v), ownDefault)
		for i := range v {
			v[i] = simplify(v[i])
		}
		slices.SortFunc(v, func(a, b any) int { return strings.Compare(sortKey(a), sortKey(b)) })
		if len(v) == 0 {
			return nil // null and empty lists mean the same to clients
		}
		return v
	default:
		return v
	}
}

func simplifyObject(v map[string]any) any {
	for k, x := range v {
		switch k {
		case "UnknownTags", "ThrottleMillis", "Version", "Documentation", "HighWatermark", "LastFetchTimestamp",
			"LastCaughtUpTimestamp", "LogEndOffset", "TotalBytes", "UsableBytes", "Dir":
			delete(v, k)
		case "Port", "ClusterID", "LeaderEpoch":
			v[k] = "*"
		case "TopicID", "ReplicaDirectoryID":
			v[k] = "none"
			if list, _ := x.([]any); slices.ContainsFunc(list, func(b any) bool { return b != 0.0 }) {
				v[k] = "an id"
			}
		case "ConfigSynonyms", "Replicas", "ISR": // their order says something
			if list, _ := x.([]any); len(list) == 0 {
				delete(v, k)
			}
		default:
			if v[k] = simplify(x); v[k] == nil || v[k] == 0.0 || v[k] == false {
				delete(v, k)
			}
		}
	}
	return v
}

// ownDefault tells whether an item of an answer is a topic's config whose default is
// ours and not Kafka's, or which only a later Kafka has.
func ownDefault(v any) bool {
	c, _ := v.(map[string]any)
	switch c["Name"] {
	case "flush.messages", "min.insync.replicas", "errors.deadletterqueue.group.enable", "max.decompressed.message.bytes",
		"remote.copy.lag.bytes", "remote.copy.lag.ms":
		return true
	}
	return false
}

func sortKey(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

// TestControllerFails proves that a command which the quorum does not take is
// answered with an error for each item, and one that is late with a time-out.
func TestControllerFails(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int16
	}{{quorum.ErrNotLeader, 41}, {context.DeadlineExceeded, 7}, {errors.New("disk"), -1}} {
		g := newRig(t, func(cfg *Config) {
			cfg.Static, _ = meta.NewStatic(1, nil)
			cfg.Quorum = func() quorum.Status { return quorum.Status{} }
			cfg.Controller = controller.New(controller.Config{
				Image: cfg.Image, Static: cfg.Static,
				Propose: func(context.Context, []byte) error { return c.err },
			})
		})
		g.topic("there", 1)
		cl := dial(t, g.addr)
		made := ask[*kmsg.CreateTopicsResponse](cl, createTopics(7, false, topicOf("a", 1, 1)))
		gone := ask[*kmsg.DeleteTopicsResponse](cl, deleteNames(5, "there"))
		set := ask[*kmsg.IncrementalAlterConfigsResponse](cl, alter(2, "there", "segment.ms", "5"))
		more := ask[*kmsg.CreatePartitionsResponse](cl, morePartitionsOf(3, "there", 5))
		for _, code := range []int16{made.Topics[0].ErrorCode, gone.Topics[0].ErrorCode, set.Resources[0].ErrorCode, more.Topics[0].ErrorCode} {
			if code != c.code {
				t.Errorf("%v is answered with %d, want %d", c.err, code, c.code)
			}
		}
	}
}
