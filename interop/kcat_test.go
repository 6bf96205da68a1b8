package interop

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// kcat drives Debian's kcat: a command a request, and one that runs on as a
// member of a group. It creates a topic by asking for one that does not exist.
type kcat struct {
	inbox
	id request // the transactional id and its time-out

	txn   *exec.Cmd      // the kcat whose standard input is a transaction, nil before the first record
	lines io.WriteCloser // its standard input
	said  bytes.Buffer   // what it said; to be read when it has ended
}

func kcatDriver() ops {
	k := &kcat{inbox: newInbox()}
	return ops{
		"create": k.create, "describe": k.describe, "produce": k.produce, "consume": k.consume,
		"time": k.time, "join": k.join, "poll": k.poll,
		"txn_open": k.openTxn, "txn_begin": k.beginTxn, "txn_send": k.sendInTxn,
		"txn_commit": func(request) (response, error) { return response{}, k.endTxn() },
		"txn_abort": func(request) (response, error) {
			return response{}, errors.Join(k.txn.Process.Signal(os.Interrupt), k.endTxn())
		},
	}
}

// kcatRun runs kcat against the broker and returns what it printed.
func kcatRun(q request, input string, args ...string) ([]byte, error) {
	out, _, err := kcatTalk(q, input, args...)
	return out, err
}

// kcatTalk runs kcat against the broker and returns what it printed, and what it said of that. Its exit
// status does not tell all errors, so what it says as one counts too.
func kcatTalk(q request, input string, args ...string) (printed []byte, told string, err error) {
	cmd := exec.Command("kcat", append(kcatReach(q), args...)...)
	cmd.Stdin = strings.NewReader(input)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err = cmd.Run()
	text := said.String()
	if err == nil && !strings.Contains(text, "ERROR") && !strings.Contains(text, "failed") {
		return out.Bytes(), text, nil
	}
	if err == nil {
		err = errors.New("it printed an error")
	}
	fail := &coded{err: fmt.Errorf("kcat %s: %w: %s", strings.Join(args, " "), err, text)}
	fail.code = kcatCode(text)
	return nil, text, fail
}

// kcatCode is the protocol's code of an error that kcat has printed.
func kcatCode(text string) int {
	for code, words := range map[int]string{3: "Unknown topic", 10: "Message size too large", 29: "Topic authorization failed"} {
		if strings.Contains(text, words) {
			return code
		}
	}
	return 0
}

// kcatThrottled is how kcat tells that the broker had it wait, and for how many milliseconds.
var kcatThrottled = regexp.MustCompile(`throttled request for (\d+)ms`)

type kcatMetadata struct {
	Topics []struct {
		Topic      string `json:"topic"`
		Error      string `json:"error"`
		Partitions []struct {
			Leader int `json:"leader"`
		} `json:"partitions"`
	} `json:"topics"`
}

func (*kcat) describe(q request) (response, error) {
	out, err := kcatRun(q, "", "-L", "-J", "-t", q.Topic, "-m", strconv.Itoa(cmp.Or(q.WaitMS, 5000)/1000))
	if err != nil {
		return response{}, err
	}
	var m kcatMetadata
	if err := json.Unmarshal(out, &m); err != nil {
		return response{}, err
	}
	if len(m.Topics) != 1 {
		return response{}, fmt.Errorf("%d topics in %s", len(m.Topics), out)
	}
	if text := m.Topics[0].Error; text != "" {
		return response{}, &coded{kcatCode(text), fmt.Errorf("%s", text)}
	}
	a := response{Partitions: len(m.Topics[0].Partitions)}
	for _, p := range m.Topics[0].Partitions {
		if p.Leader >= 0 {
			a.Leaders++
		}
	}
	return a, nil
}

// create asks for the topic's metadata, as a producer, until the broker has made it.
func (k *kcat) create(q request) (response, error) {
	until := time.Now().Add(10 * time.Second)
	for {
		_, err := kcatRun(q, "", "-L", "-t", q.Topic, "-X", "allow.auto.create.topics=true")
		if err == nil {
			var a response
			if a, err = k.describe(q); err == nil && a.Leaders > 0 {
				return response{}, nil
			}
		}
		if time.Now().After(until) {
			return response{}, fmt.Errorf("the topic was not created: %w", err)
		}
	}
}

func (*kcat) produce(q request) (response, error) {
	records, err := readRecords(q.File)
	if err != nil {
		return response{}, err
	}
	args := []string{
		"-P", "-t", q.Topic, "-p", strconv.Itoa(int(q.Partition)), "-z", q.Codec, "-X", "acks=" + q.Acks, "-X", "linger.ms=20",
		"-X", "enable.idempotence=" + strconv.FormatBool(q.Idempotent), "-X", "message.max.bytes=10000000", "-X", "message.timeout.ms=30000",
		"-X", "topic.metadata.propagation.max.ms=1000",
		"-K", "\t", "-Z",
	}
	// One kcat sends lines that share their headers, and makes null of both an
	// empty key and an empty value.
	var input strings.Builder
	var a response
	for i, r := range records {
		fmt.Fprintf(&input, "%s\t%s\n", r.Key, r.Value)
		if i+1 < len(records) && slices.EqualFunc(r.Headers, records[i+1].Headers, sameHeader) {
			continue
		}
		run := slices.Clone(args)
		for _, h := range r.Headers {
			run = append(run, "-H", h.Name+"="+string(h.Value))
		}
		_, told, err := kcatTalk(q, input.String(), run...)
		if err != nil {
			return response{}, err
		}
		for _, m := range kcatThrottled.FindAllStringSubmatch(told, -1) {
			ms, err := strconv.Atoi(m[1])
			if err != nil {
				return response{}, err
			}
			a.ThrottleMS = max(a.ThrottleMS, ms)
		}
		input.Reset()
	}
	return a, nil
}

