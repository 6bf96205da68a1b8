package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/leatstream/leat/tools/suite/cluster"
	"github.com/leatstream/leat/tools/suite/nats"
	"github.com/leatstream/leat/tools/suite/server"
	"github.com/leatstream/leat/tools/suite/workload"
)

// Names of contenders. A contender is a program with the settings of its topics.
const (
	leatDurable = "leat"
	leatCache   = "leat-cache"
	leatBefore  = "leat-before"
	cacheBefore = "leat-cache-before"
	floorCache  = "floor"
	floorSync   = "floor-sync"
	floorGroup  = "floor-journal"
	floorAgain  = "floor-recycle"
	floorWide   = "floor-recycle-64"
	floorNone   = "floor-discard"
	kafkaPlain  = "kafka"
	kafkaFlush  = "kafka-flush"
	natsFile    = "nats"

	leatCleaner   = "leat-compacting"
	beforeCleaner = "leat-compacting-before"
	kafkaCleaner  = "kafka-compacting"

	leatSecured     = "leat-secured"
	kafkaSecured    = "kafka-secured"
	leatAuthorised  = "leat-authorised"
	kafkaAuthorised = "kafka-authorised"

	leatThree   = "leat-3"
	cacheThree  = "leat-3-cache"
	beforeThree = "leat-3-before"
	kafkaThree  = "kafka-3"
)

// pageCache makes a topic acknowledge records that are written but not synced, as Kafka does.
const pageCache = "flush.messages=9223372036854775807"

// contender is a program with the settings of its topics.
type contender struct {
	name    string
	title   string
	program string
	configs []string
	beside  string // the contender in whose workloads it takes part too; "": only in those that name it
}

// contenders lists all, in the order of the tables.
func contenders() []contender {
	return []contender{
		{name: leatDurable, title: "Leat (durable)", program: programLeat},
		{name: leatBefore, title: "Leat before (durable)", program: programBefore, beside: leatDurable},
		{name: floorSync, title: "floor program, -sync (durable)", program: programFloorSync},
		{name: floorGroup, title: "floor program, -journal (durable)", program: programJournal},
		{name: kafkaFlush, title: "Apache Kafka, flush.messages=1 (durable)", program: programKafka, configs: []string{"flush.messages=1"}},
		{name: leatCache, title: "Leat, page cache", program: programLeat, configs: []string{pageCache}},
		{name: cacheBefore, title: "Leat before, page cache", program: programBefore, configs: []string{pageCache}, beside: leatCache},
		{name: floorCache, title: "floor program", program: programFloor},
		{name: floorAgain, title: "floor program, recycled blocks", program: programRecycle},
		{name: floorWide, title: "floor program, recycled blocks", program: programRecycle64},
		{name: floorNone, title: "floor program, storing nothing", program: programDiscard},
		{name: kafkaPlain, title: "Apache Kafka", program: programKafka},
		{name: leatCleaner, title: "Leat (durable)", program: programCleaner},
		{name: beforeCleaner, title: "Leat before (durable)", program: programBeforeCleaner, beside: leatCleaner},
		{name: kafkaCleaner, title: "Apache Kafka", program: programKafkaCleaner},
		{name: leatSecured, title: "Leat, secured", program: programLeatSecured},
		{name: kafkaSecured, title: "Apache Kafka, secured", program: programKafkaSecured},
		{name: leatAuthorised, title: "Leat, authorised, page cache", program: programLeatSecured, configs: []string{pageCache}},
		{name: kafkaAuthorised, title: "Apache Kafka, authorised", program: programKafkaSecured},
		{name: leatThree, title: "Leat, three nodes (durable)", program: programLeatThree},
		{name: beforeThree, title: "Leat before, three nodes (durable)", program: programBeforeThree, beside: leatThree},
		{name: cacheThree, title: "Leat, three nodes, page cache", program: programLeatThree, configs: []string{pageCache}},
		{name: kafkaThree, title: "Apache Kafka, three nodes", program: programKafkaThree},
		{name: natsFile, title: "NATS JetStream, in files", program: programNATS},
	}
}

