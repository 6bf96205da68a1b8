package cli

import (
	"context"
	"math"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/leatstream/leat/internal/record"
)

// A producer keeps no more than this in memory, except for one record that is larger.
const (
	maxBufferedRecords = 100_000
	maxBufferedBytes   = 64 << 20
)

// The largest batch in bytes: usually, and the limits of the client library for what a topic may
// allow. A request has some more bytes than its batch.
const (
	usualBatch     = 1_000_012
	leastBatch     = 512
	mostBatch      = 1 << 30
	usualRequest   = 100 << 20
	maxRequestHead = 1 << 20
)

// produceFlags are what the produce verb was told.
type produceFlags struct {
	topic       string
	separator   string
	delimiter   string
	whole       bool
	key         string
	keyed       bool // key was given
	null        bool
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
--delimiter ends records by something else, and --whole makes one record of each file.

A broker that does not answer, or that refuses records for a reason that may pass, is tried for
the time of --timeout; then it is said how many records were acknowledged and how many not.

With --json each line is an object like
  {"key":"k","value":"v","headers":{"h":"x"},"partition":0,"timestamp":"2026-05-17T10:05:03Z"}
of which every part may be left out. A key or value that is no string is written as the
JSON that it is; null is Kafka's null. key_base64 and value_base64 hold bytes.`,
		Example: `  echo 'k1:hello' | leat produce orders --key-separator :
  leat produce access --compression zstd access.log
  echo 'k1:' | leat produce orders --key-separator : --null    # a tombstone for k1
  leat produce images --key logo --whole logo.png`,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.topic, f.keyed = args[0], cmd.Flags().Changed("key")
			return a.runProduce(cmd.Context(), f, args[1:])
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.separator, "key-separator", "k", "", `what stands between key and value in a line, such as ":" or "\t" (default: lines have no key)`)
	fl.StringVar(&f.key, "key", "", "a key for every record")
	fl.BoolVarP(&f.null, "null", "Z", false, "an empty value is null: a tombstone")
	fl.StringVarP(&f.delimiter, "delimiter", "D", "", `what stands between records instead of a line's end, such as "\0" or ";;"`)
	fl.BoolVar(&f.whole, "whole", false, "each file, or all of the standard input, is one record")
	fl.StringArrayVarP(&f.headers, "header", "H", nil, "a header for every record, as name=value; may be repeated")
	fl.Int32VarP(&f.partition, "partition", "p", -1, "the partition to write to (-1: by the key's hash)")
	fl.StringVarP(&f.compression, "compression", "z", "none", "none, gzip, snappy, lz4 or zstd")
	fl.StringVarP(&f.acks, "acks", "a", "all", "whose acknowledgement to wait for: all in-sync replicas, the leader (1) or none (0)")
	fl.BoolVar(&f.json, "json", false, "lines are JSON objects")
	cmd.MarkFlagsMutuallyExclusive("whole", "delimiter")
	cmd.MarkFlagsMutuallyExclusive("key", "key-separator", "json")
	cmd.MarkFlagsMutuallyExclusive("null", "json")
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
		kgo.MaxBufferedRecords(maxBufferedRecords),
		// The sender gives up by time. The client's delivery timeout counts from the record's own timestamp.
		kgo.RecordRetries(math.MaxInt), kgo.MetadataMinAge(time.Second),
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
	cut, line, err := f.reader()
	if err != nil {
		return err
	}
	opts, err := f.options()
	if err != nil {
		return err
	}
	limit, err := a.checkTarget(ctx, f)
	if err != nil {
		return err
	}
	shows := showLive
	if isTerminal(a.in) && len(files) == 0 {
		shows = showSum // a line that is drawn would wipe the one that is typed
	}
	m := newMeter(a.err, "produced", shows)
	s := newSender(ctx, f.topic, orDefault(a.timeout), limit, m)
	s.cut, s.line = cut, line
	opts = append(opts, kgo.ProducerBatchMaxBytes(limit), kgo.MaxBufferedBytes(max(maxBufferedBytes, int(limit))),
		kgo.BrokerMaxWriteBytes(max(usualRequest, limit+maxRequestHead)), kgo.WithLogger(s.refusals))
	defer m.finish()
	var result error
	err = a.withBroker(ctx, m.notice, opts, func(ctx context.Context, b *broker) error {
		if f.acks == "0" {
			b.contact.noAnswer = kmsg.Produce.Int16()
		}
		result = s.run(ctx, b, files, a.in)
		return result
	})
	if result != nil {
		return result // it says how many records are written
	}
	return err
}

// checkTarget sees to it that there is a topic, and a partition, to write to, and asks how large
// a batch the topic takes.
func (a *app) checkTarget(ctx context.Context, f produceFlags) (limit int32, err error) {
	limit = usualBatch
	err = a.admin(ctx, func(ctx context.Context, adm *kadm.Client) error {
		details, err := topicDetails(ctx, adm, f.topic)
		if err != nil {
			return err
		}
		if n := len(details[f.topic].Partitions); f.partition >= int32(n) {
			return notFoundf("topic %s has no partition %d: it has %d, from 0 on", f.topic, f.partition, n)
		}
		configs, err := adm.DescribeTopicConfigs(ctx, f.topic)
		if err != nil {
			return nil //nolint:nilerr // one who may write need not be one who may read configs
		}
		for _, rc := range configs {
			for _, c := range rc.Configs {
				if n, err := strconv.ParseInt(c.MaybeValue(), 10, 32); err == nil && c.Key == "max.message.bytes" {
					limit = int32(min(max(n, leastBatch), mostBatch))
				}
			}
		}
		return nil
	})
	return limit, err
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