func sameHeader(a, b header) bool { return a.Name == b.Name && bytes.Equal(a.Value, b.Value) }

// kcatRecord is what kcat -J prints. It tells null from empty by absence.
type kcatRecord struct {
	Partition int32    `json:"partition"`
	Offset    int64    `json:"offset"`
	Timestamp int64    `json:"ts"`
	Headers   []string `json:"headers"`
	Key       *string  `json:"key"`
	Payload   *string  `json:"payload"`
}

func (*kcat) consume(q request) (response, error) {
	out, err := kcatRun(q, "", "-C", "-t", q.Topic, "-p", strconv.Itoa(int(q.Partition)),
		"-X", "isolation.level="+kcatIsolation(q), "-o", strconv.FormatInt(q.Offset, 10), "-c", strconv.Itoa(q.Count), "-e", "-q", "-J")
	if err != nil {
		return response{}, err
	}
	var records []record
	for line := range bytes.Lines(out) {
		var m kcatRecord
		if err := json.Unmarshal(line, &m); err != nil {
			return response{}, fmt.Errorf("%w: %.200s", err, line)
		}
		r := record{Offset: m.Offset, Timestamp: m.Timestamp}
		if m.Key != nil {
			r.Key = []byte(*m.Key)
		}
		if m.Payload != nil {
			r.Value = []byte(*m.Payload)
		}
		for pair := range slices.Chunk(m.Headers, 2) {
			r.Headers = append(r.Headers, header{pair[0], []byte(pair[1])})
		}
		records = append(records, r)
	}
	return saveRecords(q.File, records)
}

func (*kcat) time(q request) (response, error) {
	out, err := kcatRun(q, "", "-Q", "-t", fmt.Sprintf("%s:%d:%d", q.Topic, q.Partition, q.Timestamp), "-J")
	if err != nil {
		return response{}, err
	}
	// The topic's object holds its name beside its partitions.
	var found map[string]map[string]json.RawMessage
	if err := json.Unmarshal(out, &found); err != nil {
		return response{}, fmt.Errorf("%w: %s", err, out)
	}
	var p struct {
		Offset int64 `json:"offset"`
	}
	if err := json.Unmarshal(found[q.Topic][strconv.Itoa(int(q.Partition))], &p); err != nil {
		return response{}, fmt.Errorf("%w: %s", err, out)
	}
	return response{Offset: p.Offset}, nil
}

// join runs kcat as a member; it commits by itself what it printed.
func (k *kcat) join(q request) (response, error) {
	cmd := exec.Command("kcat", append(kcatReach(q), "-q", "-u", "-J", "-X", "auto.commit.interval.ms=300", "-X", "heartbeat.interval.ms=500",
		"-X", "session.timeout.ms="+strconv.Itoa(q.SessionMS), "-X", "auto.offset.reset=earliest", "-G", q.Group, q.Topic)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return response{}, err
	}
	if err := cmd.Start(); err != nil {
		return response{}, err
	}
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			var m kcatRecord
			if json.Unmarshal(lines.Bytes(), &m) == nil && m.Payload != nil {
				k.push(groupRecord{m.Partition, m.Offset, *m.Payload})
			}
		}
	}()
	return response{}, nil
}

func kcatIsolation(q request) string {
	if q.Committed {
		return "read_committed"
	}
	return "read_uncommitted"
}

// libraryFenced is librdkafka's own code for a producer that was fenced.
const libraryFenced = -144

// openTxn only notes the transactional id: each kcat is one transaction.
func (k *kcat) openTxn(q request) (response, error) {
	k.id = q
	return response{}, nil
}

func (*kcat) beginTxn(request) (response, error) { return response{}, nil }

func (k *kcat) sendInTxn(q request) (response, error) {
	if k.txn == nil {
		k.said.Reset()
		k.txn = exec.Command("kcat", append(kcatReach(k.id), "-P", "-t", q.Topic, "-p", strconv.Itoa(int(q.Partition)), "-X", "transactional.id="+k.id.Txn,
			"-X", "transaction.timeout.ms="+strconv.Itoa(k.id.TxnMS))...)
		k.txn.Stdout, k.txn.Stderr = &k.said, &k.said
		var err error
		if k.lines, err = k.txn.StdinPipe(); err != nil {
			return response{}, err
		}
		if err := k.txn.Start(); err != nil {
			return response{}, err
		}
	}
	// It sends lines when it has read a kilobyte, and skips empty ones.
	_, err := io.WriteString(k.lines, strings.Join(q.Values, "\n")+strings.Repeat("\n", 1<<10))
	return response{}, err
}

// endTxn ends the input, at which kcat commits unless it was interrupted.
func (k *kcat) endTxn() error {
	_ = k.lines.Close()
	err := k.txn.Wait()
	k.txn = nil
	said := k.said.String()
	if err == nil && !strings.Contains(said, "ERROR") {
		return nil
	}
	fail := &coded{err: fmt.Errorf("kcat: %s", said)}
	if strings.Contains(said, "fenced") {
		fail.code = libraryFenced
	}
	return fail
}
