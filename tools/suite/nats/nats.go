// Package nats measures NATS JetStream as the load generator measures Kafka's protocol.
// Its text protocol is encoded before the clock starts, pipelined, many messages a write:
//
//	PUB subject reply size CRLF payload CRLF        a message; the stream's answer goes to reply
//	MSG subject sid [reply] size CRLF payload CRLF  a message that a subscription brings
//
// A JSON request to a subject of the form $JS.API.… makes, describes and deletes a
// stream; the answer to a published message is JSON with its number.
package nats

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/leatstream/leat/internal/bench"
	"github.com/leatstream/leat/internal/bench/client"
	"github.com/leatstream/leat/internal/bench/socket"
	"github.com/leatstream/leat/tools/suite/server"
	"github.com/leatstream/leat/tools/suite/workload"
)

const (
	windowSize = 4000 // messages in flight, the limit of NATS's own client
	ackInbox   = "_INBOX.acks"
	pushInbox  = "_INBOX.push"
	hello      = `CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"lang":"go","version":"1","name":"leat-bench"}` + "\r\n"
)

var errNATS = errors.New("NATS")

// wire is one side of a connection to NATS.
type wire interface {
	Read(b []byte) (int, error)
	WriteAll(b []byte) error
}

// netWire makes a connection of the untimed part a wire.
type netWire struct{ net.Conn }

// WriteAll writes all of b.
func (s netWire) WriteAll(b []byte) error {
	_, err := s.Write(b)
	return err
}

// conn reads messages from a connection. A server's PING needs no answer
// within the minutes that a run lasts.
type conn struct {
	wire
	in   []byte
	at   int // read so far
	have int
}

func newConn(w wire) (*conn, error) {
	n := &conn{wire: w, in: make([]byte, 256<<10)}
	if info, err := n.line(); err != nil || !bytes.HasPrefix(info, []byte("INFO ")) {
		return nil, errors.Join(fmt.Errorf("%w: it greets with %q", errNATS, info), err)
	}
	return n, n.WriteAll([]byte(hello))
}

// more reads until there are n bytes beyond at.
func (n *conn) more(want int) error {
	if n.at > 0 && n.at+want > len(n.in) {
		n.have = copy(n.in, n.in[n.at:n.have])
		n.at = 0
	}
	if want > len(n.in) {
		return fmt.Errorf("%w: a message of %d bytes", errNATS, want)
	}
	for n.have-n.at < want {
		k, err := n.Read(n.in[n.have:])
		if err != nil {
			return err
		}
		n.have += k
	}
	return nil
}

// line reads up to CRLF.
func (n *conn) line() ([]byte, error) {
	for want := 1; ; want++ {
		if i := bytes.IndexByte(n.in[n.at:n.have], '\n'); i >= 0 {
			line := n.in[n.at : n.at+i]
			n.at += i + 1
			return bytes.TrimSuffix(line, []byte("\r")), nil
		}
		want = max(want, n.have-n.at+1)
		if err := n.more(want); err != nil {
			return nil, err
		}
	}
}

// next is the payload of the next message; it is valid until the next call.
func (n *conn) next() ([]byte, error) {
	for {
		line, err := n.line()
		if err != nil {
			return nil, err
		}
		verb, rest, _ := bytes.Cut(line, []byte(" "))
		switch string(verb) {
		case "MSG", "HMSG":
			fields := bytes.Fields(rest)
			size, err := strconv.Atoi(string(fields[len(fields)-1]))
			if err != nil || size < 0 {
				return nil, fmt.Errorf("%w: %q", errNATS, line)
			}
			head := 0
			if string(verb) == "HMSG" { // a head, say "no responders", before the payload
				if head, err = strconv.Atoi(string(fields[len(fields)-2])); err != nil || head > size {
					return nil, fmt.Errorf("%w: %q", errNATS, line)
				}
			}
			if err := n.more(size + 2); err != nil {
				return nil, err
			}
			payload := n.in[n.at+head : n.at+size]
			n.at += size + 2
			return payload, nil
		case "-ERR":
			return nil, fmt.Errorf("%w: %s", errNATS, rest)
		}
	}
}

// ack reads the next answer to a published message.
func (n *conn) ack() error {
	payload, err := n.next()
	if err != nil {
		return err
	}
	if !bytes.Contains(payload, []byte(`"seq":`)) || bytes.Contains(payload, []byte(`"error"`)) {
		return fmt.Errorf("%w: %q instead of an acknowledgement", errNATS, payload)
	}
	return nil
}

func publish(b []byte, subject, reply string, payload []byte) []byte {
	b = fmt.Appendf(b, "PUB %s %s %d\r\n", subject, reply, len(payload))
	return append(append(b, payload...), '\r', '\n')
}

