package broker

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/group"
	"github.com/leatstream/leat/internal/record"
)

// goldenTxns holds what Apache Kafka 4.4.0 answered.
const goldenTxns = "testdata/kafka-4.4.0-transactions.txt"

// TestTransactionAnswersAreKafkas proves that a series of requests of producers of transactions, of leaders, coordinators
// and administrators gets the answers that Apache Kafka 4.4.0 gave for it, which are kept in testdata: everything but
// producer ids, which are numbered as they appear, and times. With LEAT_TEST_KAFKA, the address of a fresh Kafka 4.4.0, it proves too
// that the record is Kafka's.
func TestTransactionAnswersAreKafkas(t *testing.T) {
	want, err := os.ReadFile(goldenTxns)
	if err != nil && !*recordKafka {
		t.Fatal(err)
	}
	if addr := os.Getenv("LEAT_TEST_KAFKA"); addr != "" {
		awaitCoordinators(t, addr)
		createOnKafka(t, dial(t, addr), "to", 2, nil)
		createOnKafka(t, dial(t, addr), "from", 1, nil)
		got := newTxnTalk(t, addr).play(txnSteps(t))
		if *recordKafka {
			if err := os.WriteFile(goldenTxns, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			want = []byte(got)
		}
		if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); d != "" {
			t.Errorf("Kafka answers otherwise than recorded: %s", d)
		}
	}
	g := newTxnRig(t)
	g.topic("to", 2)
	g.topic("from", 1)
	awaitCoordinators(t, g.addr)
	got := newTxnTalk(t, g.addr).play(txnSteps(t))
	theirs, ours := sections(string(want)), sections(got)
	if len(ours) != len(txnSteps(t)) || len(ours) != len(theirs) {
		t.Errorf("the series has %d requests, and %d are recorded: record it again", len(ours), len(theirs))
	}
	unlike := unlikeTxnAnswers()
	for name := range unlike {
		if theirs[name] == "" {
			t.Errorf("no request is called %q", name)
		}
	}
	for name, text := range theirs {
		why := unlike[name]
		switch {
		case why != "" && ours[name] == text:
			t.Errorf("%s: we do not differ, although %s", name, why)
		case why == "" && ours[name] != text:
			t.Errorf("%s: (-kafka +ours) %s", name, cmp.Diff(strings.Split(text, "\n"), strings.Split(ours[name], "\n")))
		}
	}
}

// unlikeTxnAnswers are the reasons why we answer a request otherwise than Kafka.
func unlikeTxnAnswers() map[string]string {
	const (
		retry    = "Kafka's answer to a retry has the first one's timestamp, ours is what the first one's answer was"
		nobody   = "Kafka ends the connection by an exception"
		nothing  = "Kafka begins a transaction that has no partitions, ours begins none"
		stranger = "Kafka keeps the sequence of a batch that was refused for an epoch which nobody has, and holds it against the producer's own epoch"
		negative = "Kafka has an unknown server error for an epoch below 0"
		first    = "Kafka says that an unknown id has the producer 0, which exists there"
	)
	return map[string]string{
		"415 write again: Produce v7": retry, "428 write again: Produce v11": retry, "439 write again: Produce v12": retry,
		"412 write a sequence in the middle: Produce v7": stranger, "413 write: Produce v7": stranger,
		"508 nobody: AddPartitionsToTxn v4": nobody, "522 nobody: AddPartitionsToTxn v5": nobody,
		"256 after: DescribeTransactions v0": nothing, "275 after: DescribeTransactions v0": nothing,
		"294 after: DescribeTransactions v0": nothing, "313 after: DescribeTransactions v0": nothing,
		"532 mark with the epoch before: WriteTxnMarkers v1": negative, "548 mark with the epoch before: WriteTxnMarkers v2": negative,
		"594 unknown ones: DescribeTransactions v0": first,
	}
}

// isUnderWay matches an answer that will be another one soon.
var isUnderWay = regexp.MustCompile(`"ErrorCode":(14|15|16|51|56)\b|State":"Prepare`)

// txnStep is a request in a series about transactions, which may depend on what earlier ones were answered.
type txnStep struct {
	name string
	req  func(k *txnTalk) kmsg.Request
}

// txnTalk plays a series of requests, and knows which producers it has made.
type txnTalk struct {
	t         *testing.T
	addr      string
	c         *client
	producers map[string]txnProducer // by transactional id
	numbers   map[int64]int64        // of producer ids, in the order in which they appeared
}

type txnProducer struct {
	id    int64
	epoch int16
}

func newTxnTalk(t *testing.T, addr string) *txnTalk {
	t.Helper()
	return &txnTalk{t: t, addr: addr, c: dial(t, addr), producers: map[string]txnProducer{}, numbers: map[int64]int64{-1: -1}}
}

