package cli

import (
	"context"
	"math"
	"strconv"
	"strings"
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

// The largest batch in bytes where the topic does not say (usualBatch), and the client library's limits
// for it. A request may be larger than its batch by maxRequestHead.
const (
	usualBatch     = 1_000_012
	leastBatch     = 512
	mostBatch      = 1 << 30
	usualRequest   = 100 << 20
	maxRequestHead = 1 << 20
)

// produceFlags are the flags of the produce verb.
type produceFlags struct {
	topic       string
	separator   string
	delimiter   string
	whole       bool
	key         string
	keyGiven    bool // --key was given, though perhaps empty
	null        bool
	headers     []string
	partition   int32
	compression string
	acks        string
	json        bool
}

func (a *app) newProduce() *cobra.Command {
	var f produceFlags
	cmd := &cobra.Command{
		Use: "produce TOPIC [FILE...]", Short: "Write lines to a topic, one record each", Args: cobra.MinimumNArgs(1),
		Long: `Write the lines of the files, or of the standard input, to a topic, one record each.
With --delimiter records end at something other than a line end; with --whole each file is one record.

If a broker does not answer, or refuses records for a reason that may pass, the verb tries again for
the time of --timeout. Then it fails, and says how many records were acknowledged and how many were not.

With --json each line is an object like
  {"key":"k","value":"v","headers":{"h":"x"},"partition":0,"timestamp":"2026-05-17T10:05:03Z"}
in which every member may be left out. A key or value that is not a string is written as its
JSON text, and null as Kafka's null. key_base64 and value_base64 hold bytes.`,
		Example: `  echo 'k1:hello' | leat produce orders --key-separator :
  leat produce access --compression zstd access.log
  echo 'k1:' | leat produce orders --key-separator : --null    # a tombstone for k1
  leat produce images --key logo --whole logo.png`,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.topic, f.keyGiven = args[0], cmd.Flags().Changed("key")
			return a.runProduce(cmd.Context(), f, args[1:])
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.separator, "key-separator", "k", "", `the text between key and value in a line, such as ":" or "\t" (default: lines have no key)`)
	fl.StringVar(&f.key, "key", "", "a key for every record")
	fl.BoolVarP(&f.null, "null", "Z", false, "write an empty value as null, which is a tombstone")
	fl.StringVarP(&f.delimiter, "delimiter", "D", "", `the text between records instead of a line end, such as "\0" or ";;"`)
	fl.BoolVar(&f.whole, "whole", false, "each file, or all of the standard input, is one record")
	fl.StringArrayVarP(&f.headers, "header", "H", nil, "a header for every record, as name=value; may be repeated")
	fl.Int32VarP(&f.partition, "partition", "p", -1, "the partition to write to (-1: chosen by the hash of the key)")
	fl.StringVarP(&f.compression, "compression", "z", "none", "none, gzip, snappy, lz4 or zstd")
	fl.StringVarP(&f.acks, "acks", "a", "all", "whose acknowledgements to wait for: all in-sync replicas (all), only the leader (1) or nobody (0)")
	fl.BoolVar(&f.json, "json", false, "each line is a JSON object")
	cmd.MarkFlagsMutuallyExclusive("whole", "delimiter")
	cmd.MarkFlagsMutuallyExclusive("key", "key-separator", "json")
	cmd.MarkFlagsMutuallyExclusive("null", "json")
	cmd.ValidArgsFunction = a.completeTopicThenFiles()
	a.completeFlag(cmd, "compression", completeWords("none", "gzip", "snappy", "lz4", "zstd"))
	a.completeFlag(cmd, "acks", completeWords("all", "1", "0"))
	return a.addClientFlags(cmd)
}

// completeTopicThenFiles proposes a topic, then files.
func (a *app) completeTopicThenFiles() completer {
	topics := a.completeTopics(1)
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return topics(cmd, args, prefix)
	}
}

