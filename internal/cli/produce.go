package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leatstream/leat/internal/record"
)

// What a producer keeps in memory at most, and how often it tries a record, with up
// to some seconds between, before it gives up.
const (
	maxTries           = 15
	maxBufferedRecords = 100_000
	maxBufferedBytes   = 64 << 20
)

// produceFlags are what the produce verb was told.
type produceFlags struct {
	topic       string
	separator   string
	headers     []string
	partition   int32
	compression string
	acks        string
	json        bool
}

func (a *app) produce() *cobra.Command {
	var f produceFlags
	cmd := &cobra.Command{
		Use: "produce TOPIC [FILE...]", Short: "Write lines to a topic, one record each", Args: cobra.MinimumNArgs(1),
		Long: `Write the lines of the files, or of the standard input, to a topic, one record each.

With --json each line is an object like
  {"key":"k","value":"v","headers":{"h":"x"},"partition":0,"timestamp":"2026-05-17T10:05:03Z"}
of which every part may be left out. A key or value that is no string is written as the
JSON that it is; null is Kafka's null. key_base64 and value_base64 hold bytes.`,
		Example: `  echo 'k1:hello' | leat produce orders --key-separator :
  leat produce access --compression zstd access.log`,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.topic = args[0]
			return a.runProduce(cmd.Context(), f, args[1:])
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.separator, "key-separator", "k", "", `what stands between key and value in a line, such as ":" or "\t" (default: lines have no key)`)
	fl.StringArrayVarP(&f.headers, "header", "H", nil, "a header for every record, as name=value; may be repeated")
	fl.Int32VarP(&f.partition, "partition", "p", -1, "the partition to write to (-1: by the key's hash)")
	fl.StringVarP(&f.compression, "compression", "z", "none", "none, gzip, snappy, lz4 or zstd")
	fl.StringVarP(&f.acks, "acks", "a", "all", "whose acknowledgement to wait for: all in-sync replicas, the leader (1) or none (0)")
	fl.BoolVar(&f.json, "json", false, "lines are JSON objects")
	cmd.ValidArgsFunction = a.topicThenFiles()
	a.complete(cmd, "compression", words("none", "gzip", "snappy", "lz4", "zstd"))
	a.complete(cmd, "acks", words("all", "1", "0"))
	return a.asClient(cmd)
}

// topicThenFiles proposes a topic, then files.
func (a *app) topicThenFiles() completer {
	topics := a.topics(1)
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return topics(cmd, args, prefix)
	}
}

// options are the client's, as the flags say.
func (f produceFlags) options() ([]kgo.Opt, error) {
	codec, err := compression(f.compression)
	if err != nil {
		return nil, err
	}
	opts := []kgo.Opt{
		kgo.DefaultProduceTopic(f.topic), kgo.ProducerBatchCompression(codec), kgo.RecordPartitioner(choosing{kgo.StickyKeyPartitioner(nil)}),
		kgo.MaxBufferedRecords(maxBufferedRecords), kgo.MaxBufferedBytes(maxBufferedBytes),
		// Not a delivery timeout: the client counts that from the record's own timestamp.
		kgo.RecordRetries(maxTries),
	}
	switch f.acks {
	case "all", "-1":
	case "1":
		opts = append(opts, kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite())
	case "0":
		opts = append(opts, kgo.RequiredAcks(kgo.NoAck()), kgo.DisableIdempotentWrite())
	default:
		return nil, usagef("--acks %s: write all, 1 or 0", f.acks)
	}
	return opts, nil
}

// compression finds the client's codec by Kafka's name.
func compression(name string) (kgo.CompressionCodec, error) {
	c, err := record.ParseCodec(name)
	if err != nil {
		return kgo.NoCompression(), usagef("--compression: %v", err)
	}
	switch c {
	case record.Gzip:
		return kgo.GzipCompression(), nil
	case record.Snappy:
		return kgo.SnappyCompression(), nil
	case record.LZ4:
		return kgo.Lz4Compression(), nil
	case record.Zstd:
		return kgo.ZstdCompression(), nil
	default:
		return kgo.NoCompression(), nil
	}
}

