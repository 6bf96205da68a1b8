# What there is to do with Leat; "make help" lists it. Nothing here needs more
# than Go, make and the network: what a test runs besides (clients in other
# languages) it installs itself, or says what is missing.

GO       ?= go
FUZZTIME ?= 10s
ROUNDS   ?= 20
# Packages in which goroutines meet: tested with the race detector too.
RACE     := wire peer storage storage/segment storage/journal replica coord group txn broker quorum controller cluster wan
# Packages with files of their own for Linux: their plain path is tested too.
PORTABLE := vfs wire storage bench
# Modules of their own beside the main one.
MODULES  := interop tools/suite
# golangci-lint is built from source, so that it knows this Go version.
LINT_VERSION := v2.15.0
LINT         := bin/golangci-lint-$(LINT_VERSION)
VULN_VERSION := v1.9.0
VULN         := bin/govulncheck-$(VULN_VERSION)

.NOTPARALLEL:
.PHONY: help build run test test-unit test-race test-portable test-suite test-interop test-interop-cluster test-apps test-sources test-crash test-model test-sim test-power test-flood chaos lint golangci vet tidy vuln cross bench bench-quick bench-compare fuzz cover clean

help: ## list what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 22

build: ## build bin/leat
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/leat ./cmd/leat

run: build ## run a node on localhost:9092 with its data in ./leat-data
	bin/leat up

test: ## run all tests: unit, race, portable, the benchmark suite, real clients
	@$(MAKE) --keep-going --no-print-directory test-unit test-race test-portable test-suite test-interop

test-unit: ## run the tests of all packages, and of the binary as a process
	$(GO) test -timeout 25m ./...

test-race: ## run the concurrent packages with the race detector
	GO="$(GO)" scripts/race.sh $(RACE:%=./internal/%)

test-portable: ## run the path that serves where a Linux call is missing
	$(GO) test -timeout 10m -tags portable $(PORTABLE:%=./internal/%)

test-suite: ## run the tests of the benchmark suite, which measure the binary
	cd tools/suite && $(GO) test -timeout 10m ./...

test-flood: ## send the worst requests of each kind for FLOOD (60s) and look at memory
	LEAT_FLOOD=$(or $(FLOOD),60s) $(GO) test -timeout 60m -run TestFlood -v ./cmd/leat

test-interop: ## run clients that nobody here wrote against the binary
	cd interop && $(GO) test -timeout 30m ./...

test-interop-cluster: ## run the clients against three nodes, and the tests of Sarama, which need five (15 minutes)
	cd interop && LEAT_INTEROP_NODES=3 $(GO) test -count=1 -timeout 60m ./...

test-apps: ## run Kafka Streams, Connect, MirrorMaker 2 and Flink, and kill them and nodes (30 minutes)
	cd interop && LEAT_INTEROP_APPS=1 $(GO) test -count=1 -timeout 90m -parallel 1 -v -run 'TestStreams|TestConnect|TestMirrorMaker|TestFlink' .

test-sources: ## mirror Apache Kafka 2.1.1 and 2.8.2 while their brokers die and their topics change (six minutes)
	cd interop && LEAT_INTEROP_SOURCES=1 $(GO) test -count=1 -timeout 40m -parallel 1 -v -run 'TestOldSources|TestLinkReadsNearestReplica' .

test-power: ## cut the power and kill the process under load ROUNDS (20) times; needs root and loop devices
	LEAT_TEST_ROUNDS=$(ROUNDS) $(GO) test -count=1 -timeout 60m -v -run 'TestPowerCut|TestKillUnderLoad' ./cmd/leat

chaos: ## break clusters of 3 and 5 processes in all ways and write docs/chaos.md; CHAOS is nodes x rounds x seconds of a fault; needs root (an hour)
	LEAT_CHAOS="$(or $(CHAOS),3x1x30 5x1x10)" LEAT_CHAOS_REPORT="$(CURDIR)/docs/chaos.md" LEAT_CHAOS_COMMIT="$$(git describe --always --dirty --exclude '*')" $(GO) test -count=1 -timeout 3h -v -run 'TestChaos$$' ./cmd/leat

