//go:build unix

package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// loseRecords makes a mirror of a topic orders of one partition, and has it lose what the source has after the first record: the source's data directory is replaced by an older copy. What is lost
// are three records without a transaction, one of a transaction that was committed, one of an aborted one, and one of a transaction that is open.
func loseRecords(t *testing.T) (here *process, hereData string) {
	t.Helper()
	thereData, olderData, dir := t.TempDir(), t.TempDir(), t.TempDir()
	hereData = t.TempDir()
	there := up(t, thereData)
	here = up(t, hereData)
	verb := func(stdin, line string) string {
		t.Helper()
		r := tryVerb(t, dir, stdin, line)
		r.expect(t, 0)
		return r.stdout
	}
	at := " --bootstrap " + there.addr
	verb("", "topic create orders --partitions 1"+at)
	verb("first\n", "produce orders"+at)
	verb("", "link create north --from "+there.addr+" --data "+hereData)
	there.stop(t)
	if err := os.CopyFS(olderData, os.DirFS(thereData)); err != nil {
		t.Fatal(err)
	}
	there = upAt(t, thereData, there.addr)
	verb("lost 1\nlost 2\nlost 3\n", "produce orders --header from=test --key k"+at)
	for i, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort} {
		cl := there.client(t, kgo.TransactionalID(fmt.Sprint("tx", i)), kgo.DefaultProduceTopic("orders"))
		transact(t, cl, fmt.Sprint("of ", i))
		if err := cl.EndTransaction(t.Context(), end); err != nil {
			t.Fatal(err)
		}
		cl.Close()
	}
	open := there.client(t, kgo.TransactionalID("open"), kgo.DefaultProduceTopic("orders"))
	defer open.Close()
	transact(t, open, "of an open one")
	awaitEnd := func(end string) {
		t.Helper()
		eventually(t, "the records are here", func() bool {
			return strings.Contains(tryVerb(t, dir, "", "topic offsets orders -o json --bootstrap "+here.addr).stdout, `"end": `+end)
		})
	}
	awaitEnd("9") // with two markers
	there.kill()
	<-there.done
	up(t, olderData).stop(t) // where nobody finds it: a start more, so that its leader epoch is not that of the records that are lost
	upAt(t, olderData, there.addr)
	verb("new 1\nnew 2\n", "produce orders"+at)
	awaitEnd("3")
	return here, hereData
}

