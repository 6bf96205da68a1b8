package cli

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestBenchEnds proves that a run that was interrupted, or that failed, deletes the
// topic that it made.
func TestBenchEnds(t *testing.T) {
	for name, test := range map[string]struct {
		key  kmsg.Key
		args string
		do   func(interrupt func(), req kmsg.Request) (kmsg.Response, bool)
		says string
	}{
		"interrupted while it produces": {
			kmsg.Produce, "bench produce",
			func(interrupt func(), _ kmsg.Request) (kmsg.Response, bool) { interrupt(); return nil, false }, "interrupted",
		},
		"interrupted while it fills": {
			kmsg.Produce, "bench consume",
			func(interrupt func(), _ kmsg.Request) (kmsg.Response, bool) { interrupt(); return nil, false }, "interrupted",
		},
		"interrupted while the topic is made": {
			kmsg.Metadata, "bench latency",
			func(interrupt func(), _ kmsg.Request) (kmsg.Response, bool) { interrupt(); return nil, false }, "interrupted",
		},
		"refused": {
			kmsg.Fetch, "bench consume --records 16",
			func(_ func(), req kmsg.Request) (kmsg.Response, bool) {
				resp := req.ResponseKind().(*kmsg.FetchResponse)
				resp.ErrorCode = kerr.TopicAuthorizationFailed.Code
				return resp, true
			}, "refused a fetch",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := kfake.MustCluster(kfake.NumBrokers(1))
			t.Cleanup(c.Close)
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			c.ControlKey(test.key.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
				resp, handled := test.do(interrupt, req)
				return resp, nil, handled
			})
			var out, said strings.Builder
			args := append(strings.Fields(test.args), "-b", c.ListenAddrs()[0])
			if code := Main(ctx, args, strings.NewReader(""), &out, &said); code != exitFailed || !strings.Contains(said.String(), test.says) {
				t.Errorf("exit code %d: %s%s", code, out.String(), said.String())
			}
			if left := topicNames(t, c.ListenAddrs()); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func topicNames(t *testing.T, brokers []string) []string {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	list, err := kadm.NewClient(cl).ListTopics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return list.Names()
}

// TestBenchLosesNextConnection proves that a broker that has answered and then takes no more
// connections is called lost, not one that was never there.
func TestBenchLosesNextConnection(t *testing.T) {
	c := kfake.MustCluster(kfake.NumBrokers(1))
	defer c.Close()
	addr := c.ListenAddrs()[0]
	// The run fills its topic; the connection over which it asks for the topic's leader is closed.
	var filled atomic.Bool
	c.ControlKey(kmsg.Produce.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
		filled.Store(true)
		return nil, nil, false
	})
	c.ControlKey(kmsg.ApiVersions.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if filled.Load() {
			return nil, errors.New("no connection begins"), true
		}
		return nil, nil, false
	})
	var out, said strings.Builder
	code := Main(t.Context(), strings.Fields("bench consume --records 16 --timeout 5s -b "+addr), strings.NewReader(""), &out, &said)
	if code != exitUnreachable || !strings.Contains(said.String(), "lost the broker on "+addr) {
		t.Errorf("exit code %d: %s%s", code, out.String(), said.String())
	}
}
