package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/cluster"
)

// The headers that a record has which was replayed, beside those that it had: where it was, as decimal numbers.
const (
	replayTopic     = "leat.tail.topic"
	replayPartition = "leat.tail.partition"
	replayOffset    = "leat.tail.offset"
	replayTimestamp = "leat.tail.timestamp" // in ms since 1970
	replayState     = "leat.tail.transaction"
)

// replayArguments are what the verb that replays is asked for.
type replayArguments struct {
	tailArguments

	into string
	all  bool
	from int64
}

// tailReplay is the output of the verb that replays a tail.
type tailReplay struct {
	keptTail

	Into    string `json:"into"`
	Written int64  `json:"written"`
	LeftOut int64  `json:"leftOut"`        // records of transactions that were aborted or are undecided
	Done    bool   `json:"done"`           // all of it is written
	Next    *int64 `json:"next,omitempty"` // from which offset to go on
}

func (v tailVerbs) newTailReplay() *cobra.Command {
	var t replayArguments
	cmd := &cobra.Command{
		Use: "replay TOPIC PARTITION", Short: "Write the records that a cut has taken into a topic", Args: cobra.ExactArgs(2),
		SuggestFor: []string{"produce", "restore", "republish"},
		Long: `Write the records that a cut has taken from a partition into a topic that mirrors nothing, in their order. Those with a key go to the partition that their key has there, the others to the one
with the number that theirs had. They get new timestamps, and headers that say where they were: ` + replayTopic + `, ` + replayPartition + `, ` + replayOffset + ` and ` + replayTimestamp + `.
Records of transactions that were aborted, or not decided, are left out; with --all they are written, with their state in the header ` + replayState + `.

The producer is idempotent, so nothing is written twice while this runs. If it stops, it says from which offset it goes on. It logs in to the cluster as a client by --user or --client-config.`,
		Example: `  leat link tail replay orders 0 --cut 3 --into orders-lost
  leat link tail replay orders 0 --cut 3 --into orders-lost --from 1200`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := t.read(args); err != nil {
				return err
			}
			if t.into == "" {
				return usagef("name the topic into which the records are written with --into")
			}
			return v.dial(cmd, func(_ context.Context, n *linkNode) error {
				ctx := cmd.Context() // a long tail may take longer than --timeout, which is for each answer
				tail, err := v.pickTail(ctx, n, &t.tailArguments, t.into)
				if err != nil {
					return fmt.Errorf("replaying %v: %w", &t.tailArguments, err)
				}
				if len(n.clients) > 0 && !cmd.Flag("bootstrap").Changed {
					v.bootstrap = strings.Join(n.clients, ",")
				}
				if i := &v.identity; n.authority != "" && i.ca == "" && i.clientConfig == "" {
					i.ca = n.authority
				}
				return v.replayTail(ctx, n, tail, &t)
			})
		},
	}
	t.addFlags(cmd)
	f := cmd.Flags()
	f.Int32Var(&t.node, "node", -1, "the node whose records are taken (-1: that which has the most)")
	f.StringVar(&t.into, "into", "", "the topic into which they are written, which must exist and mirror nothing")
	f.BoolVar(&t.all, "all", false, "write records of transactions that were aborted or not decided, too")
	f.Int64Var(&t.from, "from", 0, "the offset from which on they are written, as the verb says when it stops")
	v.completeFlag(cmd, "into", v.completeTopics(0))
	v.addLoginFlags(cmd)
	return v.add(cmd)
}

