package bench

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Names of contenders. A contender is a program with the settings of its topics.
const (
	leatDurable = "leat"
	leatCache   = "leat-cache"
	floorCache  = "floor"
	floorSync   = "floor-sync"
	floorGroup  = "floor-journal"
	floorAgain  = "floor-recycle"
	floorWide   = "floor-recycle-64"
	floorNone   = "floor-discard"
	kafkaPlain  = "kafka"
	kafkaFlush  = "kafka-flush"
	natsFile    = "nats"
)

// pageCache makes a topic acknowledge what is written but not synced, as Kafka does.
const pageCache = "flush.messages=9223372036854775807"

// contender is a program with the settings of its topics.
type contender struct {
	name    string
	title   string
	program string
	configs []string
}

// contenders lists all, in the order of the tables.
func contenders() []contender {
	return []contender{
		{name: leatDurable, title: "Leat (durable)", program: programLeat},
		{name: floorSync, title: "floor program, -sync (durable)", program: programFloorSync},
		{name: floorGroup, title: "floor program, -journal (durable)", program: programJournal},
		{name: kafkaFlush, title: "Apache Kafka, flush.messages=1 (durable)", program: programKafka, configs: []string{"flush.messages=1"}},
		{name: leatCache, title: "Leat, page cache", program: programLeat, configs: []string{pageCache}},
		{name: floorCache, title: "floor program", program: programFloor},
		{name: floorAgain, title: "floor program, recycled blocks", program: programRecycle},
		{name: floorWide, title: "floor program, recycled blocks", program: programRecycle64},
		{name: floorNone, title: "floor program, storing nothing", program: programDiscard},
		{name: kafkaPlain, title: "Apache Kafka", program: programKafka},
		{name: natsFile, title: "NATS JetStream, in files", program: programNATS},
	}
}