// row is a workload that is asked of each contender in turn.
type row struct {
	name     string // also its heading
	run      workload.Func
	nats     workload.Func // the same for NATS; nil: it takes no part
	set      func(o *workload.Options)
	who      []string // the contenders' names
	figures  []figure
	topic    topicState
	long     bool // not in the quick suite
	own      bool // each turn has a process or a cluster of its own, and an empty directory
	once     bool // it has one round, in which it does the same thing several times
	heavy    bool // none of its rounds is thrown away, and the quick suite has one
	pristine bool // it makes its topics itself, or needs none
	large    bool // the quick suite has a fifth of its records and faults
	warms    bool // it has a part that is not measured, so that no round is thrown away
	calls    bool // system calls are counted too, in a run of its own
	// starts runs instead of run, on a program that does not run yet.
	starts  func(ctx context.Context, p *server.Program, dir string, o workload.Options) (*workload.Result, error)
	cluster cluster.Func              // runs instead of run, on the nodes of a cluster
	warm    time.Duration             // of the round that is not counted; 0: a quarter of a run
	most    int                       // rounds; 0: as many as the suite has
	turn    time.Duration             // that one contender's turn takes, about; 0: as long as produce
	fewer   func(o *workload.Options) // reduces the numbers for Apache Kafka; the note says so
	note    string                    // for the reader of the table
}

// steadyBytes is the retention of a steady topic with one partition, in segments of an
// eighth. With wideSteady partitions each has a part of wideBytes: as many GiB as they
// would not fit into the page cache, and smaller parts would be of segments that last
// a tenth of a second.
const (
	steadyBytes = 1 << 30
	wideBytes   = 4 << 30
	wideSteady  = 64
)

// steadyTotal is how many bytes a steady topic keeps of all its partitions.
func steadyTotal(partitions int) int64 {
	if partitions > 1 {
		return wideBytes
	}
	return steadyBytes
}

// topicState is the state of a topic at the begin of a turn.
type topicState int

const (
	fresh  topicState = iota // no topic: the turn makes one, which is deleted afterwards
	filled                   // the same records in every turn, to be read
	steady                   // a topic that has reached its retention
)

// Names of workloads that claims refer to.
const (
	produceBatches = "produce, 1 KiB records, 16 a batch, 32 in flight"
	produceLarge   = "produce, 1 KiB records, 1,000 a batch, 5 in flight"
	produceSmall   = "produce, 100 B records, 160 a batch, 32 in flight"
	produceSingle  = "produce, one 1 KiB record a request, 256 in flight"
	produceFew     = "produce, one 1 KiB record a request, 5 in flight"
	produceWide    = "produce, 64 connections to 64 partitions, 16 KiB batches, 5 in flight each"
	produceMany    = "produce, 200 partitions from 4 connections, one 1 KiB record a request"
	produceDurable = "produce, one 1 KiB record a request, 64 in flight"
	consumeLarge   = "consume, 1 MiB a request"
	consumeSmall   = "consume, 64 KiB a request"
	latencySmall   = "latency, 100 B records, 1,000/s"
	latencyLarge   = "latency, 1 KiB records, 5,000/s"
	idleEmpty      = "idle, one connection"
	idleMany       = "idle, 10,000 connections"
	spreadThin     = "spread, one 1 KiB record each to 5,000 partitions in turn, two connections"
	createMany     = "create 10,000 partitions, write to each, delete them, and again"
	groupsMany     = "groups: one of 100 members, and 1,000 that commit each 100 ms"
	consumeCold    = "consume, cold, while another client reads a tail"
	loadBoth       = "produce and consume at once, then rest"
	restartLarge   = "start and restart, 10 GB in 10 partitions"
	restartMany    = "start and restart, 10 GB in 10 partitions and 5,000 more partitions"
	generatorLarge = "the generator itself: 1 KiB records, 16 a batch, 32 in flight"
	generatorSmall = "the generator itself: 100 B records, 160 a batch, 32 in flight"
	clientJava     = "ordinary client: Apache Kafka's own, by its performance tools"
	clientKcat     = "ordinary client: librdkafka, by kcat"
	clientFranz    = "ordinary client: franz-go"
	steadySuffix   = ", steady"
)

// Apache Kafka needs about 10 ms to make a partition, so that it would be all that a
// suite does to make thousands. Fewer are to its advantage in each figure.
const (
	fewerPartitions = 1000
	fewerNote       = "Apache Kafka has 1,000 partitions here where the others have thousands, since it takes 10 ms and more to make each. Compare figures of one record or one partition."
	restartNote     = "The quick suite fills a fifth of the bytes."
)

