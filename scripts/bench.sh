#!/bin/sh
# Builds leat, the suite (tools/suite) and the floor program, and compares them on this
# machine with the brokers and clients that are installed:
#
#   Apache Kafka   if KAFKA_HOME names a directory whose libs has its jars, such as
#                  an unpacked https://kafka.apache.org/downloads
#   NATS           nats-server, installed into bin unless it is on the path
#   kcat           if it is on the path: the client with librdkafka
#
#   scripts/bench.sh            all workloads, 5 rounds, into docs/benchmarks.md: little more than an hour
#   scripts/bench.sh --resume   goes on after the last run was cut
#   scripts/bench.sh --quick    less than ten minutes
#   scripts/bench.sh --no-nats  installs nothing
#   scripts/bench.sh --quick --before OLD/bin/leat --out before.md   another leat in turns with this one
#   scripts/bench.sh --only '^latency' --rounds 3 --out latency.md
#   scripts/bench.sh --no-nats --only '^(transactions|compaction)'   exactly once and compacted topics: ten minutes
#   scripts/bench.sh --no-nats --only '^security'   logins, connections over TLS, and what authorisation costs: 25 minutes
#   scripts/bench.sh --only '^cluster'   clusters of three nodes, and how long their faults are felt: half an hour
#
# Arguments go to the suite ("--help" lists them); the last of a flag wins.
set -eu
cd "$(dirname "$0")/.."
GO=${GO:-go}
if [ "${1:-}" = --no-nats ]; then
	shift
elif ! command -v nats-server >/dev/null && [ ! -x bin/nats-server ]; then
	GOBIN="$PWD/bin" "$GO" install github.com/nats-io/nats-server/v2@latest ||
		echo "nats-server cannot be installed: NATS does not take part" >&2
fi
CGO_ENABLED=0 "$GO" build -trimpath -o bin/leat ./cmd/leat
(cd tools/suite && CGO_ENABLED=0 "$GO" build -trimpath -o ../../bin/suite . && CGO_ENABLED=0 "$GO" build -trimpath -o ../../bin/floor ./floor)
PATH="$PATH:$PWD/bin" exec bin/suite --out docs/benchmarks.md "$@"