// workload is what is asked of each contender in turn.
type workload struct {
	name     string // also its heading
	run      func(context.Context, Options) (*Result, error)
	nats     func(context.Context, Options) (*Result, error) // the same for NATS
	set      func(o *Options)
	who      []string // the contenders' names
	figures  []figure
	topic    topicState
	long     bool // not in the quick suite
	own      bool // each turn has a process of its own, and an empty directory
	heavy    bool // none of its rounds is thrown away, and the quick suite has one
	pristine bool // it makes its topics itself, or needs none
	large    bool // the quick suite has a fifth of its records
	warms    bool // it has a part that is not measured, so that no round is thrown away
	calls    bool // system calls are counted too, in a run of its own
	// restart is what runs instead of run, on a program that does not run yet.
	restart func(ctx context.Context, p *program, dir string, o Options) (*Result, error)
	turn    time.Duration    // that one contender's turn takes, about; 0: as long as produce
	fewer   func(o *Options) // what Apache Kafka gets less of; the note says so
	note    string           // for the reader of the table
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

// steadyTotal is what a steady topic keeps of all its partitions.
func steadyTotal(partitions int) int64 {
	if partitions > 1 {
		return wideBytes
	}
	return steadyBytes
}

// topicState says what a turn finds.
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

func workloads() []workload {
	shape := func(size, batch, inFlight int) func(o *Options) {
		return func(o *Options) { o.Size, o.Batch, o.InFlight = size, batch, inFlight }
	}
	fetch := func(bytes int) func(o *Options) {
		return func(o *Options) { o.FetchBytes, o.Passes = bytes, 0 }
	}
	rate := func(n, size int) func(o *Options) {
		return func(o *Options) { o.Rate, o.Size = n, size }
	}
	wide := func(o *Options) {
		o.InFlight, o.Partitions, o.Connections, o.WriteBytes = 5, 64, 64, 0
	}
	many := func(o *Options) {
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
	kept := func(set func(o *Options)) func(o *Options) {
		return func(o *Options) {
			set(o)
			keep := steadyTotal(o.Partitions) / int64(o.Partitions)
			o.Configs = append(o.Configs, fmt.Sprintf("retention.bytes=%d", keep), fmt.Sprintf("segment.bytes=%d", keep/8))
		}
	}
	clients := []string{leatDurable, leatCache, kafkaPlain}
	client := func(records int64) func(*Options) { return func(o *Options) { o.Size, o.Records = 1024, records } }
	return []workload{
		{name: idleEmpty, run: Idle, who: cached, own: true, pristine: true, heavy: true, figures: []figure{memoryFigure(), cpuShareFigure()}, set: still(1, 4*time.Second), turn: 12 * time.Second},
		{name: idleMany, run: Idle, who: cached, own: true, pristine: true, heavy: true, long: true, figures: []figure{memoryFigure(), connectionFigure(), cpuShareFigure()}, set: still(10_000, 12*time.Second), turn: 20 * time.Second},
		{name: produceBatches, run: Produce, nats: natsProduce, set: shape(1024, 16, 32), who: withNATS(all), figures: bytes, calls: true},
		{name: produceLarge, run: Produce, set: shape(1024, 1000, 5), who: cached, figures: bytes},
		{name: produceSmall, run: Produce, nats: natsProduce, set: shape(100, 160, 32), who: withNATS(cached), figures: bytes, calls: true},
		{name: produceSingle, run: Produce, set: shape(1024, 1, 256), who: cached, figures: records, calls: true},
		{name: produceFew, run: Produce, set: shape(1024, 1, 5), who: cached, figures: records, calls: true},
		{name: produceDurable, run: Produce, set: shape(1024, 1, 64), who: durable, figures: records},
		{name: produceWide, run: Produce, set: wide, who: all, figures: bytes, calls: true},
		{name: produceMany, run: Produce, set: many, who: durable, figures: records, long: true},
		{name: consumeLarge, run: Consume, set: fetch(1 << 20), who: cached, figures: read, topic: filled},
		{name: consumeSmall, run: Consume, set: fetch(64 << 10), who: cached, figures: read, topic: filled},
		{name: latencySmall, run: Latency, nats: natsLatency, set: rate(1000, 100), who: withNATS(all), figures: times, warms: true},
		{name: latencyLarge, run: Latency, set: rate(5000, 1024), who: cached, figures: times, warms: true},
		{name: produceBatches + steadySuffix, run: Produce, set: kept(shape(1024, 16, 32)), who: again, figures: bytes, topic: steady},
		{name: produceLarge + steadySuffix, run: Produce, set: kept(shape(1024, 1000, 5)), who: again, figures: bytes, topic: steady, long: true},
		{name: produceSmall + steadySuffix, run: Produce, set: kept(shape(100, 160, 32)), who: again, figures: bytes, topic: steady, long: true},
		{name: produceWide + steadySuffix, run: Produce, set: kept(wide), who: []string{leatCache, floorWide, kafkaPlain}, figures: bytes, topic: steady, long: true},
		{name: generatorLarge, run: Produce, set: shape(1024, 16, 32), who: []string{floorNone}, figures: []figure{rateFigure(), clientByteFigure()}},
		{name: generatorSmall, run: Produce, set: shape(100, 160, 32), who: []string{floorNone}, figures: []figure{rateFigure(), clientRecordFigure()}},
		{name: consumeCold, run: Cold, set: from(coldDefaults()), who: []string{leatCache, kafkaPlain}, figures: coldFigures(), heavy: true, pristine: true, turn: 22 * time.Second},
		{name: clientJava, run: javaClient().run, set: client(200_000), who: clients, figures: clientFigures(), heavy: true, long: true, turn: 12 * time.Second},
		{name: clientKcat, run: kcatClient().run, set: client(1_000_000), who: clients, figures: clientFigures(), heavy: true, large: true, turn: 9 * time.Second},
		{name: clientFranz, run: franzClient().run, set: client(1_000_000), who: clients, figures: clientFigures(), heavy: true, large: true, turn: 6 * time.Second},
		{name: loadBoth, run: Load, set: from(loadDefaults()), who: []string{leatCache, kafkaPlain}, figures: loadFigures(), own: true, heavy: true, turn: 20 * time.Second},
		{name: restartLarge, restart: restart, set: reborn(0), who: []string{leatDurable, kafkaPlain}, figures: restartFigures(), own: true, heavy: true, large: true, turn: 30 * time.Second, note: restartNote},
		{name: restartMany, restart: restart, set: reborn(5000), who: []string{leatDurable, kafkaPlain}, figures: restartFigures(), own: true, heavy: true, large: true, long: true, turn: 60 * time.Second, fewer: func(o *Options) { o.Extra = fewerPartitions }, note: restartNote + " " + fewerNote},
		{name: groupsMany, run: Groups, set: from(groupsDefaults()), who: []string{leatCache, leatDurable, kafkaPlain}, figures: groupFigures(), heavy: true, turn: 14 * time.Second},
		{name: spreadThin, run: Spread, set: from(spreadDefaults()), who: []string{leatDurable, leatCache, floorCache, kafkaPlain}, figures: spreadFigures(), heavy: true, long: true, turn: 20 * time.Second, fewer: func(o *Options) { o.Partitions = fewerPartitions }, note: fewerNote},
		{name: createMany, run: Create, set: from(createDefaults()), who: []string{leatCache, kafkaPlain}, figures: createFigures(), heavy: true, pristine: true, turn: 6 * time.Second, fewer: func(o *Options) { o.Partitions = fewerPartitions }, note: fewerNote},
	}
}

// still holds connections that do nothing, and looks when the server has come to rest.
func still(connections int, settle time.Duration) func(o *Options) {
	return func(o *Options) { o.Connections, o.Settle = connections, settle }
}

// reborn fills ten partitions, and more with one record each.
func reborn(extra int) func(o *Options) {
	return func(o *Options) {
		from(restartDefaults())(o)
		o.Partitions, o.Extra, o.Records, o.Batch, o.InFlight = 10, extra, 10_000_000_000/1024, 500, 5
	}
}

// from takes over the settings that a kind of run has by itself.
func from(d Options) func(o *Options) {
	return func(o *Options) {
		o.Size, o.Batch, o.InFlight, o.Partitions, o.Connections = d.Size, d.Batch, d.InFlight, d.Partitions, d.Connections
		o.Records, o.Passes, o.Members, o.Groups, o.Interval = d.Records, d.Passes, d.Members, d.Groups, d.Interval
	}
}