func rows() []row {
	shape := func(size, batch, inFlight int) func(o *workload.Options) {
		return func(o *workload.Options) { o.Size, o.Batch, o.InFlight = size, batch, inFlight }
	}
	fetch := func(bytes int) func(o *workload.Options) {
		return func(o *workload.Options) { o.FetchBytes, o.Passes = bytes, 0 }
	}
	rate := func(n, size int) func(o *workload.Options) {
		return func(o *workload.Options) { o.Rate, o.Size = n, size }
	}
	wide := func(o *workload.Options) {
		o.InFlight, o.Partitions, o.Connections, o.WriteBytes = 5, 64, 64, 0
	}
	many := func(o *workload.Options) {
		o.Batch, o.InFlight, o.Partitions, o.Connections = 1, 50, 200, 4
	}
	durable := []string{leatDurable, floorSync, floorGroup, kafkaFlush}
	cached := []string{leatCache, floorCache, kafkaPlain}
	all := slices.Concat(durable, cached)
	withNATS := func(who []string) []string { return slices.Concat(who, []string{natsFile}) }
	bytes := []figure{rateFigure(), recordRateFigure(), cpuByteFigure(), cpuRecordFigure(), cpuRequestFigure(), clientByteFigure(), diskFigure(), callsFigure(), peakFigure()}
	records := []figure{rateFigure(), recordRateFigure(), cpuRecordFigure(), cpuRequestFigure(), clientRecordFigure(), diskFigure(), callsFigure(), peakFigure()}
	read := []figure{rateFigure(), cpuByteFigure(), cpuRequestFigure(), clientByteFigure(), peakFigure()}
	times := slices.Concat(ackFigures(), endFigures(), []figure{cpuRequestFigure()})
	again := []string{leatCache, floorAgain, kafkaPlain}
	kept := func(set func(o *workload.Options)) func(o *workload.Options) {
		return func(o *workload.Options) {
			set(o)
			keep := steadyTotal(o.Partitions) / int64(o.Partitions)
			o.Configs = append(o.Configs, fmt.Sprintf("retention.bytes=%d", keep), fmt.Sprintf("segment.bytes=%d", keep/8))
		}
	}
	clients := []string{leatDurable, leatCache, kafkaPlain}
	client := func(records int64) func(*workload.Options) {
		return func(o *workload.Options) { o.Size, o.Records = 1024, records }
	}
	return slices.Concat([]row{
		{name: idleEmpty, run: workload.Idle, who: cached, own: true, pristine: true, heavy: true, figures: []figure{memoryFigure(), cpuShareFigure()}, set: still(1, 4*time.Second), turn: 12 * time.Second},
		{name: idleMany, run: workload.Idle, who: cached, own: true, pristine: true, heavy: true, long: true, figures: []figure{memoryFigure(), connectionFigure(), cpuShareFigure()}, set: still(10_000, 12*time.Second), turn: 20 * time.Second},
		{name: produceBatches, run: workload.Produce, nats: nats.Produce, set: shape(1024, 16, 32), who: withNATS(all), figures: bytes, calls: true},
		{name: produceLarge, run: workload.Produce, set: shape(1024, 1000, 5), who: cached, figures: bytes},
		{name: produceSmall, run: workload.Produce, nats: nats.Produce, set: shape(100, 160, 32), who: withNATS(cached), figures: bytes, calls: true},
		{name: produceSingle, run: workload.Produce, set: shape(1024, 1, 256), who: cached, figures: records, calls: true},
		{name: produceFew, run: workload.Produce, set: shape(1024, 1, 5), who: cached, figures: records, calls: true},
		{name: produceDurable, run: workload.Produce, set: shape(1024, 1, 64), who: durable, figures: records},
		{name: produceWide, run: workload.Produce, set: wide, who: all, figures: bytes, calls: true},
		{name: produceMany, run: workload.Produce, set: many, who: durable, figures: records, long: true},
		{name: consumeLarge, run: workload.Consume, set: fetch(1 << 20), who: cached, figures: read, topic: filled},
		{name: consumeSmall, run: workload.Consume, set: fetch(64 << 10), who: cached, figures: read, topic: filled},
		{name: latencySmall, run: workload.Latency, nats: nats.Latency, set: rate(1000, 100), who: withNATS(all), figures: times, warms: true},
		{name: latencyLarge, run: workload.Latency, set: rate(5000, 1024), who: cached, figures: times, warms: true},
		{name: produceBatches + steadySuffix, run: workload.Produce, set: kept(shape(1024, 16, 32)), who: again, figures: bytes, topic: steady},
		{name: produceLarge + steadySuffix, run: workload.Produce, set: kept(shape(1024, 1000, 5)), who: again, figures: bytes, topic: steady, long: true},
		{name: produceSmall + steadySuffix, run: workload.Produce, set: kept(shape(100, 160, 32)), who: again, figures: bytes, topic: steady, long: true},
		{name: produceWide + steadySuffix, run: workload.Produce, set: kept(wide), who: []string{leatCache, floorWide, kafkaPlain}, figures: bytes, topic: steady, long: true},
		{name: generatorLarge, run: workload.Produce, set: shape(1024, 16, 32), who: []string{floorNone}, figures: []figure{rateFigure(), clientByteFigure()}},
		{name: generatorSmall, run: workload.Produce, set: shape(100, 160, 32), who: []string{floorNone}, figures: []figure{rateFigure(), clientRecordFigure()}},
		{name: consumeCold, run: workload.Cold, set: from(workload.ColdDefaults()), who: []string{leatCache, kafkaPlain}, figures: coldFigures(), heavy: true, pristine: true, turn: 22 * time.Second},
		{name: clientJava, run: workload.JavaClient, set: client(200_000), who: clients, figures: clientFigures(), heavy: true, long: true, turn: 12 * time.Second},
		{name: clientKcat, run: workload.KcatClient, set: client(1_000_000), who: clients, figures: clientFigures(), heavy: true, large: true, turn: 9 * time.Second},
		{name: clientFranz, run: workload.FranzClient, set: client(1_000_000), who: clients, figures: clientFigures(), heavy: true, large: true, turn: 6 * time.Second},
		{name: loadBoth, run: workload.Load, set: from(workload.LoadDefaults()), who: []string{leatCache, kafkaPlain}, figures: loadFigures(), own: true, heavy: true, turn: 20 * time.Second},
		{name: restartLarge, starts: workload.Restart, set: reborn(0), who: []string{leatDurable, kafkaPlain}, figures: restartFigures(), own: true, heavy: true, large: true, turn: 30 * time.Second, note: restartNote},
		{name: restartMany, starts: workload.Restart, set: reborn(5000), who: []string{leatDurable, kafkaPlain}, figures: restartFigures(), own: true, heavy: true, large: true, long: true, turn: 60 * time.Second, fewer: func(o *workload.Options) { o.Extra = fewerPartitions }, note: restartNote + " " + fewerNote},
		{name: groupsMany, run: workload.Groups, set: from(workload.GroupsDefaults()), who: []string{leatCache, leatDurable, kafkaPlain}, figures: groupFigures(), heavy: true, turn: 14 * time.Second},
		{name: spreadThin, run: workload.Spread, set: from(workload.SpreadDefaults()), who: []string{leatDurable, leatCache, floorCache, kafkaPlain}, figures: spreadFigures(), heavy: true, long: true, turn: 20 * time.Second, fewer: func(o *workload.Options) { o.Partitions = fewerPartitions }, note: fewerNote},
		{name: createMany, run: workload.Create, set: from(workload.CreateDefaults()), who: []string{leatCache, kafkaPlain}, figures: createFigures(), heavy: true, pristine: true, turn: 6 * time.Second, fewer: func(o *workload.Options) { o.Partitions = fewerPartitions }, note: fewerNote},
	}, transactionRows(), compactionRows(), securityRows(), clusterRows())
}

// still holds connections that do nothing, and looks when the server has come to rest.
func still(connections int, settle time.Duration) func(o *workload.Options) {
	return func(o *workload.Options) { o.Connections, o.Settle = connections, settle }
}

// reborn fills ten partitions, and more with one record each.
func reborn(extra int) func(o *workload.Options) {
	return func(o *workload.Options) {
		from(workload.RestartDefaults())(o)
		o.Partitions, o.Extra, o.Records, o.Batch, o.InFlight = 10, extra, 10_000_000_000/1024, 500, 5
	}
}

// from takes over the settings that a kind of run has by itself.
func from(d workload.Options) func(o *workload.Options) {
	return func(o *workload.Options) {
		o.Size, o.Batch, o.InFlight, o.Partitions, o.Connections = d.Size, d.Batch, d.InFlight, d.Partitions, d.Connections
		o.Records, o.Passes, o.Members, o.Groups, o.Interval = d.Records, d.Passes, d.Members, d.Groups, d.Interval
	}
}
