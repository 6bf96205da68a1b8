#!/bin/sh
# Builds leat and the floor program and compares them on this machine, with Apache
# Kafka beside them where KAFKA_HOME names a directory whose libs has its jars.
#
#   scripts/bench.sh            all workloads, 5 rounds, into docs/benchmarks.md
#   scripts/bench.sh --quick    a few minutes
#   scripts/bench.sh --only '^latency' --rounds 3 --out latency.md
#
# Arguments go to "leat bench suite"; the last of a flag wins.
set -eu
cd "$(dirname "$0")/.."
go build -trimpath -o bin/leat ./cmd/leat
go build -trimpath -o bin/floor ./internal/bench/floor
exec bin/leat bench suite --floor bin/floor --out docs/benchmarks.md "$@"
