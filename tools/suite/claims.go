package main

import "slices"

// claim is a line of the headline table: a figure of a workload with its
// target. A ratio to the floor program counts how much less well Leat does than it,
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
	least    float64
}

// pair compares Leat with the floor and with Kafka, each in its page cache.
func pair(row, workload string, f figure, toFloor, toKafka float64) claim {
	return claim{
		row: row, workload: workload, figure: f, leat: leatCache, floor: floorCache, kafka: kafkaPlain,
		toFloor: toFloor, toKafka: toKafka,
	}
}

// again compares logs that have reached their retention.
func again(row, workload string, f figure, toFloor, toKafka float64) claim {
	c := pair(row, workload+steadySuffix, f, toFloor, toKafka)
	if c.floor = floorAgain; workload == produceWide {
		c.floor = floorWide
	}
	return c
}

// synced compares those that answer when the records are on disk.
func synced(row, workload string, f figure, toFloor, toKafka float64) claim {
	return claim{
		row: row, workload: workload, figure: f, leat: leatDurable, floor: floorSync, kafka: kafkaFlush,
		toFloor: toFloor, toKafka: toKafka, title: "durable: " + workload,
	}
}

// grouped compares with the floor program that makes the records of all partitions
// durable by one write, as Leat does.
func grouped(row, workload string, f figure, toFloor float64) claim {
	return claim{
		row: row, workload: workload, figure: f, leat: leatDurable, floor: floorGroup, toFloor: toFloor,
		title: "durable, beside a floor with a journal: " + workload,
	}
}

// unflushed compares Leat as it comes with Kafka as it comes.
func unflushed(workload string, f figure, toKafka float64) claim {
	return claim{
		row: "15", workload: workload, figure: f, leat: leatDurable, kafka: kafkaPlain, toKafka: toKafka,
		title: "Leat durable, Kafka not: " + workload,
	}
}

// itself judges a figure by itself, and against Kafka's.
func itself(row, workload, who string, f figure, most, toKafka float64) claim {
	c := claim{row: row, workload: workload, figure: f, leat: who, most: most, toKafka: toKafka}
	if toKafka > 0 {
		c.kafka = kafkaPlain
	}
	if who == leatDurable {
		c.title = "durable: " + workload
	}
	return c
}

// least judges a figure that should be large.
func least(row, workload, who string, f figure, least float64) claim {
	return claim{row: row, workload: workload, figure: f, leat: who, least: least}
}

// claims are the targets, in the order of their table.
func claims() []claim {
	ack, end := ackFigures(), endFigures()
	create, groups, thin := createFigures(), groupFigures(), spreadFigures()
	cold, load, born := coldFigures(), loadFigures(), restartFigures()
	const p50, p99, p999 = quantileP50, quantileP99, quantileP999
	return slices.Concat([]claim{
		pair("1", produceBatches, cpuByteFigure(), 1.4, 7),
		pair("1", produceBatches, rateFigure(), 0, 5),
		again("1", produceBatches, cpuByteFigure(), 1.5, 10),
		pair("2", produceLarge, cpuByteFigure(), 1.4, 1.6),
		again("2", produceLarge, cpuByteFigure(), 1.4, 2.2),
		pair("3", produceSmall, cpuRecordFigure(), 1.4, 5.5),
		again("3", produceSmall, cpuRecordFigure(), 1.6, 8),
		pair("4", produceSingle, cpuRequestFigure(), 2, 30),
		pair("4", produceSingle, recordRateFigure(), 0, 15),
		pair("5", produceFew, cpuRequestFigure(), 1.4, 10),
		pair("6", produceWide, cpuByteFigure(), 1.35, 3),
		again("6", produceWide, cpuByteFigure(), 1.35, 4.5),
		pair("8", consumeLarge, cpuByteFigure(), 1.25, 2.2),
		pair("9", consumeSmall, cpuByteFigure(), 1.15, 1.9),
		least("10", consumeCold, leatCache, cold[2], 0.85),
		itself("10", consumeCold, leatCache, cold[7], 1.5, 0),
		itself("10", consumeCold, leatCache, cold[6], 0, 10),
		pair("11", latencySmall, end[p50], 1.4, 1.5),
		pair("11", latencySmall, end[p99], 1.5, 1.5),
		pair("11", latencySmall, end[p999], 0, 1),
		pair("11", latencyLarge, end[p50], 1.4, 1.5),
		pair("11", latencyLarge, end[p99], 1.5, 1.5),
		pair("11", latencyLarge, end[p999], 0, 1),
		synced("12", latencySmall, ack[p50], 1.5, 1.3),
		synced("12", latencySmall, ack[p99], 1.6, 1.8),
		grouped("12", latencySmall, ack[p50], 1.5),
		grouped("12", latencySmall, ack[p99], 1.6),
		synced("13", produceBatches, rateFigure(), 0.6, 10),
		synced("13", produceBatches, cpuByteFigure(), 0, 15),
		grouped("13", produceBatches, rateFigure(), 0.6),
		synced("13b", produceDurable, recordRateFigure(), 0.5, 25),
		grouped("13b", produceDurable, recordRateFigure(), 0.5),
		synced("14", produceWide, rateFigure(), 0.8, 6),
		grouped("14", produceWide, rateFigure(), 0),
		synced("14", produceWide, cpuByteFigure(), 0, 10),
		synced("14", produceMany, recordRateFigure(), 0.8, 6),
		grouped("14", produceMany, recordRateFigure(), 0),
		synced("14", produceMany, cpuRecordFigure(), 0, 10),
		unflushed(produceBatches, cpuByteFigure(), 6),
		unflushed(produceBatches, rateFigure(), 3),
		unflushed(produceWide, cpuByteFigure(), 3),
		unflushed(produceWide, rateFigure(), 1),
		itself("16", spreadThin, leatCache, thin[4], 1e-6, 0),
		itself("16", spreadThin, leatCache, thin[1], 0, 150),
		itself("16", spreadThin, leatDurable, thin[4], 1e-6, 0),
		itself("17", createMany, leatCache, create[1], 0.3, 0),
		itself("17", createMany, leatCache, create[7], 0, 1),
		itself("17", createMany, leatCache, create[6], 1.05, 0),
		itself("18", idleMany, leatCache, connectionFigure(), 6144, 0),
		itself("18", idleMany, leatCache, cpuShareFigure(), 0.001, 0),
		itself("18", idleMany, leatCache, memoryFigure(), 0, 6),
		itself("19", restartLarge, leatDurable, born[0], 0.02, 80),
		itself("19", restartMany, leatDurable, born[2], 0.08, 25),
		itself("20", restartLarge, leatDurable, born[1], 0.1, 100),
		itself("20", restartMany, leatDurable, born[1], 0.1, 100),
		itself("22", idleEmpty, leatCache, memoryFigure(), 15e6, 25),
		itself("22", idleEmpty, leatCache, cpuShareFigure(), 0.0005, 25),
		itself("23", loadBoth, leatCache, load[2], 100e6, 12),
		itself("23", loadBoth, leatCache, load[3], 0, 0),
		itself("26", groupsMany, leatCache, groups[0], 0.06, 5),
		itself("26", groupsMany, leatCache, groups[4], 5, 0),
		itself("-", generatorLarge, floorNone, clientByteFigure(), 0.15, 0),
		itself("-", generatorSmall, floorNone, clientRecordFigure(), 0.02, 0),
	}, transactionClaims(), compactionClaims(), securityClaims(), clusterClaims())
}