func (a *app) runProduce(ctx context.Context, f produceFlags, files []string) error {
	line, err := f.lineReader()
	if err != nil {
		return err
	}
	opts, err := f.options()
	if err != nil {
		return err
	}
	cl, err := a.connect(ctx, opts...)
	if err != nil {
		return err
	}
	defer cl.Close()
	details, err := topicDetails(ctx, kadm.NewClient(cl), f.topic)
	if err != nil {
		return err
	}
	if n := len(details[f.topic].Partitions); f.partition >= int32(n) {
		return notFoundf("topic %s has no partition %d: it has %d, from 0 on", f.topic, f.partition, n)
	}
	s := newSender(ctx, cl, line, a.err)
	err = s.sendAll(ctx, files, a.in)
	return errors.Join(err, s.finish())
}

// sender writes records and keeps the first failure. Its callbacks run on the
// client's goroutines. What was read is sent even when the caller's context ends.
type sender struct {
	life   context.Context //nolint:containedctx // ends with the first failure, which callbacks cause
	fail   context.CancelCauseFunc
	cl     *kgo.Client
	line   lineReader
	meter  *meter
	flight sync.WaitGroup // records without an acknowledgement
}

func newSender(ctx context.Context, cl *kgo.Client, line lineReader, w io.Writer) *sender {
	s := &sender{cl: cl, line: line, meter: newMeter(w, "produced")}
	s.life, s.fail = context.WithCancelCause(context.WithoutCancel(ctx))
	return s
}

// sendAll sends the files' lines, or those of stdin, until ctx ends.
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
		if err != nil || ctx.Err() != nil {
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
	lines := make(chan line, 1)
	go readLines(ctx, r, lines)
	for n := 1; ; n++ {
		var l line
		select {
		case <-ctx.Done():
			return nil
		case <-s.life.Done():
			return nil // finish knows why
		case l = <-lines:
		}
		if l.err != nil {
			if errors.Is(l.err, io.EOF) {
				return nil
			}
			return fmt.Errorf("%s, line %d: %w", name, n, l.err)
		}
		rec, err := s.line(l.text)
		if err != nil {
			return fmt.Errorf("%s, line %d: %w", name, n, err)
		}
		s.send(rec)
	}
}

func (s *sender) send(rec *kgo.Record) {
	s.flight.Add(1)
	s.cl.Produce(s.life, rec, func(r *kgo.Record, err error) {
		defer s.flight.Done()
		if err != nil {
			s.fail(err)
			return
		}
		s.meter.add(len(r.Key) + len(r.Value))
	})
}

// finish waits for all acknowledgements, though not for ever, and tells the first
// failure.
func (s *sender) finish() error {
	ctx, cancel := context.WithTimeout(s.life, 2*requestTimeout)
	defer cancel()
	if err := s.cl.Flush(ctx); err != nil {
		// This ends the wait for the rest, too.
		if errors.Is(err, context.DeadlineExceeded) {
			err = errors.New("the broker's own log says why, for example that the disk is full or that a partition is read-only")
		}
		s.fail(fmt.Errorf("no acknowledgement came in %s: %w", duration(2*requestTimeout), err))
	}
	s.flight.Wait()
	err := context.Cause(s.life)
	s.fail(nil)
	s.meter.finish()
	if err == nil {
		return nil
	}
	return about("after "+count(int(s.meter.records.Load()), "acknowledged record"), err, "")
}

// choosing sends records that name a partition to it, and all others where the
// partitioner within says. A record's Partition is -1 where it names none.
type choosing struct{ kgo.Partitioner }

// ForTopic makes the partitioner of one topic.
func (c choosing) ForTopic(topic string) kgo.TopicPartitioner { //nolint:ireturn // kgo's interface asks for it
	return &choosingTopic{c.Partitioner.ForTopic(topic)}
}

type choosingTopic struct{ kgo.TopicPartitioner }

// RequiresConsistency tells whether the partition matters.
func (c *choosingTopic) RequiresConsistency(r *kgo.Record) bool {
	return r.Partition >= 0 || c.TopicPartitioner.RequiresConsistency(r)
}

// Partition chooses; a partition that does not exist fails the record.
func (c *choosingTopic) Partition(r *kgo.Record, n int) int {
	if r.Partition >= 0 {
		return int(r.Partition)
	}
	return c.TopicPartitioner.Partition(r, n)
}

// OnNewBatch lets records without a key move on to another partition.
func (c *choosingTopic) OnNewBatch() {
	if p, ok := c.TopicPartitioner.(kgo.TopicPartitionerOnNewBatch); ok {
		p.OnNewBatch()
	}
}

// unescape reads \t, \n and the like.
func unescape(s string) string {
	return strings.NewReplacer(`\\`, `\`, `\t`, "\t", `\n`, "\n", `\r`, "\r", `\0`, "\x00").Replace(s)
}
