package interop

import (
	"crypto/tls"
	"crypto/x509/pkix"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	flowPause = 2 * time.Millisecond // between two records of a flow
	flowMS    = 2*reauthMS + 500     // so long records flow: a client logs in again twice
)

// TestLongConnections proves that a client which is connected for longer than a login lasts logs in again on the connection
// (KIP-368), and that neither this nor a new certificate of the server is noticed by the application: a producer and a member of a
// group see no error, and no record is lost.
func TestLongConnections(t *testing.T) {
	for _, c := range visitors() {
		if c.can.noFlow {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, k := range c.kits {
				k.have(t)
			}
			s := sharedSecured(t)
			user := "steady." + c.name
			s.addClient(t, user)
			topic := fmt.Sprintf("%s.open.%d", user, names.Add(1))
			createTopic(t, s.broker, topic, 1, nil)
			flow{c: c, s: s, topic: topic, login: s.login(t, user, bySHA512)}.run(t)
		})
	}
}

// flow is a producer and a member of a group that are connected for long.
type flow struct {
	c     contender
	s     *secured
	topic string
	login *login
}

func (f flow) run(t *testing.T) {
	t.Helper()
	at := f.s.at(shortListener)
	writer, reader := start(t, f.c.name+" writer", f.c.driver(t)), start(t, f.c.name+" reader", f.c.driver(t))
	reader.must(t, request{Op: "join", Addr: at, Topic: f.topic, Group: fmt.Sprintf("none.%s", f.topic), SessionMS: 10_000, Login: f.login})
	sent := make(chan response, 1)
	go func() {
		sent <- writer.ask(t, request{Op: "flow", Addr: at, Topic: f.topic, WaitMS: flowMS, Login: f.login})
	}()
	serial := f.renew(t)
	read, count, done := map[string]int{}, 0, false
	for until := time.Now().Add(4 * time.Minute); time.Now().Before(until) && (!done || len(read) < count); {
		for _, r := range reader.must(t, request{Op: "poll", WaitMS: 200}).Records {
			read[r.Value]++
		}
		select {
		case a := <-sent:
			if !a.OK {
				t.Fatalf("the producer was told: %s (code %d)\n\t%s", a.Error, a.Code, writer.said())
			}
			done, count = true, a.Count
		default:
		}
	}
	if !done || count < 100 {
		t.Fatalf("%d records were sent", count)
	}
	f.checkStored(t, count)
	for i := range count {
		if read[fmt.Sprint(i)] == 0 {
			t.Fatalf("record %d of %d was not read", i, count)
		}
	}
	if runsKafka() {
		return
	}
	if served := f.servedSerial(t); served < serial {
		t.Errorf("the certificate %d is served, want %d or a newer one", served, serial)
	}
	// A client that does not log in again in time loses its connection, and would connect once more for each login that has ended.
	labels := []string{fmt.Sprintf("listener=%q", shortListener), fmt.Sprintf("mechanism=%q", f.login.Mechanism)}
	again, ended := f.s.metric(t, "leat_logins_total", append(labels, `result="again"`)...), f.s.metric(t, "leat_login_sessions_ended_total", labels...)
	if again < 4 || ended > again/2 {
		t.Errorf("clients logged in again %d times, and %d connections were closed, since they had not", again, ended)
	}
	if noise := writer.said() + reader.said(); strings.Contains(noise, "uthentication failed") {
		t.Errorf("the library said: %s", noise)
	}
}

// renew replaces the certificate of the listener, and returns the serial number of the new one.
func (f flow) renew(t *testing.T) int64 {
	t.Helper()
	renewal.Lock()
	defer renewal.Unlock()
	path := filepath.Join(f.s.dir, "server-"+strings.ToLower(shortListener)+".pem")
	return f.s.ours.issue(t, path, pkix.Name{CommonName: "broker 1"}, "localhost")
}

// servedSerial is the serial number of the certificate that a new connection gets.
func (f flow) servedSerial(t *testing.T) int64 {
	t.Helper()
	conf, err := request{Login: f.login}.encryption()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", f.s.at(shortListener), conf)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

// checkStored proves that the partition has each record that was acknowledged, in order. Clients without idempotence may have sent one
// twice.
func (f flow) checkStored(t *testing.T, count int) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(f.s.addr), kgo.ConsumeTopics(f.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := aMinute()
	defer cancel()
	for next := 0; next < count; {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("%d of %d records are stored: %v", next, count, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if string(r.Value) == fmt.Sprint(next) {
				next++
			}
		})
	}
}
