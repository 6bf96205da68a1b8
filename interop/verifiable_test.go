package interop

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	verifiableProducer = "org.apache.kafka.tools.VerifiableProducer"
	verifiableConsumer = "org.apache.kafka.tools.VerifiableConsumer"
)

// verifiable is one of the two programs by which Apache Kafka's own system tests check a cluster. It tells of each
// record in a line of JSON. It is safe for concurrent use.
type verifiable struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended

	mu     sync.Mutex
	values map[string]int // how often it told of a record that was sent, or consumed; guarded by mu
	errors []string       // what it told of errors; guarded by mu
	end    toldAtEnd      // guarded by mu
}

// told is a line that one of them prints.
type told struct {
	Name    string
	Value   string
	Message string
	toldAtEnd
}

type toldAtEnd struct{ Sent, Acked int }

func startVerifiable(t *testing.T, class string, args ...string) *verifiable {
	t.Helper()
	v := &verifiable{cmd: java(t, 192, class, args...), done: make(chan struct{}), values: map[string]int{}}
	out, err := v.cmd.StdoutPipe()
	if err == nil {
		err = v.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(v.done)
		v.read(out)
		_ = v.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = v.cmd.Process.Kill() // an error means that it has ended
		<-v.done
	})
	return v
}

func (v *verifiable) read(out io.Reader) {
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var line told
		if json.Unmarshal(lines.Bytes(), &line) != nil {
			continue
		}
		v.mu.Lock()
		switch line.Name {
		case "producer_send_success", "record_data":
			v.values[line.Value]++
		case "producer_send_error":
			v.errors = append(v.errors, line.Message)
		case "tool_data":
			v.end = line.toldAtEnd
		}
		v.mu.Unlock()
	}
}

// count is how many records it told of.
func (v *verifiable) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.values)
}

// TestVerifiableClients proves with the programs of Apache Kafka's own system tests that no acknowledged record is lost,
// and none is refused, when a node is killed that leads a part of the topic, and comes back.
func TestVerifiableClients(t *testing.T) {
	t.Parallel()
	javaKit.have(t)
	c := ownCluster(t, 3, quick)
	b := clusterTools{tools(t, c.addrs()), c}
	topic := b.topic(t, "verified", "1:2:3,2:3:1,3:1:2", "min.insync.replicas=2")
	// Its own settings have the producer give up at the first error.
	settings := file(t, "retries=2147483647\ndelivery.timeout.ms=120000\n")
	const records = 6000
	producer := startVerifiable(t, verifiableProducer, "--bootstrap-server", b.addr, "--topic", topic, "--max-messages", strconv.Itoa(records),
		"--throughput", "600", "--acks", "-1", "--command-config", settings)
	group := topic + ".readers"
	consumer := startVerifiable(t, verifiableConsumer, "--bootstrap-server", b.addr, "--topic", topic, "--group-id", group, "--verbose", "--reset-policy", "earliest")
	reach := func(what string, v *verifiable, n int) {
		t.Helper()
		eventually(t, clusterTimeout, fmt.Sprintf("%s %d records", what, n), func() bool {
			time.Sleep(10 * time.Millisecond)
			return v.count() >= n
		})
	}
	reach("the consumer has", consumer, 500)
	for _, id := range []int32{2, 1} { // the second one has all connections of the bootstrap
		c.node(id).kill(t)
		before := producer.count()
		reach("the producer has sent", producer, min(before+500, records))
		c.node(id).startAgain(t)
		c.mustBeComplete(t)
	}
	select {
	case <-producer.done:
	case <-time.After(clusterTimeout):
		t.Fatal("the producer does not end")
	}
	reach("the consumer has", consumer, records)
	_ = consumer.cmd.Process.Signal(syscall.SIGTERM)
	<-consumer.done
	if producer.end != (toldAtEnd{records, records}) || len(producer.errors) > 0 {
		t.Errorf("the producer has sent and acknowledged %+v of %d, with errors %v", producer.end, records, producer.errors)
	}
	for value := range producer.values {
		if consumer.values[value] == 0 {
			t.Errorf("record %s was acknowledged, and not consumed", value)
		}
	}
}
