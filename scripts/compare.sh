#!/bin/sh
# Runs the micro-benchmarks of the hot packages at a base commit and in the work
# tree, in turns, since the machine's speed changes, and shows with benchstat what
# is different.
#
#   scripts/compare.sh                       against main~1
#   BASE=v0.1.0 BENCH=Append COUNT=10 scripts/compare.sh ./internal/storage
set -eu
cd "$(dirname "$0")/.."
GO=${GO:-go}
BASE=${BASE:-main~1}
BENCH=${BENCH:-.}
COUNT=${COUNT:-6}
TIME=${TIME:-200ms}
BENCHSTAT=golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da
[ $# -gt 0 ] || set -- ./internal/record ./internal/wire ./internal/storage ./internal/group ./internal/broker ./internal/node

tmp=$(mktemp -d)
trap 'git worktree remove --force "$tmp/base" 2>/dev/null; rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM
git worktree add --quiet --detach "$tmp/base" "$BASE"

# build SIDE DIR PACKAGE: the test binary, or nothing where there are no tests.
build() {
	(cd "$2" && [ -d "$3" ] && "$GO" test -c -o "$tmp/$1-$(basename "$3").test" "$3" >/dev/null)
}
for package; do
	build base "$tmp/base" "$package" || echo "$package is not in $BASE" >&2
	build work "$PWD" "$package"
done
round=0
while [ "$round" -lt "$COUNT" ]; do
	round=$((round + 1))
	for package; do
		for side in base work; do
			dir=$PWD
			[ "$side" = work ] || dir=$tmp/base
			binary=$tmp/$side-$(basename "$package").test
			[ -x "$binary" ] || continue
			echo "round $round of $COUNT: $package, $side" >&2
			(cd "$dir/$package" && "$binary" -test.run '^$' -test.bench "$BENCH" -test.benchtime "$TIME" -test.benchmem) >>"$tmp/$side.txt"
		done
	done
done
"$GO" run "$BENCHSTAT" base="$tmp/base.txt" work="$tmp/work.txt"