// replayTail writes the records of a tail into a topic. It reads all of the tail first, so that nothing is written of one that is damaged.
func (v tailVerbs) replayTail(ctx context.Context, n *linkNode, t *cluster.TailStatus, q *replayArguments) error {
	txns, err := findTransactions(ctx, v.readTail(n, t))
	if err != nil {
		return fmt.Errorf("replaying %v: %w", &q.tailArguments, err)
	}
	rules, err := v.checkTarget(ctx, produceFlags{topic: q.into, partition: -1})
	if err != nil {
		return err
	}
	p := &replayer{v: v, q: q, rules: rules, txns: txns, refusals: new(refusals), r: &tailReplay{keptTail: showTail(t), Into: q.into}, next: max(q.from, t.First)}
	opts := []kgo.Opt{
		kgo.DefaultProduceTopic(q.into), kgo.RecordPartitioner(partitionChooser{kgo.StickyKeyPartitioner(nil)}), kgo.RecordRetries(math.MaxInt), kgo.MetadataMinAge(time.Second),
		kgo.ProducerBatchMaxBytes(rules.largestBatch), kgo.MaxBufferedRecords(maxBufferedRecords), kgo.BrokerMaxWriteBytes(max(usualRequest, rules.largestBatch+maxRequestHead)), kgo.WithLogger(p.refusals),
	}
	p.refusals.setListening(true)
	if failed := v.withBroker(ctx, v.tellPerson, opts, func(ctx context.Context, b *broker) error {
		p.broker = b
		err = p.run(ctx, v.readTail(n, t))
		return err
	}); err == nil {
		err = failed
	}
	p.r.Done = err == nil
	if err != nil {
		p.r.Next = &p.next
	}
	if failed := v.show(p.r, p.text); failed != nil {
		return errors.Join(err, failed)
	}
	if err != nil {
		more := ""
		if p.doubtful > 0 {
			more = fmt.Sprintf("; of the %s from there on some may be written, and would be again", formatCount(p.doubtful, "record"))
		}
		return fmt.Errorf("replaying %v has stopped before offset %d: go on with --from %d%s: %w", &q.tailArguments, p.next, p.next, more, err)
	}
	return nil
}

// replayer writes the records of a tail.
type replayer struct {
	v        tailVerbs
	q        *replayArguments
	rules    topicRules
	txns     *transactions
	refusals *refusals
	broker   *broker
	r        *tailReplay
	next     int64 // all records before this offset are written, or left out
	doubtful int   // records from there on of which nobody knows
}

func (p *replayer) text() string {
	text := fmt.Sprintf("wrote %s of cut %d of %s %d into %s, as node %d has kept them\n", formatCount(int(p.r.Written), "record"), p.r.Cut, escapeLine(p.r.Topic), p.r.Partition, escapeLine(p.r.Into), p.r.Node)
	if p.r.LeftOut > 0 {
		text += fmt.Sprintf("left out %s of transactions that were aborted or not decided: --all writes them, too\n", formatCount(int(p.r.LeftOut), "record"))
	}
	return text
}

// mostReplayed bounds the records that are under way, and the bytes of their keys, values and headers but for one record.
const (
	mostReplayed      = 10_000
	mostReplayedBytes = 4 << 20
)

// run writes the records, some at a time.
func (p *replayer) run(ctx context.Context, r *tailReader) error {
	var some []*kgo.Record
	size := 0
	flush := func() error {
		err := p.send(ctx, some)
		some, size = some[:0], 0
		return err
	}
	for {
		b, err := r.Next(ctx)
		if errors.Is(err, io.EOF) {
			if err := flush(); err != nil {
				return err
			}
			p.next = r.tail.Last + 1
			return nil
		}
		if err != nil {
			return errors.Join(flush(), err)
		}
		state := p.txns.stateOf(b)
		isLeftOut := !p.q.all && (state == txnAborted || state == txnUndecided)
		err = eachRecord(b, r.tail, func(of *kgo.Record) error {
			switch {
			case of.Offset < p.q.from:
				return nil
			case isLeftOut:
				p.r.LeftOut++
				return nil
			}
			copied := p.copyRecord(of, state)
			some, size = append(some, copied), size+len(copied.Key)+len(copied.Value)
			for _, h := range copied.Headers {
				size += len(h.Key) + len(h.Value)
			}
			if len(some) >= mostReplayed || size >= mostReplayedBytes {
				return flush()
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}

// copyRecord makes the record that is written of one that was cut. One with a key goes where its key belongs, as with any producer.
func (p *replayer) copyRecord(of *kgo.Record, state string) *kgo.Record {
	partition := int32(-1)
	if of.Key == nil {
		partition = of.Partition % int32(p.rules.partitions)
	}
	r := &kgo.Record{Partition: partition, Offset: of.Offset, Key: bytes.Clone(of.Key), Value: bytes.Clone(of.Value)}
	for _, h := range of.Headers {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Key, Value: bytes.Clone(h.Value)})
	}
	number := func(key string, n int64) {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: key, Value: strconv.AppendInt(nil, n, 10)})
	}
	r.Headers = append(r.Headers, kgo.RecordHeader{Key: replayTopic, Value: []byte(of.Topic)})
	number(replayPartition, int64(of.Partition))
	number(replayOffset, of.Offset)
	number(replayTimestamp, of.Timestamp.UnixMilli())
	if state != "" && state != txnCommitted {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: replayState, Value: []byte(state)})
	}
	return r
}

