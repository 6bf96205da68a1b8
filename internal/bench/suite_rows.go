package bench

import (
	"context"
	"slices"
)

// Names of contenders. A contender is a program with the settings of its topics.
const (
	leatDurable = "leat"
	leatCache   = "leat-cache"
	floorCache  = "floor"
	floorSync   = "floor-sync"
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
		{name: kafkaFlush, title: "Apache Kafka, flush.messages=1 (durable)", program: programKafka, configs: []string{"flush.messages=1"}},
		{name: leatCache, title: "Leat, page cache", program: programLeat, configs: []string{pageCache}},
		{name: floorCache, title: "floor program", program: programFloor},
		{name: kafkaPlain, title: "Apache Kafka", program: programKafka},
		{name: natsFile, title: "NATS JetStream, in files", program: programNATS},
	}
}

// workload is what is asked of each contender in turn.
type workload struct {
	name    string // also its heading
	run     func(context.Context, Options) (*Result, error)
	nats    func(context.Context, Options) (*Result, error) // the same for NATS
	set     func(o *Options)
	who     []string // the contenders' names
	figures []figure
	topic   topicState
	long    bool // not in the quick suite
	own     bool // each turn has a process of its own, and an empty directory
	once    bool // one turn of each contender is enough
}

// topicState says what a turn finds.
type topicState int

const (
	fresh  topicState = iota // no topic: the turn makes one, which is deleted afterwards
	filled                   // the same records in every turn, to be read
	steady                   // a topic that has reached its retention
)

// claim is a line of the headline table: a figure of a workload with what it has
// to be. A ratio to the floor program counts how much less well Leat does than it,
// one to Apache Kafka how much better.
type claim struct {
	row      string // its number
	title    string // "": the workload's name
	workload string
	figure   figure
	leat     string // the contenders that are compared; "": none
	floor    string
	kafka    string
	toFloor  float64 // at most, or at least where more is better; 0: no target
	toKafka  float64 // at least
	most     float64 // of the figure itself; 0: no target
}

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
	steadySuffix   = ", steady"
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
	durable := []string{leatDurable, floorSync, kafkaFlush}
	cached := []string{leatCache, floorCache, kafkaPlain}
	all := slices.Concat(durable, cached)
	withNATS := func(who []string) []string { return slices.Concat(who, []string{natsFile}) }
	bytes := []figure{rateFigure(), recordRateFigure(), cpuByteFigure(), cpuRecordFigure(), cpuRequestFigure(), clientByteFigure(), peakFigure()}
	records := []figure{rateFigure(), recordRateFigure(), cpuRecordFigure(), cpuRequestFigure(), clientRecordFigure(), peakFigure()}
	read := []figure{rateFigure(), cpuByteFigure(), cpuRequestFigure(), clientByteFigure(), peakFigure()}
	times := slices.Concat(ackFigures(), endFigures(), []figure{cpuRequestFigure()})
	return []workload{
		{name: idleEmpty, run: Idle, who: cached, own: true, figures: []figure{memoryFigure(), cpuShareFigure()}, set: func(o *Options) { o.Connections = 1 }},
		{name: idleMany, run: Idle, who: cached, own: true, figures: []figure{memoryFigure(), cpuShareFigure()}, set: func(o *Options) { o.Connections = 10_000 }},
		{name: produceBatches, run: Produce, nats: natsProduce, set: shape(1024, 16, 32), who: withNATS(all), figures: bytes},
		{name: produceLarge, run: Produce, set: shape(1024, 1000, 5), who: cached, figures: bytes},
		{name: produceSmall, run: Produce, nats: natsProduce, set: shape(100, 160, 32), who: withNATS(cached), figures: bytes},
		{name: produceSingle, run: Produce, set: shape(1024, 1, 256), who: cached, figures: records},
		{name: produceFew, run: Produce, set: shape(1024, 1, 5), who: cached, figures: records},
		{name: produceDurable, run: Produce, set: shape(1024, 1, 64), who: durable, figures: records},
		{name: produceWide, run: Produce, set: wide, who: all, figures: bytes},
		{name: produceMany, run: Produce, set: many, who: durable, figures: records},
		{name: consumeLarge, run: Consume, set: fetch(1 << 20), who: cached, figures: read, topic: filled},
		{name: consumeSmall, run: Consume, set: fetch(64 << 10), who: cached, figures: read, topic: filled},
		{name: latencySmall, run: Latency, nats: natsLatency, set: rate(1000, 100), who: withNATS(all), figures: times},
		{name: latencyLarge, run: Latency, set: rate(5000, 1024), who: cached, figures: times},
	}
}