// clientOptions makes the options of the client from the flags.
func (f produceFlags) clientOptions() ([]kgo.Opt, error) {
	codec, err := parseCompression(f.compression)
	if err != nil {
		return nil, err
	}
	opts := []kgo.Opt{
		kgo.DefaultProduceTopic(f.topic), kgo.ProducerBatchCompression(codec), kgo.RecordPartitioner(partitionChooser{kgo.StickyKeyPartitioner(nil)}),
		kgo.MaxBufferedRecords(maxBufferedRecords),
		// The sender decides when to give up: the client's delivery timeout counts from the record's own timestamp.
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

// parseCompression finds the client's codec by Kafka's name.
func parseCompression(name string) (kgo.CompressionCodec, error) {
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
	cut, line, err := f.chooseReader()
	if err != nil {
		return err
	}
	opts, err := f.clientOptions()
	if err != nil {
		return err
	}
	rules, err := a.checkTarget(ctx, f)
	if err != nil {
		return err
	}
	limit := rules.largestBatch
	shows := showLive
	if isTerminal(a.in) && len(files) == 0 {
		shows = showSum // a line that is drawn would overwrite the one that the user types
	}
	m := newMeter(a.err, "produced", shows)
	s := newSender(ctx, f.topic, orDefault(a.timeout), rules, m)
	s.cutter, s.parseRecord = cut, line
	opts = append(opts, kgo.ProducerBatchMaxBytes(limit), kgo.MaxBufferedBytes(max(maxBufferedBytes, int(limit))),
		kgo.BrokerMaxWriteBytes(max(usualRequest, limit+maxRequestHead)), kgo.WithLogger(s.refusals))
	defer m.stopAndSumUp()
	var result error
	err = a.withBroker(ctx, m.tellPerson, opts, func(ctx context.Context, b *broker) error {
		if f.acks == "0" {
			b.contact.unansweredAPI = kmsg.Produce.Int16()
		}
		result = s.sendAndAwait(ctx, b, files, a.in)
		return result
	})
	if result != nil {
		return result // it says how many records were acknowledged
	}
	return err
}

// topicRules are what a topic demands of the records that it accepts.
type topicRules struct {
	largestBatch int32
	needsKeys    bool
	partitions   int // of the topic when the verb started
}

// checkTarget checks that the topic and the partition to write to exist, and asks which records the topic accepts.
func (a *app) checkTarget(ctx context.Context, f produceFlags) (rules topicRules, err error) {
	rules.largestBatch = usualBatch
	err = a.withAdmin(ctx, func(ctx context.Context, adm *kadm.Client) error {
		details, err := topicDetails(ctx, adm, f.topic)
		if err != nil {
			return err
		}
		rules.partitions = len(details[f.topic].Partitions)
		if f.partition >= int32(rules.partitions) {
			return noSuchPartitionError(f.topic, f.partition, rules.partitions)
		}
		configs, err := adm.DescribeTopicConfigs(ctx, f.topic)
		if err != nil {
			return nil //nolint:nilerr // a user who may write may not be allowed to read configs
		}
		for _, rc := range configs {
			for _, c := range rc.Configs {
				if n, err := strconv.ParseInt(c.MaybeValue(), 10, 32); err == nil && c.Key == "max.message.bytes" {
					rules.largestBatch = int32(min(max(n, leastBatch), mostBatch))
				}
				if c.Key == "cleanup.policy" {
					rules.needsKeys = strings.Contains(c.MaybeValue(), "compact")
				}
			}
		}
		return nil
	})
	return rules, err
}

// partitionChooser sends a record that names a partition to that partition, and leaves others to the
// partitioner within. A record that names none has the Partition -1.
type partitionChooser struct{ kgo.Partitioner }

// ForTopic makes the partitioner of one topic.
func (c partitionChooser) ForTopic(topic string) kgo.TopicPartitioner { //nolint:ireturn // kgo's interface asks for it
	return &topicPartitionChooser{c.Partitioner.ForTopic(topic)}
}

type topicPartitionChooser struct{ kgo.TopicPartitioner }

// RequiresConsistency tells whether a record must go to the partition that Partition chooses.
func (c *topicPartitionChooser) RequiresConsistency(r *kgo.Record) bool {
	return r.Partition >= 0 || c.TopicPartitioner.RequiresConsistency(r)
}

// Partition chooses a partition. The client fails a record whose partition does not exist.
func (c *topicPartitionChooser) Partition(r *kgo.Record, n int) int {
	if r.Partition >= 0 {
		return int(r.Partition)
	}
	return c.TopicPartitioner.Partition(r, n)
}

// OnNewBatch lets records without a key move on to another partition.
func (c *topicPartitionChooser) OnNewBatch() {
	if p, ok := c.TopicPartitioner.(kgo.TopicPartitionerOnNewBatch); ok {
		p.OnNewBatch()
	}
}