lint: ## run the linters, check formatting and go.mod
	@$(MAKE) --keep-going --no-print-directory vet tidy golangci

golangci: $(LINT)
	$(LINT) run --allow-parallel-runners ./...
	for m in $(MODULES); do (cd $$m && "$(CURDIR)/$(LINT)" run --allow-parallel-runners --config "$(CURDIR)/.golangci.yml" ./...) || exit; done

vet:
	$(GO) vet ./...
	for m in $(MODULES); do (cd $$m && $(GO) vet ./...) || exit; done

tidy:
	$(GO) mod tidy -diff
	for m in $(MODULES); do (cd $$m && $(GO) mod tidy -diff) || exit; done

$(LINT):
	GOBIN="$(CURDIR)/bin" $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	mv bin/golangci-lint $(LINT)

vuln: $(VULN) ## look for known vulnerabilities in what the code calls; LEAT_VULNDB names another database than vuln.go.dev
	GO="$(GO)" scripts/vuln.sh "$(CURDIR)/$(VULN)" . $(MODULES)

$(VULN):
	GOBIN="$(CURDIR)/bin" $(GO) install golang.org/x/vuln/cmd/govulncheck@$(VULN_VERSION)
	mv bin/govulncheck $(VULN)

cross: ## build and vet for every platform that people have on their desks
	GO="$(GO)" scripts/cross.sh linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64

bench: ## measure side by side with the floor and other brokers (65 minutes), write docs/benchmarks.md
	GO="$(GO)" scripts/bench.sh

bench-quick: ## the same in under ten minutes
	GO="$(GO)" scripts/bench.sh --quick

bench-compare: ## micro-benchmarks of the hot packages at BASE (main~1) and here, by benchstat
	GO="$(GO)" scripts/compare.sh

test-crash: ## run the crash model of the storage engine over 50,000 seeds of each kind: clean, after errors, in a crowd of producers, in hardship, while logs are compacted, and a tenth of them with everything at the same time, or with replicas that are compacted (two hours)
	LEAT_TEST_SEEDS=50000 $(GO) test -timeout 3h -run 'TestCrash$$|TestCrashAfterError$$|TestCrashInCrowd$$|TestCrashInHardship$$|TestCrashInCompaction$$|TestCrashInRace$$|TestCompactedReplicas$$' ./internal/storage

test-model: ## run the models of replication, of transactions, of mirrors and of the positions of links over SEEDS (20,000) histories, and all their mutants (an hour)
	LEAT_TEST_SEEDS=$(or $(SEEDS),20000) LEAT_TEST_MUTANTS=all $(GO) test -timeout 3h -run 'TestModel|TestMutants' ./internal/replica/progress ./internal/txn ./internal/mirror/progress ./internal/mirror/position

test-sim: ## simulate SEEDS (20,000) clusters with all their faults, as many with transactions, and try all mutants (two hours)
	LEAT_TEST_SEEDS=$(or $(SEEDS),20000) LEAT_TEST_MUTANTS=all $(GO) test -count=1 -timeout 4h -v -run 'TestSeeds|TestTransactions$$|TestMutants' ./internal/sim

fuzz: ## run every fuzz target for FUZZTIME (10s)
	GO="$(GO)" scripts/fuzz.sh $(FUZZTIME)

cover: ## write coverage.html and print what each function's tests reach
	@mkdir -p bin
	$(GO) test -timeout 15m -coverprofile bin/coverage.out ./...
	$(GO) tool cover -html bin/coverage.out -o bin/coverage.html
	$(GO) tool cover -func bin/coverage.out | tail -1

clean: ## remove what was built; clients of the interop suite stay in interop/.cache
	rm -rf bin