// claims are the targets, in the order of their table.
func claims() []claim {
	ack, end := ackFigures(), endFigures()
	const p50, p99, p999 = 0, 2, 3
	cached := func(row, workload string, f figure, toFloor, toKafka float64) claim {
		return claim{
			row: row, workload: workload, figure: f, leat: leatCache, floor: floorCache, kafka: kafkaPlain,
			toFloor: toFloor, toKafka: toKafka,
		}
	}
	durable := func(row, workload string, f figure, toFloor, toKafka float64) claim {
		return claim{
			row: row, workload: workload, figure: f, leat: leatDurable, floor: floorSync, kafka: kafkaFlush,
			toFloor: toFloor, toKafka: toKafka, title: "durable: " + workload,
		}
	}
	unflushed := func(workload string, f figure, toKafka float64) claim {
		return claim{
			row: "15", workload: workload, figure: f, leat: leatDurable, kafka: kafkaPlain, toKafka: toKafka,
			title: "Leat durable, Kafka not: " + workload,
		}
	}
	return []claim{
		cached("1", produceBatches, cpuByteFigure(), 1.4, 7),
		cached("1", produceBatches, rateFigure(), 0, 5),
		cached("2", produceLarge, cpuByteFigure(), 1.4, 1.6),
		cached("3", produceSmall, cpuRecordFigure(), 1.4, 5.5),
		cached("4", produceSingle, cpuRequestFigure(), 2, 30),
		cached("4", produceSingle, recordRateFigure(), 0, 15),
		cached("5", produceFew, cpuRequestFigure(), 1.4, 10),
		cached("6", produceWide, cpuByteFigure(), 1.35, 3),
		cached("8", consumeLarge, cpuByteFigure(), 1.25, 2.2),
		cached("9", consumeSmall, cpuByteFigure(), 1.15, 1.9),
		cached("11", latencySmall, end[p50], 1.4, 1.5),
		cached("11", latencySmall, end[p99], 1.5, 1.5),
		cached("11", latencySmall, end[p999], 0, 1),
		cached("11", latencyLarge, end[p50], 1.4, 1.5),
		cached("11", latencyLarge, end[p99], 1.5, 1.5),
		cached("11", latencyLarge, end[p999], 0, 1),
		durable("12", latencySmall, ack[p50], 1.5, 1.3),
		durable("12", latencySmall, ack[p99], 1.6, 1.8),
		durable("13", produceBatches, rateFigure(), 0.6, 10),
		durable("13", produceBatches, cpuByteFigure(), 0, 15),
		durable("13b", produceDurable, recordRateFigure(), 0.5, 25),
		durable("14", produceWide, rateFigure(), 0.8, 6),
		durable("14", produceWide, cpuByteFigure(), 0, 10),
		durable("14", produceMany, recordRateFigure(), 0.8, 6),
		durable("14", produceMany, cpuRecordFigure(), 0, 10),
		unflushed(produceBatches, cpuByteFigure(), 6),
		unflushed(produceBatches, rateFigure(), 3),
		unflushed(produceWide, cpuByteFigure(), 3),
		unflushed(produceWide, rateFigure(), 1),
		{row: "18", workload: idleMany, figure: memoryFigure(), leat: leatCache, floor: floorCache, kafka: kafkaPlain, toKafka: 6},
		{row: "18", workload: idleMany, figure: cpuShareFigure(), leat: leatCache, floor: floorCache, kafka: kafkaPlain, most: 0.001},
		{row: "22", workload: idleEmpty, figure: memoryFigure(), leat: leatCache, floor: floorCache, kafka: kafkaPlain, most: 15e6, toKafka: 25},
		{row: "22", workload: idleEmpty, figure: cpuShareFigure(), leat: leatCache, floor: floorCache, kafka: kafkaPlain, most: 0.0005, toKafka: 25},
	}
}
