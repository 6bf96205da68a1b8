package nats

import (
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leatstream/leat/tools/suite/workload"
)

// script is a server's side of a connection that was written down.
type script struct{ io.Reader }

func (script) WriteAll([]byte) error { return nil }

// TestNATSMessages proves that messages are found among the other lines, wherever
// the reads cut them, and that a server's error ends a run.
func TestNATSMessages(t *testing.T) {
	const said = "INFO {}\r\nPING\r\nMSG a 1 5\r\nhello\r\nMSG a 1 reply 0\r\n\r\n+OK\r\nHMSG a 1 12 14\r\nNATS/1.0 503\r\n\r\nMSG a 1 4\r\n\r\n\r\n\r\n"
	for name, r := range map[string]io.Reader{
		"at once": strings.NewReader(said), "byte by byte": iotest.OneByteReader(strings.NewReader(said)),
	} {
		n, err := newConn(script{r})
		if err != nil {
			t.Fatal(name, err)
		}
		var got []string
		for {
			payload, err := n.next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(name, err)
			}
			got = append(got, string(payload))
		}
		if diff := cmp.Diff([]string{"hello", "", "\r\n", "\r\n\r\n"}, got); diff != "" {
			t.Error(name, diff)
		}
	}
	for said, want := range map[string]string{
		"HTTP/1.1 400\r\n":                 "greets",
		"INFO {}\r\n-ERR 'no'\r\n":         "'no'",
		"INFO {}\r\nMSG a 1 x\r\n":         "MSG a 1 x",
		"INFO {}\r\nMSG a 1 999999999\r\n": "1000000001 bytes",
		"INFO {}\r\nMSG a 1 2\r\n{}\r\n":   "instead of",
	} {
		n, err := newConn(script{strings.NewReader(said)})
		if err == nil {
			err = n.ack()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", said, err)
		}
	}
}

// TestNATS proves against a real server that each published message is acknowledged and
// counted, and that every timed message comes back.
func TestNATS(t *testing.T) {
	path, err := exec.LookPath("nats-server")
	if err != nil {
		t.Skip("there is no nats-server: go install github.com/nats-io/nats-server/v2@latest")
	}
	p, err := Program(path)
	if err != nil {
		t.Fatal(err)
	}
	srv, err := p.Start(t.Context(), t.TempDir()+"/nats")
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Stop()
	o := workload.Defaults()
	o.Topic = "messages"
	o.Brokers, o.Records, o.Size, o.Batch, o.Duration = []string{srv.Addr}, 4800, 100, 160, time.Minute
	r, err := Produce(t.Context(), o)
	if err != nil || r.Records != 4800 {
		t.Fatal(r, err)
	}
	o.Rate, o.Duration = 500, 100*time.Millisecond
	if r, err = Latency(t.Context(), o); err != nil || r.Ack.Count != 50 || r.EndToEnd.Count != 50 {
		t.Fatal(r, err)
	}
}
