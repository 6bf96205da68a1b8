package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// refusalTold is how long records wait for their acknowledgement before a person is told why.
const refusalTold = time.Second

// sender writes records, and keeps the first failure. Its callbacks run on the client's
// goroutines. Records that were read are sent even when the caller's context ends.
type sender struct {
	life    context.Context //nolint:containedctx // ends with the first failure, which callbacks cause
	fail    context.CancelCauseFunc
	topic   string
	timeout time.Duration
	limit   int32 // the largest batch that the topic takes
	cut     cutter
	line    lineReader
	b       *broker
	meter   *meter // counts what is acknowledged

	refusals *refusals
	flight   atomic.Int64 // records that were sent and are neither acknowledged nor refused
	refused  atomic.Int64 // records that will not be acknowledged
	moved    atomic.Int64 // when a record was acknowledged, or the first one was sent, in ns since 1970
}

func newSender(ctx context.Context, topic string, timeout time.Duration, limit int32, m *meter) *sender {
	s := &sender{topic: topic, timeout: timeout, limit: limit, meter: m, refusals: new(refusals)}
	s.life, s.fail = context.WithCancelCause(context.WithoutCancel(ctx))
	return s
}

// run sends the files' records, or those of stdin, until ctx ends, and waits for all
// acknowledgements, though not for ever.
func (s *sender) run(ctx context.Context, b *broker, files []string, stdin io.Reader) error {
	s.b = b
	var guard sync.WaitGroup
	sent := make(chan struct{})
	guard.Go(func() { s.guardProgress(sent) })
	badInput := s.sendAll(ctx, files, stdin)
	s.awaitAcknowledgements(ctx)
	close(sent)
	guard.Wait()
	failure := context.Cause(s.life)
	s.fail(nil)
	return s.conclude(ctx, badInput, failure)
}

// conclude says what went wrong, if anything, and how many records are written.
func (s *sender) conclude(ctx context.Context, badInput, failure error) error {
	acked, missing := s.meter.records.Load(), s.flight.Load()+s.refused.Load()
	if lost := context.Cause(ctx); failure == nil && errors.Is(lost, errUnreachable) {
		failure = lost
	}
	if failure == nil && ctx.Err() != nil && missing > 0 {
		failure = errors.New(interrupted)
	}
	if badInput == nil && failure == nil {
		return nil
	}
	tally := was(acked, "record") + " acknowledged"
	if missing > 0 {
		tally += ", " + was(missing, "record") + " not"
	}
	if badInput != nil {
		tally = "before it " + tally
	}
	return fmt.Errorf("%w; %s", errors.Join(badInput, failure), tally)
}

