package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/leatstream/leat/internal/bench"
	"github.com/leatstream/leat/internal/bench/process"
	"github.com/leatstream/leat/tools/suite/server"
	"github.com/leatstream/leat/tools/suite/workload"
)

// Names of workloads of compaction.
const (
	compactionFew    = "compaction of 1 GB, records of 100 B, 10 % of the keys live"
	compactionAll    = "compaction of 1 GB, records of 100 B, all keys live"
	compactionBeside = "compaction of 1 GB, records of 100 B, 10 % of the keys live, and producers meanwhile"
)

const compactionNote = "10 million records, uncompressed, in batches of 160 and 16 segments, of which the last one is not compacted. Each broker compacts a topic that was produced there, " +
	"with its default of 128 MiB for the keys, after another topic of a fifth of the size. MB are those of the segments, once, and the time is that of the broker's own log; CPU is that of the whole process. " +
	"After each run all records were read: just the last one of each key was left."

// compactionRows are the workloads of compaction.
func compactionRows() []row {
	who := []string{leatCleaner, kafkaCleaner}
	keys := func(n int64, more func(o *workload.Options)) func(o *workload.Options) {
		return func(o *workload.Options) {
			from(workload.CompactionDefaults())(o)
			o.Keys, o.Duration = n, 0
			more(o)
		}
	}
	none := func(*workload.Options) {}
	tenth := workload.CompactionDefaults().Records / 10
	return []row{
		{name: compactionFew, starts: workload.Compaction, set: keys(tenth, none), who: who, figures: compactionFigures(), own: true, heavy: true, most: 2, turn: 25 * time.Second, note: compactionNote},
		{name: compactionAll, starts: workload.Compaction, set: keys(0, none), who: who, figures: compactionFigures(), own: true, heavy: true, most: 2, turn: 35 * time.Second, note: compactionNote},
		{
			name: compactionBeside, starts: workload.CompactionWithProducer, who: who, own: true, heavy: true, most: 2, turn: 35 * time.Second,
			set:     keys(tenth, func(o *workload.Options) { o.Rate, o.Duration = 1000, 3*time.Second }),
			figures: besideFigures(), note: "Records of 100 B are sent at 1,000/s to another topic, with acks=all, before and while the topic of the table above is compacted.",
		},
	}
}

// Places in compactionFigures.
const (
	compactionRate = iota
	compactionCoreRate
	compactionGrowth
	compactionPeak
)

// Figures of compaction.
func compactionFigures() []figure {
	clean := workload.CompactionClean
	return []figure{
		stepRate("MB/s", clean),
		{name: "MB/s per core", format: bench.FormatDigits, value: func(r *workload.Result) float64 {
			if s := r.Step(clean); s != nil && s.Server != nil {
				return quotient(float64(s.Bytes)/1e6, s.Server.CPU)
			}
			return math.NaN()
		}},
		{name: "peak RSS beyond that before", format: mib, less: true, value: ofServer(func(r *workload.Result, s *process.Usage) float64 {
			return float64(s.PeakRSS - r.RSSBefore)
		})},
		stepFigure("peak RSS", clean, mib, func(s *workload.Step) float64 { return float64(s.Server.PeakRSS) }),
		stepFigure("rounds", clean, bench.FormatNumber, stepRequests),
		stepFigure("time, s", clean, bench.FormatDigits, func(s *workload.Step) float64 { return s.Seconds }),
		stepFigure("server CPU, s", clean, bench.FormatDigits, func(s *workload.Step) float64 { return s.Server.CPU }),
	}
}

// Figures of producers beside compaction: the last one is the ratio of both p99.
func besideFigures() []figure {
	at := func(name, step string, of func(q *bench.Quantiles) float64) figure {
		return stepFigure(name, step, bench.FormatMicros, stepAck(of))
	}
	p50, p99 := func(q *bench.Quantiles) float64 { return q.P50 }, func(q *bench.Quantiles) float64 { return q.P99 }
	alone, beside := at("alone, p99", workload.CompactionAlone, p99), at("meanwhile, p99", workload.CompactionBeside, p99)
	return []figure{
		at("alone, p50", workload.CompactionAlone, p50), alone, at("meanwhile, p50", workload.CompactionBeside, p50), beside,
		ratioFigure("p99, meanwhile / alone", true, beside, alone),
	}
}

// compactionClaims are the targets of compaction.
func compactionClaims() (all []claim) {
	claimOf := func(name string, f figure, toKafka float64) claim {
		return claim{row: "29", workload: name, figure: f, leat: leatCleaner, kafka: kafkaCleaner, toKafka: toKafka}
	}
	f := compactionFigures()
	for _, name := range []string{compactionFew, compactionAll} {
		all = append(all, claimOf(name, f[compactionCoreRate], 1.5), claimOf(name, f[compactionRate], 1.5), claimOf(name, f[compactionGrowth], 0), claimOf(name, f[compactionPeak], 0))
	}
	beside := besideFigures()
	ratio := claimOf(compactionBeside, beside[len(beside)-1], 0)
	ratio.most = 1.5
	return append(all, ratio)
}

// toldCleaning are the arguments with which Leat compacts soon, and writes about each round.
func toldCleaning() []string { return []string{"--log-level=debug", "--set=" + cleanSoon} }

// cleanSoon has a broker look for topics to compact ten times a second.
const cleanSoon = "log.cleaner.backoff.ms=100"

// kafkaCleanerProgram starts a node of Apache Kafka that compacts soon, and writes about each round.
func kafkaCleanerProgram(kafka string) *server.Program {
	java := javaOf(kafka)
	logging := func(dir string) string { return filepath.Join(dir, "log4j2.xml") }
	return &server.Program{
		About: aboutKafka(kafka) + strings.Join(settings(" "), "") + " " + cleanSoon + ", and the cleaner's log",
		Prepare: func(ctx context.Context, dir, addr string) error {
			if err := os.WriteFile(logging(dir), []byte(kafkaLogging), 0o600); err != nil {
				return err
			}
			return formatKafka(ctx, dir, addr, java, cleanSoon)
		},
		Command: func(dir, _ string) (string, []string) {
			// The numbers of the log must be English ones.
			return "java", java(dir, fmt.Sprintf("-Dlog4j2.configurationFile=%s", logging(dir)), "-Duser.language=en", "-Duser.country=US", "kafka.Kafka")
		},
	}
}

// kafkaLogging has Apache Kafka's cleaner write about each round; its logger has the second name in earlier versions.
const kafkaLogging = `<Configuration>
  <Appenders><Console name="C"><PatternLayout pattern="[%d] %p %m (%c)%n"/></Console></Appenders>
  <Loggers>
    <Logger name="org.apache.kafka.storage.internals.log.LogCleaner$CleanerThread" level="info"/>
    <Logger name="kafka.log.LogCleaner" level="info"/>
    <Root level="error"><AppenderRef ref="C"/></Root>
  </Loggers>
</Configuration>
`