// play sends the requests of a series and returns their answers, each in a section of its own.
func (k *txnTalk) play(steps []txnStep) string {
	k.t.Helper()
	var out strings.Builder
	for i, s := range steps {
		req := s.req(k)
		fmt.Fprintf(&out, "## %03d %s: %s v%d\n%s\n\n", i, s.name, kmsg.NameForKey(req.Key()), req.GetVersion(), k.ask(req))
	}
	return out.String()
}

// ask sends a request until its answer does not depend on work that is under way: a coordinator that is loaded, a
// transaction of which the markers are being written.
func (k *txnTalk) ask(req kmsg.Request) string {
	k.t.Helper()
	for limit := time.Now().Add(20 * time.Second); ; {
		k.c.send(req)
		b, err := k.c.frame()
		if err != nil {
			k.c = dial(k.t, k.addr)
			return closed
		}
		resp := req.ResponseKind()
		if resp.IsFlexible() {
			b = b[1:]
		}
		if err := resp.ReadFrom(b); err != nil {
			k.t.Fatalf("%T: %v in %x", resp, err, b)
		}
		text := k.note(req, resp)
		if !isUnderWay.MatchString(text) {
			return text
		}
		if time.Now().After(limit) {
			k.t.Fatalf("%T is not answered in time: %s", req, text)
		}
	}
}

// note keeps the producers of an answer, and returns it as text.
func (k *txnTalk) note(req kmsg.Request, resp kmsg.Response) string {
	k.t.Helper()
	switch r := resp.(type) {
	case *kmsg.InitProducerIDResponse:
		if ir, _ := req.(*kmsg.InitProducerIDRequest); ir.TransactionalID != nil && r.ErrorCode == none {
			k.producers[*ir.TransactionalID] = txnProducer{r.ProducerID, r.ProducerEpoch}
		}
		r.ProducerID = k.number(r.ProducerID)
	case *kmsg.EndTxnResponse:
		if er, _ := req.(*kmsg.EndTxnRequest); r.ProducerID >= 0 {
			k.producers[er.TransactionalID] = txnProducer{r.ProducerID, r.ProducerEpoch}
		}
		r.ProducerID = k.number(r.ProducerID)
	case *kmsg.DescribeTransactionsResponse:
		for i := range r.TransactionStates {
			s := &r.TransactionStates[i]
			s.ProducerID, s.StartTimestamp = k.number(s.ProducerID), min(s.StartTimestamp, 1)
			for j := range s.Topics {
				if s.Topics[j].Topic == group.Topic {
					s.Topics[j].Partitions = nil // which of them a group has depends on their number
				}
			}
		}
	case *kmsg.ListTransactionsResponse:
		for i := range r.TransactionStates {
			r.TransactionStates[i].ProducerID = k.number(r.TransactionStates[i].ProducerID)
		}
	case *kmsg.WriteTxnMarkersResponse:
		for i := range r.Markers {
			r.Markers[i].ProducerID = k.number(r.Markers[i].ProducerID)
		}
	case *kmsg.DescribeProducersResponse:
		for i := range r.Topics {
			for j := range r.Topics[i].Partitions {
				for l := range r.Topics[i].Partitions[j].ActiveProducers {
					p := &r.Topics[i].Partitions[j].ActiveProducers[l]
					p.ProducerID, p.LastTimestamp = k.number(p.ProducerID), min(p.LastTimestamp, 1)
				}
			}
		}
	case *kmsg.ProduceResponse:
		normalise(r)
	case *kmsg.FetchResponse:
		return k.readable(r)
	}
	return plain(k.t, resp)
}

// number is the number of a producer id.
func (k *txnTalk) number(id int64) int64 {
	if _, ok := k.numbers[id]; !ok {
		k.numbers[id] = int64(len(k.numbers)) // -1 is one of them
	}
	return k.numbers[id]
}

// readable is what a consumer sees of one partition.
func (k *txnTalk) readable(r *kmsg.FetchResponse) string {
	k.t.Helper()
	p := &r.Topics[0].Partitions[0]
	var out strings.Builder
	fmt.Fprintf(&out, "code %d, high watermark %d, last stable offset %d", p.ErrorCode, p.HighWatermark, p.LastStableOffset)
	for _, a := range p.AbortedTransactions {
		fmt.Fprintf(&out, "\naborted: producer %d from %d", k.number(a.ProducerID), a.FirstOffset)
	}
	for b := p.RecordBatches; len(b) > 0; {
		one, _, err := record.Next(b)
		if err != nil {
			k.t.Fatal(err)
		}
		fmt.Fprintf(&out, "\nbatch at %d: attributes %#x, producer %d, epoch %d, sequence %d", one.BaseOffset(), one.Attributes(),
			k.number(one.ProducerID()), one.ProducerEpoch(), one.BaseSequence())
		if one.Control() {
			fmt.Fprintf(&out, ", marker %x", one[record.HeaderLen:])
		}
		b = b[len(one):]
	}
	return out.String()
}