// transact begins a transaction and writes a record.
func transact(t *testing.T, cl *kgo.Client, value string) {
	t.Helper()
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(t.Context(), kgo.StringRecord(value)).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// TestLinkTailVerbs proves, with two clusters, that the records which a mirror has lost by an unclean election at its source are listed, exported as they were with the states of their transactions,
// written into an ordinary topic and not into a mirror, and discarded only when that is meant; and that the node counts cuts and what it keeps.
func TestLinkTailVerbs(t *testing.T) {
	t.Parallel()
	here, hereData := loseRecords(t)
	dir := t.TempDir()
	say := func(line string, code int, wants ...string) string {
		t.Helper()
		r := tryVerb(t, dir, "", line)
		r.expect(t, code)
		for _, want := range wants {
			if !strings.Contains(r.stdout+r.stderr, want) {
				t.Errorf("leat %s does not say %q:\n%s%s", line, want, r.stdout, r.stderr)
			}
		}
		return r.stdout
	}
	tail := func(line string, code int, wants ...string) string {
		t.Helper()
		return say("link tail "+line+" --data "+hereData, code, wants...)
	}
	var list struct {
		Tails []struct {
			Topic       string
			Cut, Node   int32
			First, Last int64
		}
	}
	if err := json.Unmarshal([]byte(tail("list orders 0 -o json", 0)), &list); err != nil || len(list.Tails) != 1 || list.Tails[0].First != 1 || list.Tails[0].Last != 8 {
		t.Fatalf("%+v: %v", list, err)
	}
	cut := fmt.Sprint("orders 0 --cut ", list.Tails[0].Cut)
	tail("list", 0, "TOPIC", "orders")
	tail("list nothing", 3, "no topic nothing")
	say("link describe north --data "+hereData, 0, "leat link tail list")

	var values, states []string
	for line := range strings.Lines(tail("export "+cut, 0, "exported 6 records", "the offsets 1 to 8")) {
		var r struct {
			Topic, Key, Value, Transaction, Timestamp string
			Partition                                 int32
			Offset                                    int64
			Headers                                   []struct{ Key, Value string }
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		at, err := time.Parse(time.RFC3339, r.Timestamp)
		if err != nil || time.Since(at).Abs() > time.Hour || r.Topic != "orders" || strings.HasPrefix(r.Value, "lost") != (r.Key == "k" && len(r.Headers) == 1 && r.Headers[0].Value == "test") {
			t.Errorf("%s: %v", line, err)
		}
		values, states = append(values, fmt.Sprint(r.Offset, " ", r.Value)), append(states, r.Transaction)
	}
	if got := strings.Join(values, ", "); got != "1 lost 1, 2 lost 2, 3 lost 3, 4 of 0, 6 of 1, 8 of an open one" {
		t.Errorf("exported are %s", got)
	}
	if got := strings.Join(states, ","); got != ",,,committed,aborted,undecided" {
		t.Errorf("their states are %s", got)
	}
	tail("export "+cut+" --to "+dir+" --as log", 0, "00000000000000000001.log")
	tail("export "+cut+" --to "+dir+" --as log", 1, "left as it is")
	if b, err := os.ReadFile(filepath.Join(dir, "00000000000000000001.log")); err != nil || !strings.Contains(string(b), "of an open one") {
		t.Errorf("%d bytes: %v", len(b), err)
	}
	t.Run("Kafka's tool", func(t *testing.T) { dumpTail(t, filepath.Join(dir, "00000000000000000001.log")) })

	at := " --bootstrap " + here.addr
	say("topic create rest --partitions 1"+at, 0)
	tail("replay "+cut+" --into orders", 1, "orders mirrors one of another cluster")
	tail("replay "+cut+" --into none", 3, "no topic none")
	tail("replay "+cut+" --into rest", 0, "wrote 4 records", "left out 2 records")
	tail("replay "+cut+" --into rest --from 4 --all", 0, "wrote 3 records")
	values = nil
	for _, r := range readAll(t, here, "rest", 7) {
		h := map[string]string{}
		for _, x := range r.Headers {
			h[x.Key] = string(x.Value)
		}
		if h["leat.tail.topic"] != "orders" || h["leat.tail.partition"] != "0" || h["leat.tail.timestamp"] == "" || strings.HasPrefix(string(r.Value), "lost") != (h["from"] == "test" && string(r.Key) == "k") {
			t.Errorf("%s has %v", r.Value, h)
		}
		values = append(values, strings.TrimSpace(fmt.Sprint(h["leat.tail.offset"], " ", string(r.Value), " ", h["leat.tail.transaction"])))
	}
	if got := strings.Join(values, ", "); got != "1 lost 1, 2 lost 2, 3 lost 3, 4 of 0, 4 of 0, 6 of 1 aborted, 8 of an open one undecided" {
		t.Errorf("written are %s", got)
	}

	tail("discard "+cut, 0, "--yes")
	tail("list", 0, "orders")
	tail("discard "+cut+" --yes", 0, "discarded cut")
	tail("discard "+cut+" --yes", 0, "nothing to discard")
	tail("export "+cut, 3, "nothing is kept of cut")
	tail("list", 0, "nothing is kept")
}

// dumpTail proves that Kafka's tool reads a tail that was exported as a segment, finds each record, and no mistake.
func dumpTail(t *testing.T, file string) {
	t.Helper()
	home := os.Getenv("KAFKA_HOME")
	if home == "" {
		t.Skip("KAFKA_HOME names no Kafka whose tool could read it")
	}
	out, err := exec.CommandContext(t.Context(), "java", "-Xmx400m", "-XX:TieredStopAtLevel=1", "-cp", filepath.Join(home, "libs", "*"), "org.apache.kafka.tools.DumpLogSegments", "--deep-iteration", "--print-data-log", "--files", file).CombinedOutput()
	if err != nil || strings.Count(string(out), "| offset: ") != 8 || strings.Count(string(out), "isvalid: true") != strings.Count(string(out), "baseOffset: ") || strings.Contains(string(out), "isvalid: false") {
		t.Errorf("%v: %s", err, out)
	}
	for _, want := range []string{"payload: lost 1", "payload: of an open one", "endTxnMarker: ABORT", "endTxnMarker: COMMIT"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("there is no %q:\n%s", want, out)
		}
	}
}
