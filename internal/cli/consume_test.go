package cli

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestConsumeFromBeyondEnd proves that an offset beyond the end is the end, with and without a group: no
// old record is written, and the next ones are.
func TestConsumeFromBeyondEnd(t *testing.T) {
	c := kfake.MustCluster(kfake.NumBrokers(1))
	t.Cleanup(c.Close)
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.DefaultProduceTopic("t"))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if _, err := kadm.NewClient(cl).CreateTopic(t.Context(), 1, 1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(t.Context(), kgo.StringRecord("old"), kgo.StringRecord("old")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	for _, flags := range [][]string{nil, {"--group", "g"}} {
		args := append([]string{"consume", "t", "--from", "1000000000", "--count", "1", "-b", c.ListenAddrs()[0]}, flags...)
		var out strings.Builder
		ended := make(chan int, 1)
		// The consumer may begin after some of the new records, but never before an old one.
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			defer cancel()
			ended <- Main(t.Context(), args, strings.NewReader(""), &out, io.Discard)
		}()
		for ctx.Err() == nil {
			if err := cl.ProduceSync(ctx, kgo.StringRecord("new")).FirstErr(); err != nil && ctx.Err() == nil {
				t.Fatal(err)
			}
		}
		if code := <-ended; code != exitOK || out.String() != "new\n" {
			t.Errorf("%v: exit code %d, output %q", args, code, out.String())
		}
	}
}
