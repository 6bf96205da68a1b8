package main

import (
	"slices"
	"time"

	"github.com/leatstream/leat/internal/bench"
	"github.com/leatstream/leat/internal/bench/process"
	"github.com/leatstream/leat/tools/suite/workload"
)

// Names of workloads of security.
const (
	securityLogins      = "security: logins, "
	securityCertificate = "security: connections over TLS with the client's certificate, full handshakes"
	securityFull        = "security: connections over TLS, full handshakes"
	securityResumed     = "security: connections over TLS, resumed"
	securityIdle        = "security: idle, 10,000 connections over TLS"
	securityProduceFew  = "security: produce, authorised, one 1 KiB record a request, 5 in flight"
	securityProduce     = "security: produce, authorised, 1 KiB records, 16 a batch, 32 in flight"
	securityConsume     = "security: consume, authorised, 64 KiB a request"
	securityFranz       = "security: franz-go, over TLS"
)

const (
	loginNote = "A login is a TCP connection without TLS, ApiVersions, the login, and the end, one after another on each of 4 threads. The client computes what depends on the password once. " +
		"SCRAM has 4,096 iterations, OAUTHBEARER a token of RS256 whose signature both brokers check by a file of keys, PLAIN the cluster's users on Leat and those of a file on Apache Kafka."
	handshakeNote = "A connection is TLS 1.3 with keys of P-256, ApiVersions, and the end, one after another on each of 4 threads, each of which resumes its last one where they are resumed."
	overTLSNote   = "franz-go with its settings as they are produces 1 KiB records by TLS 1.3 to a topic of one partition, and reads them. It is the bottleneck."
	authorNote    = "Clients of the secured brokers come as User:ANONYMOUS, whom one ACL by prefix lets use the topics; 1,000 other users have an ACL each. The others of the table are open."
)

// securityRows are the workloads of logins, of TLS and of authorisation.
func securityRows() (all []row) {
	both := []string{leatSecured, kafkaSecured}
	come := func(entry workload.Entry, mechanism string, resumes bool) func(o *workload.Options) {
		return func(o *workload.Options) {
			o.Entry, o.Mechanism, o.Resumes, o.Connections = entry, mechanism, resumes, 4
		}
	}
	connections := func(name, note string, figures []figure, set func(o *workload.Options)) {
		all = append(all, row{name: name, run: workload.Connections, who: both, pristine: true, set: set, figures: figures, note: note, warm: 6 * time.Second, turn: 4 * time.Second})
	}
	for _, m := range []string{workload.ByPlain, workload.BySHA256, workload.BySHA512, workload.ByOAuth, workload.ByDelegation} {
		connections(securityLogins+m, loginNote, loginFigures("login"), come(workload.EntryLogin, m, false))
	}
	connections(securityCertificate, handshakeNote, loginFigures("connection"), come(workload.EntryCertificate, "", false))
	connections(securityFull, handshakeNote, handshakeFigures(), come(workload.EntryTLS, "", false))
	connections(securityResumed, handshakeNote, handshakeFigures(), come(workload.EntryTLS, "", true))
	idle := still(10_000, 12*time.Second)
	all = append(all, row{
		name: securityIdle, run: workload.Idle, who: both, own: true, pristine: true, heavy: true, most: 3, turn: 55 * time.Second,
		figures: []figure{memoryFigure(), connectionFigure(), cpuShareFigure()},
		set:     func(o *workload.Options) { idle(o); o.Entry = workload.EntryTLS },
	})
	beside := []string{leatCache, leatAuthorised, kafkaPlain, kafkaAuthorised}
	shape := func(batch, inFlight int) func(o *workload.Options) {
		return func(o *workload.Options) { o.Size, o.Batch, o.InFlight = 1024, batch, inFlight }
	}
	return append(all,
		row{
			name: securityFranz, run: workload.FranzClient, who: []string{leatAuthorised, kafkaAuthorised}, figures: clientFigures(), large: true, note: overTLSNote, turn: 9 * time.Second,
			set: func(o *workload.Options) { o.Records, o.Size, o.Entry = 1_000_000, 1024, workload.EntryTLS },
		},
		row{name: securityProduceFew, run: workload.Produce, set: shape(1, 5), who: beside, figures: []figure{cpuRequestFigure(), recordRateFigure(), clientRecordFigure()}, note: authorNote},
		row{name: securityProduce, run: workload.Produce, set: shape(16, 32), who: beside, figures: []figure{cpuByteFigure(), rateFigure(), clientByteFigure()}, note: authorNote},
		row{
			name: securityConsume, run: workload.Consume, set: func(o *workload.Options) { o.FetchBytes, o.Passes = 64<<10, 0 }, who: beside, topic: filled,
			figures: []figure{cpuByteFigure(), cpuRequestFigure(), rateFigure(), clientByteFigure()}, note: authorNote,
		})
}

