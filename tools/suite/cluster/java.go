package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/leatstream/leat/tools/suite/server"
	"github.com/leatstream/leat/tools/suite/workload"
)

// javaRate is how many records a second Apache Kafka's own producer sends: each costs a line of text.
const javaRate = "200"

// java is a witness that is Apache Kafka's own producer, which tells of each acknowledgement by a line.
type java struct {
	ackTimes

	cmd    *exec.Cmd
	config string
	failed lastLine
	ended  chan struct{} // closed when its output has been read to the end
}

// start starts the producer by Kafka's VerifiableProducer. That turns the client's retries off, so
// that its default is given again; all else is as the client has it by default.
func (j *java) start(ctx context.Context, c *server.Cluster, o *workload.Options) error {
	if why := workload.KafkaMissing(o.KafkaHome); why != "" {
		return fmt.Errorf("apache Kafka's client %w: %s", workload.ErrNoClient, why)
	}
	f, err := os.CreateTemp("", "leat-bench-java-")
	if err != nil {
		return err
	}
	j.config, j.ended = f.Name(), make(chan struct{})
	_, err = f.WriteString("retries=2147483647\n")
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(j.config))
	}
	j.cmd = exec.CommandContext(ctx, "java", "-Xmx256m", "-cp", filepath.Join(o.KafkaHome, "libs", "*"), //nolint:gosec // the user of the suite names the directory
		"org.apache.kafka.tools.VerifiableProducer", "--bootstrap-server", strings.Join(c.Brokers(), ","), "--topic", o.Topic,
		"--throughput", javaRate, "--acks", "-1", "--command-config", j.config)
	j.cmd.Stderr = &j.failed
	stdout, err := j.cmd.StdoutPipe()
	if err == nil {
		err = j.cmd.Start()
	}
	if err != nil {
		return errors.Join(err, os.Remove(j.config))
	}
	go func() {
		defer close(j.ended)
		j.read(stdout)
	}()
	return nil
}

// read notes the time of each acknowledgement.
func (j *java) read(r io.Reader) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		now := time.Now()
		switch {
		case isJavaAck(lines.Text()):
			j.add(now)
		case !isJavaEvent(lines.Text()):
			_, _ = j.failed.Write(lines.Bytes()) // it is for people
		}
	}
}

// isJavaEvent tells whether a line is an event of Kafka's verifiable tools.
func isJavaEvent(line string) bool { return strings.HasPrefix(line, "{") }

// isJavaAck tells whether an event is an acknowledgement.
func isJavaAck(line string) bool {
	return isJavaEvent(line) && strings.Contains(line, `"name":"producer_send_success"`)
}

func (j *java) end() error {
	_ = j.cmd.Process.Kill() // it may have ended by itself
	<-j.ended
	_ = j.cmd.Wait() // it says that it was killed
	err := os.Remove(j.config)
	if len(j.times()) == 0 {
		err = errors.Join(fmt.Errorf("apache Kafka's producer has done nothing; it says: %s", j.failed.text), err)
	}
	return err
}

// lastLine keeps the end of what is written to it. It belongs to one writer at a time, and is read when
// that has ended.
type lastLine struct{ text string }

func (l *lastLine) Write(b []byte) (int, error) {
	const most = 1000
	l.text += strings.TrimSpace(string(b)) + " "
	l.text = l.text[max(0, len(l.text)-most):]
	return len(b), nil
}