// send writes some records, and waits until all are acknowledged, one is refused, or none was acknowledged for --timeout.
func (p *replayer) send(ctx context.Context, list []*kgo.Record) error {
	if len(list) == 0 {
		return nil
	}
	sending, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	var mu sync.Mutex // guards isWritten
	isWritten := make([]bool, len(list))
	offsets := make([]int64, len(list))
	left, progress := len(list), make(chan struct{}, 1)
	for i, r := range list {
		offsets[i] = r.Offset
		p.broker.cl.Produce(sending, r, func(_ *kgo.Record, err error) {
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				cancel(p.explain(err))
			} else {
				isWritten[i] = true
			}
			left--
			select {
			case progress <- struct{}{}:
			default:
			}
		})
	}
	timeout := time.NewTimer(orDefault(p.v.timeout))
	defer timeout.Stop()
	var err error
	for isDone := false; !isDone && err == nil; {
		select {
		case <-progress:
			mu.Lock()
			isDone = left == 0
			mu.Unlock()
			timeout.Reset(orDefault(p.v.timeout))
		case <-sending.Done():
			err = context.Cause(sending)
		case <-timeout.C:
			err = p.stalled()
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	if cause := context.Cause(sending); err == nil && cause != nil {
		err = cause
	}
	mu.Lock()
	defer mu.Unlock()
	first := slices.Index(isWritten, false)
	if first < 0 {
		p.next, p.r.Written = offsets[len(list)-1]+1, p.r.Written+int64(len(list))
		return err
	}
	p.next, p.doubtful, p.r.Written = offsets[first], len(list)-first, p.r.Written+int64(first)
	return err
}

// explain makes a sentence of the refusal of a record.
func (p *replayer) explain(err error) error {
	switch {
	case errors.Is(err, kerr.PolicyViolation):
		return &sentenceError{kind: err, sentence: fmt.Sprintf("topic %s mirrors one of another cluster, so nobody can write to it here: give --into a topic that mirrors nothing", p.q.into)}
	case errors.Is(err, kerr.InvalidRecord) && p.rules.needsKeys:
		return &sentenceError{kind: err, sentence: fmt.Sprintf("topic %s is compacted, so it refuses records without a key: give --into a topic that is not", p.q.into)}
	case errors.Is(err, kerr.MessageTooLarge):
		return &sentenceError{kind: err, sentence: fmt.Sprintf("a record is too large for topic %s, whose max.message.bytes is %s: raise it with \"leat config set --topic %s max.message.bytes=BYTES\"", p.q.into, formatNumber(int64(p.rules.largestBatch)), quoteWord(p.q.into))}
	}
	return answerError("topic "+p.q.into, err, "")
}

// stalled says why nothing was acknowledged for the timeout.
func (p *replayer) stalled() error {
	within := formatDuration(orDefault(p.v.timeout))
	if refusal := p.refusals.lastRefusal(); refusal != nil {
		return &sentenceError{kind: refusal, sentence: fmt.Sprintf("topic %s: the broker refuses records: %s, for %s", p.q.into, refusal.Message, within)}
	}
	return fmt.Errorf("topic %s: no acknowledgement for %s", p.q.into, within)
}
