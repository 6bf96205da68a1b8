package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// tellRefusalAfter is how long records wait for their acknowledgement before the user is told why.
const tellRefusalAfter = time.Second

// sender sends records, and keeps the first failure. Its callbacks run on the client's goroutines.
// Records that were read are sent even if the caller's context ends.
type sender struct {
	sending     context.Context //nolint:containedctx // ends with the first failure, which callbacks cause
	fail        context.CancelCauseFunc
	topic       string
	timeout     time.Duration
	rules       topicRules
	cutter      cutter
	parseRecord lineReader
	broker      *broker
	meter       *meter // counts acknowledged records

	refusals     *refusals
	inFlight     atomic.Int64 // records that were sent, and neither acknowledged nor refused so far
	refused      atomic.Int64 // records that will not be acknowledged
	lastProgress atomic.Int64 // when a record was acknowledged, or the first one was sent, in ns since 1970
}

func newSender(ctx context.Context, topic string, timeout time.Duration, rules topicRules, m *meter) *sender {
	s := &sender{topic: topic, timeout: timeout, rules: rules, meter: m, refusals: new(refusals)}
	s.sending, s.fail = context.WithCancelCause(context.WithoutCancel(ctx))
	return s
}

// sendAndAwait sends the files' records, or those of stdin, until ctx ends, and waits for their
// acknowledgements as long as awaitAcknowledgements allows.
func (s *sender) sendAndAwait(ctx context.Context, b *broker, files []string, stdin io.Reader) error {
	s.broker = b
	var guard sync.WaitGroup
	sent := make(chan struct{})
	guard.Go(func() { s.guardProgress(sent) })
	badInput := s.sendAll(ctx, files, stdin)
	s.awaitAcknowledgements(ctx)
	close(sent)
	guard.Wait()
	failure := context.Cause(s.sending)
	s.fail(nil)
	return s.describeEnd(ctx, badInput, failure)
}

// describeEnd makes the error of the verb, if anything went wrong, with the numbers of records that were
// acknowledged and that were not.
func (s *sender) describeEnd(ctx context.Context, badInput, failure error) error {
	acked, missing := s.meter.records.Load(), s.inFlight.Load()+s.refused.Load()
	if lost := context.Cause(ctx); failure == nil && errors.Is(lost, errUnreachable) {
		failure = lost
	}
	if failure == nil && ctx.Err() != nil && missing > 0 {
		failure = errors.New(interrupted)
	}
	if badInput == nil && failure == nil {
		return nil
	}
	tally := formatCountWas(acked, "record") + " acknowledged"
	if missing > 0 {
		tally += ", " + formatCountWas(missing, "record") + " not"
	}
	if badInput != nil {
		tally = "before it " + tally
	}
	return fmt.Errorf("%w; %s", errors.Join(badInput, failure), tally)
}

// formatCountWas writes "1 record was" or "2 records were".
func formatCountWas(n int64, thing string) string {
	switch n {
	case 0:
		return "no " + thing + " was"
	case 1:
		return "1 " + thing + " was"
	default:
		return formatNumber(n) + " " + thing + "s were"
	}
}

// sendAll sends the files' records, or those of stdin, until ctx ends.
func (s *sender) sendAll(ctx context.Context, files []string, stdin io.Reader) error {
	if len(files) == 0 {
		files = []string{"-"}
	}
	for _, name := range files {
		var err error
		if name == "-" {
			err = s.sendFrom(ctx, "standard input", stdin)
		} else {
			err = s.sendFile(ctx, name)
		}
		if err != nil || ctx.Err() != nil || s.sending.Err() != nil {
			return err
		}
	}
	return nil
}

func (s *sender) sendFile(ctx context.Context, name string) error {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return notFoundf("file %s does not exist", name)
	}
	if err != nil {
		return err
	}
	err = s.sendFrom(ctx, name, f)
	return errors.Join(err, f.Close())
}

// sendFrom reads on a goroutine of its own, because nothing can interrupt a read of the standard
// input. If ctx ends first, that goroutine lives until the process ends.
func (s *sender) sendFrom(ctx context.Context, name string, r io.Reader) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pieces := make(chan piece, 1)
	go readPieces(ctx, r, s.cutter, pieces)
	for n := 1; ; n++ {
		var p piece
		select {
		case <-ctx.Done():
			return nil
		case <-s.sending.Done():
			return nil // sendAndAwait reports the reason
		case p = <-pieces:
		}
		if errors.Is(p.err, io.EOF) {
			return nil
		}
		var rec *kgo.Record
		if p.err == nil {
			rec, p.err = s.parseRecord(p.text)
		}
		if p.err != nil {
			return fmt.Errorf("%s%s: %w", name, s.cutter.describePlace(n), p.err)
		}
		s.sendRecord(rec)
	}
}

func (s *sender) sendRecord(rec *kgo.Record) {
	if s.inFlight.Load() == 0 {
		s.lastProgress.Store(time.Now().UnixNano())
	}
	s.inFlight.Add(1)
	s.broker.cl.Produce(s.sending, rec, func(r *kgo.Record, err error) {
		if err != nil {
			s.refused.Add(1)
			s.fail(s.explainFailure(r, err))
		} else {
			s.meter.addRecord(len(r.Key) + len(r.Value))
			s.lastProgress.Store(time.Now().UnixNano())
		}
		s.inFlight.Add(-1)
	})
}

// wrongPartition is in the client library's error about a record whose partition does not exist.
const wrongPartition = "invalid record partitioning choice"

