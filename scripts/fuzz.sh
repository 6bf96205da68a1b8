#!/usr/bin/env bash
# fuzz.sh TIME: runs every fuzz target of the module for TIME, one after
# another. It finds them itself, so that none is forgotten.
set -euo pipefail
GO=${GO:-go}
time=${1:-10s}

# Runs one target. Before Go 1.27 a run may end as failed though nothing was found,
# when its time is over: "context deadline exceeded" and no input (golang.org/issue/75804).
# Then it runs once more, three times in all.
fuzz() {
  local name=$1 package=$2 out try
  for try in 1 2 3; do
    # Minimizing is for people: a finding counts as it is.
    if out=$("$GO" test -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 5s "$package" 2>&1); then
      echo "$out"
      return 0
    fi
    echo "$out"
    grep -q '^ *context deadline exceeded$' <<<"$out" && ! grep -q 'Failing input\|panic:' <<<"$out" || return 1
    echo "$name found nothing and was ended by Go's own deadline (try $try of 3)"
  done
  return 1
}

targets=$("$GO" test -list '^Fuzz' ./...)
names=() count=0
# go test -list prints a package's targets, and then a line with its name.
while read -r word package _; do
  case $word in
  Fuzz*) names+=("$word") ;;
  ok)
    for name in "${names[@]}"; do
      echo "$package $name"
      fuzz "$name" "$package"
      count=$((count + 1))
    done
    names=()
    ;;
  esac
done <<<"$targets"
echo "$count fuzz targets ran for $time each"
[ "$count" -gt 0 ]
