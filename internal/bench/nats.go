package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"time"
)

// NATS JetStream in the suite: its text protocol, spoken like Kafka's by the other
// runs: encoded before the clock starts, pipelined, many messages a write.
//
//	PUB subject reply size CRLF payload CRLF        a message; the stream's answer goes to reply
//	MSG subject sid [reply] size CRLF payload CRLF  what a subscription brings
//
// A JSON request to a subject of the form $JS.API.… makes, describes and deletes a
// stream; the answer to a published message is JSON with its number.

const (
	natsWindow = 4000 // messages in flight, the limit of NATS's own client
	natsAcks   = "_INBOX.acks"
	natsPush   = "_INBOX.push"
	natsHello  = `CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"lang":"go","version":"1","name":"leat-bench"}` + "\r\n"
)

var errNATS = errors.New("NATS")

// natsWire is one side of a connection to NATS.
type natsWire interface {
	read(b []byte) (int, error)
	write(b []byte) error
}

// natsSocket makes a connection of the untimed part a natsWire.
type natsSocket struct{ net.Conn }

func (s natsSocket) read(b []byte) (int, error) { return s.Read(b) }

func (s natsSocket) write(b []byte) error {
	_, err := s.Write(b)
	return err
}

// natsConn reads messages from a connection. A server's PING needs no answer
// within the minutes that a run lasts.
type natsConn struct {
	natsWire
	in   []byte
	at   int // read so far
	have int
}

func newNATS(w natsWire) (*natsConn, error) {
	n := &natsConn{natsWire: w, in: make([]byte, 256<<10)}
	if info, err := n.line(); err != nil || !bytes.HasPrefix(info, []byte("INFO ")) {
		return nil, errors.Join(fmt.Errorf("%w: it greets with %q", errNATS, info), err)
	}
	return n, n.write([]byte(natsHello))
}

// more reads until there are n bytes beyond at.
func (n *natsConn) more(want int) error {
	if n.at > 0 && n.at+want > len(n.in) {
		n.have = copy(n.in, n.in[n.at:n.have])
		n.at = 0
	}
	if want > len(n.in) {
		return fmt.Errorf("%w: a message of %d bytes", errNATS, want)
	}
	for n.have-n.at < want {
		k, err := n.read(n.in[n.have:])
		if err != nil {
			return err
		}
		n.have += k
	}
	return nil
}