// explainFailure makes a sentence of the failure of a record.
func (s *sender) explainFailure(r *kgo.Record, err error) error {
	const batchHead = 61 // bytes of a batch's head; the record's own head is not counted
	n := len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += len(h.Key) + len(h.Value)
	}
	if errors.Is(err, kerr.MessageTooLarge) && n+batchHead > int(s.rules.largestBatch)-64 {
		return &sentenceError{kind: err, sentence: fmt.Sprintf("a record of %s bytes is too large for topic %s, whose max.message.bytes is %s: "+
			"raise it with \"leat config set --topic %s max.message.bytes=%d\"", formatNumber(int64(n)), s.topic, formatNumber(int64(s.rules.largestBatch)), s.topic, roomFor(n))}
	}
	if strings.Contains(err.Error(), wrongPartition) {
		return noSuchPartitionError(s.topic, r.Partition, s.rules.partitions)
	}
	if errors.Is(err, kerr.InvalidRecord) && s.rules.needsKeys && r.Key == nil {
		return &sentenceError{kind: err, sentence: fmt.Sprintf("topic %s is compacted, so it refuses records without a key: give keys with --key-separator, --key or --json", s.topic)}
	}
	return answerError("topic "+s.topic, err, "")
}

// roomFor is a max.message.bytes that allows a record of n bytes.
func roomFor(n int) int {
	const mib = 1 << 20
	return (n/mib + 2) * mib
}

// awaitAcknowledgements waits until all records are acknowledged or refused, or until brokers no longer
// answer. After Ctrl-C and after a failure it waits for a moment only.
func (s *sender) awaitAcknowledgements(ctx context.Context) {
	waiting, cancel := context.WithCancel(s.sending)
	defer cancel()
	noMore := context.AfterFunc(ctx, func() {
		if errors.Is(context.Cause(ctx), errUnreachable) {
			cancel()
		} else {
			time.AfterFunc(closeTimeout, cancel)
		}
	})
	defer noMore()
	if s.broker.cl.Flush(waiting) == nil || s.sending.Err() == nil || s.broker.contact.isLost() {
		return
	}
	// A record has failed. Others are on their way, and may still be acknowledged.
	rest, cancelRest := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancelRest()
	_ = s.broker.cl.Flush(rest) // records that are left count as not acknowledged
}

// guardProgress stops the sending when records have waited for the timeout and none was acknowledged.
// Before that it tells the user why they wait.
func (s *sender) guardProgress(sent <-chan struct{}) {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	said := false
	for {
		select {
		case <-sent:
			return
		case <-s.sending.Done():
			return
		case <-tick.C:
		}
		stalled := time.Since(time.Unix(0, s.lastProgress.Load()))
		if s.inFlight.Load() == 0 || stalled < tellRefusalAfter {
			s.refusals.setListening(false)
			said = false
			continue
		}
		s.refusals.setListening(true)
		refusal := s.refusals.lastRefusal()
		if stalled >= s.timeout {
			s.fail(s.stallError(refusal))
			return
		}
		if refusal != nil && !said {
			said = true
			s.meter.tellPerson(fmt.Sprintf("%s; trying for %s", s.refusalSentence(refusal), formatDuration(s.timeout)))
		}
	}
}

func (s *sender) refusalSentence(refusal *kerr.Error) string {
	sentence := fmt.Sprintf("topic %s: the broker refuses records: %s", s.topic, refusal.Message)
	switch {
	case errors.Is(refusal, kerr.KafkaStorageError):
		return sentence + ", its disk is full or a partition is read-only: its log says which"
	case errors.Is(refusal, kerr.NotEnoughReplicas):
		return sentence + ", there are fewer in-sync replicas than min.insync.replicas"
	default:
		return sentence
	}
}

// stallError says why nothing was acknowledged for the timeout.
func (s *sender) stallError(refusal *kerr.Error) error {
	switch {
	case s.broker.contact.isLost():
		return s.broker.contact.lostError()
	case refusal != nil:
		return &sentenceError{kind: refusal, sentence: fmt.Sprintf("%s, for %s", s.refusalSentence(refusal), formatDuration(s.timeout))}
	default:
		return fmt.Errorf("topic %s: no acknowledgement for %s, while %s answers", s.topic, formatDuration(s.timeout), s.broker.contact.addrs)
	}
}

// refusals finds out why a broker refuses records while the client library tries them again. The
// library does not report such answers, but names them in its log.
type refusals struct {
	listening atomic.Bool
	code      atomic.Pointer[kerr.Error]
}

// refusalPattern finds the errors in the library's line about an answer to produce requests.
var refusalPattern = regexp.MustCompile(`retrying@-?\d+,\d+\(([A-Z_]+):`)

// setListening begins or stops to note refusals, and forgets those before.
func (r *refusals) setListening(on bool) {
	if r.listening.Swap(on) != on {
		r.code.Store(nil)
	}
}

func (r *refusals) lastRefusal() *kerr.Error { return r.code.Load() }

// Level tells the library whether to write a line of its log.
func (r *refusals) Level() kgo.LogLevel {
	if r.listening.Load() {
		return kgo.LogLevelDebug
	}
	return kgo.LogLevelNone
}

// Log finds refusals in a line of the library's log.
func (r *refusals) Log(_ kgo.LogLevel, _ string, keyvals ...any) {
	for _, v := range keyvals {
		text, ok := v.(string)
		if !ok {
			continue
		}
		for _, m := range refusalPattern.FindAllStringSubmatch(text, -1) {
			if code := codeByName(m[1]); code != nil {
				r.code.Store(code)
			}
		}
	}
}

// codeByName finds the error of Kafka with a name.
func codeByName(name string) *kerr.Error {
	const last = 200 // larger than all codes
	for code := int16(-1); code < last; code++ {
		if e := kerr.TypedErrorForCode(code); e != nil && e.Message == name {
			return e
		}
	}
	return nil
}
