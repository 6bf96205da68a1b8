package main

import (
	"time"

	"github.com/leatstream/leat/internal/bench"
	"github.com/leatstream/leat/internal/bench/process"
	"github.com/leatstream/leat/tools/suite/workload"
)

// Names of workloads of transactions.
const (
	transactionsMany = "transactions of 16 producers, 100 records of 100 B each"
	transactionsOne  = "transactions of one producer, 100 records of 100 B each"
	transactionsTime = "transactions of 16 producers, 100 records of 100 B each, 400/s"
)

const transactionNote = "A transaction is one batch to one partition, each producer has a partition and a connection of its own, and all clients are one thread. " +
	"The newer flow (KIP-890): Produce 12, then EndTxn 5, each when the answer before has come; a request that is to be sent again is sent at once. " +
	"With flush.messages=1 Apache Kafka's topic of the transactions' state has it, too. A client that reads committed records has found all of them after each run."

// transactionRows are the workloads of transactions. The one with more of them comes first, since it has Java compile
// the code.
func transactionRows() []row {
	who := []string{leatDurable, kafkaFlush, kafkaPlain}
	producers := func(n, rate int) func(o *workload.Options) {
		return func(o *workload.Options) { o.Producers, o.Partitions, o.Batch, o.Size, o.Rate = n, n, 100, 100, rate }
	}
	return []row{
		{name: transactionsMany, run: workload.Transactions, set: producers(16, 0), who: who, figures: transactionFigures(), warm: 10 * time.Second, note: transactionNote},
		{name: transactionsOne, run: workload.Transactions, set: producers(1, 0), who: who, figures: transactionFigures(), note: transactionNote},
		{
			name: transactionsTime, run: workload.Transactions, set: producers(16, 400), who: []string{leatDurable, kafkaPlain}, figures: transactionFigures(),
			note: "The same at a rate that both brokers keep up with: each producer begins a transaction each 40 ms, and the time of a transaction counts from when it was due.",
		},
	}
}

// Places in transactionFigures.
const (
	transactionRate = iota
	transactionCommitP50
	transactionCommitP99
	transactionWholeP50
	transactionWholeP99
	transactionCPU
)

// Figures of transactions.
func transactionFigures() []figure {
	commit := quantileFigures("commit", func(r *workload.Result) *bench.Quantiles { return r.Ack })
	whole := quantileFigures("transaction", func(r *workload.Result) *bench.Quantiles { return r.EndToEnd })
	return []figure{
		{name: "transactions/s", format: bench.FormatNumber, value: func(r *workload.Result) float64 { return float64(r.Requests) / r.Seconds }},
		commit[quantileP50], commit[quantileP99], whole[quantileP50], whole[quantileP99],
		{name: "server CPU, us/transaction", format: bench.FormatDigits, less: true, value: ofServer(func(r *workload.Result, s *process.Usage) float64 {
			return quotient(s.CPU*1e6, float64(r.Requests))
		})},
		{name: "client CPU, us/transaction", format: bench.FormatDigits, less: true, value: func(r *workload.Result) float64 {
			return quotient(r.ClientCPU*1e6, float64(r.Requests))
		}},
		{name: "sent again, a transaction", format: bench.FormatDigits, less: true, value: func(r *workload.Result) float64 {
			if s := r.Step(workload.TransactionsAgain); s != nil {
				return quotient(float64(s.Requests), float64(r.Requests))
			}
			return quotient(0, 0)
		}},
		diskFigure(), peakFigure(),
	}
}

// transactionClaims are the targets of transactions: Leat is durable, and compared with the rate of a Kafka that is,
// and with the times and the CPU of a Kafka as it comes. With 16 producers, times are compared at one rate: as fast as
// each broker can, a broker that is faster has more to do.
func transactionClaims() (all []claim) {
	f := transactionFigures()
	for _, name := range []string{transactionsMany, transactionsOne} {
		durable := synced("28", name, f[transactionRate], 0, 3)
		durable.floor = ""
		all = append(all, durable)
	}
	unflushed := func(name string, figure int, toKafka float64) {
		c := unflushed(name, f[figure], toKafka)
		c.row = "28"
		all = append(all, c)
	}
	for _, name := range []string{transactionsMany, transactionsOne} {
		unflushed(name, transactionRate, 0)
		unflushed(name, transactionCPU, 0)
	}
	for _, name := range []string{transactionsOne, transactionsTime} {
		unflushed(name, transactionCommitP50, 1)
		unflushed(name, transactionCommitP99, 1)
		unflushed(name, transactionWholeP50, 0)
		unflushed(name, transactionWholeP99, 0)
	}
	return all
}