// callAPI sends a request to JetStream and returns its answer.
func callAPI(ctx context.Context, addr, subject string, request any) (answer []byte, err error) {
	conn, err := (&net.Dialer{Timeout: client.CallWithin}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := conn.SetDeadline(time.Now().Add(client.CallWithin)); err != nil {
		return nil, err
	}
	n, err := newConn(netWire{conn})
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	const inbox = "_INBOX.call"
	if err := n.WriteAll(publish([]byte("SUB "+inbox+" 1\r\n"), "$JS.API."+subject, inbox, body)); err != nil {
		return nil, err
	}
	if answer, err = n.next(); err != nil {
		return nil, err
	}
	var failed struct {
		Error *struct {
			Description string `json:"description"`
		} `json:"error"`
	}
	if err := json.Unmarshal(answer, &failed); err != nil {
		return nil, fmt.Errorf("%w: %s: %q", errNATS, subject, answer)
	}
	if failed.Error != nil {
		return nil, fmt.Errorf("%w: %s: %s", errNATS, subject, failed.Error.Description)
	}
	return bytes.Clone(answer), nil
}

// checkReady returns an error unless a server and its JetStream answer.
func checkReady(ctx context.Context, addr string) error {
	_, err := callAPI(ctx, addr, "INFO", struct{}{})
	return err
}

// withStream makes a stream in files, and deletes it after do has run and as many
// messages are in it as the result says.
func withStream(ctx context.Context, o *workload.Options, do func() (*workload.Result, error)) (r *workload.Result, err error) {
	addr := o.Brokers[0]
	_, err = callAPI(ctx, addr, "STREAM.CREATE."+o.Topic, map[string]any{
		"name": o.Topic, "subjects": []string{o.Topic}, "storage": "file", "retention": "limits", "num_replicas": 1,
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		_, gone := callAPI(ctx, addr, "STREAM.DELETE."+o.Topic, struct{}{})
		err = errors.Join(err, gone)
	}()
	if r, err = do(); err != nil {
		return nil, err
	}
	answer, err := callAPI(ctx, addr, "STREAM.INFO."+o.Topic, struct{}{})
	if err != nil {
		return nil, err
	}
	var info struct {
		State struct {
			Messages int64 `json:"messages"`
		} `json:"state"`
	}
	if err := json.Unmarshal(answer, &info); err != nil {
		return nil, err
	}
	if info.State.Messages != r.Records {
		return nil, fmt.Errorf("%w: %d messages were acknowledged, but %d are there", workload.ErrVoid, r.Records, info.State.Messages)
	}
	return r, nil
}

// Produce publishes as bench.Produce produces: Batch messages a write, and as many
// in flight as InFlight such writes, but no more than NATS's own client has.
func Produce(ctx context.Context, o workload.Options) (*workload.Result, error) {
	return withStream(ctx, &o, func() (*workload.Result, error) {
		run, err := bench.Connect(ctx, &o.Options, []string{o.Brokers[0]})
		if err != nil {
			return nil, err
		}
		n, err := newConn(run.Sockets[0])
		if err == nil {
			err = n.WriteAll([]byte("SUB " + ackInbox + " 1\r\n"))
		}
		if err != nil {
			run.Close()
			return nil, err
		}
		payload := make([]byte, o.Size)
		for i := range payload {
			payload[i] = byte(rand.Uint32())
		}
		var chunk []byte
		for range o.Batch {
			chunk = publish(chunk, o.Topic, ackInbox, payload)
		}
		p := &producer{
			o: &o, conn: n, measured: run, chunk: chunk, window: int64(max(o.Batch, min(o.Batch*o.InFlight, windowSize))),
		}
		r := &workload.Result{Result: bench.Result{Kind: bench.KindProduce, Options: o.Options}}
		return r, run.Work(ctx, &o.Options, &r.Result, []func() error{p.run})
	})
}

// producer publishes the same messages again and again.
type producer struct {
	o        *workload.Options
	conn     *conn
	measured *bench.Run
	chunk    []byte // sent by one write
	window   int64  // messages in flight
}

func (p *producer) run() error {
	count := &p.measured.Counters[0]
	var sent, acked int64
	for {
		ended := p.measured.Stopped() || p.o.Records > 0 && sent >= p.o.Records
		if ended && acked == sent {
			return nil
		}
		if !ended && sent-acked+int64(p.o.Batch) <= p.window {
			if err := p.conn.WriteAll(p.chunk); err != nil {
				return err
			}
			sent += int64(p.o.Batch)
			continue
		}
		if err := p.conn.ack(); err != nil {
			return err
		}
		acked++
		count.Records.Add(1)
		count.Requests.Add(1)
		count.Bytes.Add(int64(p.o.Size))
	}
}

// Latency times as bench.Latency does; the arrival is that at a push consumer.
func Latency(ctx context.Context, o workload.Options) (*workload.Result, error) {
	warm, total := int(float64(o.Rate)*bench.WarmUp.Seconds()), int(float64(o.Rate)*(bench.WarmUp+o.Duration).Seconds())
	return withStream(ctx, &o, func() (*workload.Result, error) {
		addr := o.Brokers[0]
		run, err := bench.Connect(ctx, &o.Options, []string{addr, addr})
		if err != nil {
			return nil, err
		}
		p := &pacer{
			o: &o, gap: time.Second / time.Duration(o.Rate), total: total, begun: make(chan time.Time, 2),
			late: make([]time.Duration, total), acked: make([]time.Duration, total), arrived: make([]time.Duration, total),
		}
		if err := p.subscribe(ctx, run); err != nil {
			run.Close()
			return nil, err
		}
		giveUp := time.AfterFunc(bench.WarmUp+o.Duration+bench.LostAfter, func() { run.Fail(bench.ErrBehind) })
		defer giveUp.Stop()
		r := &workload.Result{Result: bench.Result{Kind: bench.KindLatency, Options: o.Options}}
		untimed := o.Options
		untimed.Duration = 0
		if err := run.Work(ctx, &untimed, &r.Result, []func() error{p.send, p.confirm, p.consume}); err != nil {
			return nil, err
		}
		r.Records, r.Requests = int64(total), int64(total)
		r.Ack, r.EndToEnd, r.SenderLate = bench.NewQuantiles(p.acked[warm:]), bench.NewQuantiles(p.arrived[warm:]), bench.NewQuantiles(p.late[warm:])
		return r, nil
	})
}

// pacer publishes messages when they are due and waits for both of their ways back.
type pacer struct {
	o                    *workload.Options
	gap                  time.Duration
	total                int
	publisher, receiver  *conn
	begun                chan time.Time // for confirm and for consume
	late, acked, arrived []time.Duration
}

func (p *pacer) subscribe(ctx context.Context, run *bench.Run) (err error) {
	if p.publisher, err = newConn(run.Sockets[0]); err != nil {
		return err
	}
	if p.receiver, err = newConn(run.Sockets[1]); err != nil {
		return err
	}
	if err := p.publisher.WriteAll([]byte("SUB " + ackInbox + " 1\r\n")); err != nil {
		return err
	}
	if err := p.receiver.WriteAll([]byte("SUB " + pushInbox + " 1\r\nPING\r\n")); err != nil {
		return err
	}
	for { // the server must know the subscription before the consumer is made
		line, err := p.receiver.line()
		if err != nil {
			return err
		}
		if string(line) == "PONG" {
			break
		}
	}
	_, err = callAPI(ctx, p.o.Brokers[0], "CONSUMER.CREATE."+p.o.Topic, map[string]any{
		"stream_name": p.o.Topic,
		"config":      map[string]any{"deliver_subject": pushInbox, "ack_policy": "none", "deliver_policy": "all", "replay_policy": "instant"},
	})
	return err
}

func (p *pacer) send() error {
	socket.SharpenTimers()
	begin := time.Now().Add(50 * time.Millisecond)
	p.begun <- begin
	p.begun <- begin
	payload := make([]byte, p.o.Size)
	var b []byte
	for i := range p.total {
		due := begin.Add(time.Duration(i) * p.gap)
		socket.SleepUntil(due)
		p.late[i] = time.Since(due)
		binary.BigEndian.PutUint64(payload, uint64(i))
		b = publish(b[:0], p.o.Topic, ackInbox, payload)
		if err := p.publisher.WriteAll(b); err != nil {
			return err
		}
	}
	return nil
}

func (p *pacer) confirm() error {
	begin := <-p.begun
	for i := range p.total {
		if err := p.publisher.ack(); err != nil {
			return err
		}
		p.acked[i] = time.Since(begin.Add(time.Duration(i) * p.gap))
	}
	return nil
}

func (p *pacer) consume() error {
	begin := <-p.begun
	for i := range p.total {
		payload, err := p.receiver.next()
		if err != nil {
			return err
		}
		if len(payload) != p.o.Size || binary.BigEndian.Uint64(payload) != uint64(i) {
			return fmt.Errorf("%w: message %d did not come when it was due", workload.ErrVoid, i)
		}
		p.arrived[i] = time.Since(begin.Add(time.Duration(i) * p.gap))
	}
	return nil
}

// Program is NATS with JetStream and its default settings.
func Program(path string) (*server.Program, error) {
	said, err := exec.Command(path, "--version").Output() //nolint:gosec,noctx // the user of the suite names the programs, and this one ends at once
	if err != nil {
		return nil, errors.New("there is no nats-server; scripts/bench.sh installs it")
	}
	return &server.Program{
		About: "nats-server -js -sd DIR -a ADDR -p PORT, " + parseVersion(string(said)),
		Probe: checkReady,
		Command: func(dir, addr string) (string, []string) {
			host, port, _ := net.SplitHostPort(addr) // it is one of ours
			return path, []string{"-js", "-sd", dir, "-a", host, "-p", port}
		},
	}, nil
}

// parseVersion finds the version in the program's answer to --version.
func parseVersion(said string) string {
	_, version, ok := strings.Cut(strings.TrimSpace(said), " ")
	if !ok {
		return "of an unknown version"
	}
	return version
}