// line reads up to CRLF.
func (n *natsConn) line() ([]byte, error) {
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
func (n *natsConn) next() ([]byte, error) {
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
func (n *natsConn) ack() error {
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

// natsCall sends a request to JetStream and returns its answer.
func natsCall(ctx context.Context, addr, subject string, request any) (answer []byte, err error) {
	conn, err := (&net.Dialer{Timeout: callWithin}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := conn.SetDeadline(time.Now().Add(callWithin)); err != nil {
		return nil, err
	}
	n, err := newNATS(natsSocket{conn})
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	const inbox = "_INBOX.call"
	if err := n.write(publish([]byte("SUB "+inbox+" 1\r\n"), "$JS.API."+subject, inbox, body)); err != nil {
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

// natsReady tells whether a server and its JetStream answer.
func natsReady(ctx context.Context, addr string) error {
	_, err := natsCall(ctx, addr, "INFO", struct{}{})
	return err
}

// natsStream makes a stream in files, and deletes it after do has run and as many
// messages are in it as the result says.
func natsStream(ctx context.Context, o *Options, do func() (*Result, error)) (r *Result, err error) {
	addr := o.Brokers[0]
	_, err = natsCall(ctx, addr, "STREAM.CREATE."+o.Topic, map[string]any{
		"name": o.Topic, "subjects": []string{o.Topic}, "storage": "file", "retention": "limits", "num_replicas": 1,
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		_, gone := natsCall(ctx, addr, "STREAM.DELETE."+o.Topic, struct{}{})
		err = errors.Join(err, gone)
	}()
	if r, err = do(); err != nil {
		return nil, err
	}
	answer, err := natsCall(ctx, addr, "STREAM.INFO."+o.Topic, struct{}{})
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
		return nil, fmt.Errorf("%w: %d messages were acknowledged, but %d are there", errVoid, r.Records, info.State.Messages)
	}
	return r, nil
}

// natsProduce publishes as Produce produces: Batch messages a write, and as many
// in flight as InFlight such writes, but no more than NATS's own client has.
func natsProduce(ctx context.Context, o Options) (*Result, error) {
	return natsStream(ctx, &o, func() (*Result, error) {
		crew, err := connect(ctx, &o, []string{o.Brokers[0]})
		if err != nil {
			return nil, err
		}
		n, err := newNATS(crew.sockets[0])
		if err == nil {
			err = n.write([]byte("SUB " + natsAcks + " 1\r\n"))
		}
		if err != nil {
			crew.close()
			return nil, err
		}
		payload := make([]byte, o.Size)
		for i := range payload {
			payload[i] = byte(rand.Uint32())
		}
		var chunk []byte
		for range o.Batch {
			chunk = publish(chunk, o.Topic, natsAcks, payload)
		}
		p := &natsProducer{
			o: &o, conn: n, crew: crew, chunk: chunk, window: int64(max(o.Batch, min(o.Batch*o.InFlight, natsWindow))),
		}
		r := &Result{Kind: "produce", Options: o}
		return r, crew.work(ctx, &o, r, []func() error{p.run})
	})
}

// natsProducer publishes the same messages again and again.
type natsProducer struct {
	o      *Options
	conn   *natsConn
	crew   *crew
	chunk  []byte // what one write sends
	window int64  // messages in flight
}

func (p *natsProducer) run() error {
	count := &p.crew.counters[0]
	var sent, acked int64
	for {
		ended := p.crew.stop.Load() || p.o.Records > 0 && sent >= p.o.Records
		if ended && acked == sent {
			return nil
		}
		if !ended && sent-acked+int64(p.o.Batch) <= p.window {
			if err := p.conn.write(p.chunk); err != nil {
				return err
			}
			sent += int64(p.o.Batch)
			continue
		}
		if err := p.conn.ack(); err != nil {
			return err
		}
		acked++
		count.records.Add(1)
		count.requests.Add(1)
		count.bytes.Add(int64(p.o.Size))
	}
}

// natsLatency times as Latency does; the arrival is that at a push consumer.
func natsLatency(ctx context.Context, o Options) (*Result, error) {
	warm, total := int(float64(o.Rate)*warmUp.Seconds()), int(float64(o.Rate)*(warmUp+o.Duration).Seconds())
	return natsStream(ctx, &o, func() (*Result, error) {
		addr := o.Brokers[0]
		crew, err := connect(ctx, &o, []string{addr, addr})
		if err != nil {
			return nil, err
		}
		p := &natsPacer{
			o: &o, gap: time.Second / time.Duration(o.Rate), total: total, begun: make(chan time.Time, 2),
			late: make([]time.Duration, total), acked: make([]time.Duration, total), arrived: make([]time.Duration, total),
		}
		if err := p.subscribe(ctx, crew); err != nil {
			crew.close()
			return nil, err
		}
		watch := time.AfterFunc(warmUp+o.Duration+lostAfter, func() { crew.fail(errBehind) })
		defer watch.Stop()
		r := &Result{Kind: "latency", Options: o}
		untimed := o
		untimed.Duration = 0
		if err := crew.work(ctx, &untimed, r, []func() error{p.send, p.confirm, p.consume}); err != nil {
			return nil, err
		}
		r.Records, r.Requests = int64(total), int64(total)
		r.Ack, r.EndToEnd, r.SenderLate = quantiles(p.acked[warm:]), quantiles(p.arrived[warm:]), quantiles(p.late[warm:])
		return r, nil
	})
}

// natsPacer publishes messages when they are due and waits for both of their ways back.
type natsPacer struct {
	o                    *Options
	gap                  time.Duration
	total                int
	publisher, receiver  *natsConn
	begun                chan time.Time // for confirm and for consume
	late, acked, arrived []time.Duration
}

func (p *natsPacer) subscribe(ctx context.Context, crew *crew) (err error) {
	if p.publisher, err = newNATS(crew.sockets[0]); err != nil {
		return err
	}
	if p.receiver, err = newNATS(crew.sockets[1]); err != nil {
		return err
	}
	if err := p.publisher.write([]byte("SUB " + natsAcks + " 1\r\n")); err != nil {
		return err
	}
	if err := p.receiver.write([]byte("SUB " + natsPush + " 1\r\nPING\r\n")); err != nil {
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
	_, err = natsCall(ctx, p.o.Brokers[0], "CONSUMER.CREATE."+p.o.Topic, map[string]any{
		"stream_name": p.o.Topic,
		"config":      map[string]any{"deliver_subject": natsPush, "ack_policy": "none", "deliver_policy": "all", "replay_policy": "instant"},
	})
	return err
}

func (p *natsPacer) send() error {
	sharpTimers()
	begin := time.Now().Add(50 * time.Millisecond)
	p.begun <- begin
	p.begun <- begin
	payload := make([]byte, p.o.Size)
	var b []byte
	for i := range p.total {
		due := begin.Add(time.Duration(i) * p.gap)
		preciseSleep(due)
		p.late[i] = time.Since(due)
		be.PutUint64(payload, uint64(i))
		b = publish(b[:0], p.o.Topic, natsAcks, payload)
		if err := p.publisher.write(b); err != nil {
			return err
		}
	}
	return nil
}

func (p *natsPacer) confirm() error {
	begin := <-p.begun
	for i := range p.total {
		if err := p.publisher.ack(); err != nil {
			return err
		}
		p.acked[i] = time.Since(begin.Add(time.Duration(i) * p.gap))
	}
	return nil
}

func (p *natsPacer) consume() error {
	begin := <-p.begun
	for i := range p.total {
		payload, err := p.receiver.next()
		if err != nil {
			return err
		}
		if len(payload) != p.o.Size || be.Uint64(payload) != uint64(i) {
			return fmt.Errorf("%w: message %d did not come when it was due", errVoid, i)
		}
		p.arrived[i] = time.Since(begin.Add(time.Duration(i) * p.gap))
	}
	return nil
}

// natsVersion is what the program says of itself.
func natsVersion(said string) string {
	_, version, ok := strings.Cut(strings.TrimSpace(said), " ")
	if !ok {
		return "of an unknown version"
	}
	return version
}