// was writes "1 record was" or "2 records were".
func was(n int64, thing string) string {
	switch n {
	case 0:
		return "no " + thing + " was"
	case 1:
		return "1 " + thing + " was"
	default:
		return number(n) + " " + thing + "s were"
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
		if err != nil || ctx.Err() != nil || s.life.Err() != nil {
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

// sendFrom reads on a goroutine of its own, because nothing can interrupt a read of
// the standard input: where ctx ends first, that goroutine ends with the process.
func (s *sender) sendFrom(ctx context.Context, name string, r io.Reader) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pieces := make(chan piece, 1)
	go readPieces(ctx, r, s.cut, pieces)
	for n := 1; ; n++ {
		var p piece
		select {
		case <-ctx.Done():
			return nil
		case <-s.life.Done():
			return nil // run knows why
		case p = <-pieces:
		}
		if errors.Is(p.err, io.EOF) {
			return nil
		}
		var rec *kgo.Record
		if p.err == nil {
			rec, p.err = s.line(p.text)
		}
		if p.err != nil {
			return fmt.Errorf("%s%s: %w", name, s.cut.place(n), p.err)
		}
		s.send(rec)
	}
}

func (s *sender) send(rec *kgo.Record) {
	if s.flight.Load() == 0 {
		s.moved.Store(time.Now().UnixNano())
	}
	s.flight.Add(1)
	s.b.cl.Produce(s.life, rec, func(r *kgo.Record, err error) {
		if err != nil {
			s.refused.Add(1)
			s.fail(s.explain(r, err))
		} else {
			s.meter.add(len(r.Key) + len(r.Value))
			s.moved.Store(time.Now().UnixNano())
		}
		s.flight.Add(-1)
	})
}

// explain makes a sentence of the failure of a record.
func (s *sender) explain(r *kgo.Record, err error) error {
	const batchHead = 61 // of a batch; its record's own head is left out
	n := len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += len(h.Key) + len(h.Value)
	}
	if errors.Is(err, kerr.MessageTooLarge) && n+batchHead > int(s.limit)-64 {
		return &told{kind: err, sentence: fmt.Sprintf("a record of %s bytes is too large for topic %s, whose max.message.bytes is %s: "+
			"\"leat config set --topic %s max.message.bytes=%d\" raises it", number(int64(n)), s.topic, number(int64(s.limit)), s.topic, roomFor(n))}
	}
	return about("topic "+s.topic, err, "")
}

// roomFor is a max.message.bytes that takes a record of n bytes.
func roomFor(n int) int {
	const mib = 1 << 20
	return (n/mib + 2) * mib
}

// awaitAcknowledgements waits until all records are acknowledged or refused. It waits no longer
// where nobody answers any more, and only for a moment after Ctrl-C.
func (s *sender) awaitAcknowledgements(ctx context.Context) {
	waiting, cancel := context.WithCancel(s.life)
	defer cancel()
	noMore := context.AfterFunc(ctx, func() {
		if errors.Is(context.Cause(ctx), errUnreachable) {
			cancel()
		} else {
			time.AfterFunc(goodbye, cancel)
		}
	})
	defer noMore()
	if s.b.cl.Flush(waiting) == nil || s.life.Err() == nil || s.b.contact.isLost() {
		return
	}
	// A record has failed. The others that are on their way count, too.
	rest, cancelRest := context.WithTimeout(context.WithoutCancel(ctx), goodbye)
	defer cancelRest()
	_ = s.b.cl.Flush(rest) // those that are left are counted as not acknowledged
}

// guardProgress ends the sender's life when records have waited for the timeout and none was
// acknowledged, and says earlier why they wait.
func (s *sender) guardProgress(sent <-chan struct{}) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	said := false
	for {
		select {
		case <-sent:
			return
		case <-s.life.Done():
			return
		case <-tick.C:
		}
		stalled := time.Since(time.Unix(0, s.moved.Load()))
		if s.flight.Load() == 0 || stalled < refusalTold {
			s.refusals.listen(false)
			said = false
			continue
		}
		s.refusals.listen(true)
		refusal := s.refusals.last()
		if stalled >= s.timeout {
			s.fail(s.stallError(refusal))
			return
		}
		if refusal != nil && !said {
			said = true
			s.meter.notice(fmt.Sprintf("%s; trying for %s", s.refusalSentence(refusal), duration(s.timeout)))
		}
	}
}

func (s *sender) refusalSentence(refusal *kerr.Error) string {
	sentence := fmt.Sprintf("topic %s: the broker refuses records: %s", s.topic, refusal.Message)
	switch {
	case errors.Is(refusal, kerr.KafkaStorageError):
		return sentence + ", its disk is full or a partition is read-only, as its log says"
	case errors.Is(refusal, kerr.NotEnoughReplicas):
		return sentence + ", there are fewer in-sync replicas than min.insync.replicas"
	default:
		return sentence
	}
}

// stallError says why nothing was acknowledged for the timeout.
func (s *sender) stallError(refusal *kerr.Error) error {
	switch {
	case s.b.contact.isLost():
		return s.b.contact.lostError()
	case refusal != nil:
		return &told{kind: refusal, sentence: fmt.Sprintf("%s, for %s", s.refusalSentence(refusal), duration(s.timeout))}
	default:
		return fmt.Errorf("topic %s: no acknowledgement for %s, while %s answers", s.topic, duration(s.timeout), s.b.contact.addrs)
	}
}

// refusals learns why a broker refuses records, as long as the client tries them again: the
// client library keeps such answers to itself, and only names them in its log.
type refusals struct {
	listening atomic.Bool
	code      atomic.Pointer[kerr.Error]
}

// refusalPattern finds the errors in the library's line about an answer to produce requests.
var refusalPattern = regexp.MustCompile(`retrying@-?\d+,\d+\(([A-Z_]+):`)

// listen begins or ends the wait for refusals.
func (r *refusals) listen(on bool) {
	if r.listening.Swap(on) != on {
		r.code.Store(nil)
	}
}

func (r *refusals) last() *kerr.Error { return r.code.Load() }

// Level is asked for by the library before each line.
func (r *refusals) Level() kgo.LogLevel {
	if r.listening.Load() {
		return kgo.LogLevelDebug
	}
	return kgo.LogLevelNone
}

// Log takes a line of the library.
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

// codeByName finds a code of Kafka's by its name.
func codeByName(name string) *kerr.Error {
	const last = 200 // beyond all of them
	for code := int16(-1); code < last; code++ {
		if e := kerr.TypedErrorForCode(code); e != nil && e.Message == name {
			return e
		}
	}
	return nil
}