// Places in loginFigures.
const (
	loginRate = iota
	loginCPU
)

// Figures of logins and of connections.
func loginFigures(what string) []figure {
	times := quantileFigures(what, func(r *workload.Result) *bench.Quantiles { return r.Ack })
	return []figure{
		{name: what + "s/s", format: bench.FormatNumber, value: func(r *workload.Result) float64 { return float64(r.Requests) / r.Seconds }},
		{name: "server CPU, us/" + what, format: bench.FormatDigits, less: true, value: ofServer(func(r *workload.Result, s *process.Usage) float64 {
			return quotient(s.CPU*1e6, float64(r.Requests))
		})},
		{name: "client CPU, us/" + what, format: bench.FormatDigits, less: true, value: func(r *workload.Result) float64 {
			return quotient(r.ClientCPU*1e6, float64(r.Requests))
		}},
		times[quantileP50], times[quantileP99],
	}
}

// Figures of handshakes.
func handshakeFigures() []figure {
	resumed := stepFigure("resumed", workload.ConnectionsResumed, bench.FormatNumber, stepRequests)
	share := figure{name: "resumed", format: percent, value: func(r *workload.Result) float64 { return quotient(resumed.value(r), float64(r.Requests)) }}
	return append(loginFigures("connection"), share)
}

// securityClaims are the targets of security. Where requests are authorised, an open Leat stands where the floor program is elsewhere.
func securityClaims() (all []claim) {
	const (
		mostMore      = 1.03 // of the CPU of an open one
		lessThanKafka = 3
	)
	beside := func(workload string, f figure) {
		all = append(all, claim{
			row: "30", workload: workload, title: workload + ", beside an open one as the floor", figure: f, leat: leatAuthorised, floor: leatCache, kafka: kafkaAuthorised, toFloor: mostMore, toKafka: 1,
		})
	}
	beside(securityProduceFew, cpuRequestFigure())
	beside(securityProduce, cpuByteFigure())
	beside(securityConsume, cpuByteFigure())
	beyond := func(workload string, f figure) {
		all = append(all, claim{row: "30", workload: workload, figure: f, leat: leatSecured, kafka: kafkaSecured, toKafka: 1})
	}
	for _, m := range []string{workload.ByPlain, workload.BySHA256, workload.BySHA512, workload.ByOAuth, workload.ByDelegation} {
		beyond(securityLogins+m, loginFigures("login")[loginRate])
		beyond(securityLogins+m, loginFigures("login")[loginCPU])
	}
	for _, name := range []string{securityCertificate, securityFull, securityResumed} {
		beyond(name, loginFigures("connection")[loginCPU])
	}
	for i, workload := range []string{"produce", "consume"} {
		f := clientFigures()[3*i+1]
		all = append(all, claim{row: "30", workload: securityFranz, title: securityFranz + ", " + workload, figure: f, leat: leatAuthorised, kafka: kafkaAuthorised, toKafka: lessThanKafka})
	}
	const mostMemory = 20_000 // of a connection
	idle := claim{row: "30", workload: securityIdle, figure: connectionFigure(), leat: leatSecured, kafka: kafkaSecured, most: mostMemory}
	return slices.Concat(all, []claim{idle})
}
