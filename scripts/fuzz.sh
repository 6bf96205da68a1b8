#!/usr/bin/env bash
# fuzz.sh TIME: runs every fuzz target of the module for TIME, one after
# another. It finds them itself, so that none is forgotten.
set -euo pipefail
GO=${GO:-go}
time=${1:-10s}
targets=$("$GO" test -list '^Fuzz' ./...)
names=() count=0
# go test -list prints a package's targets, and then a line with its name.
while read -r word package _; do
  case $word in
  Fuzz*) names+=("$word") ;;
  ok)
    for name in "${names[@]}"; do
      echo "$package $name"
      # Minimizing is for people: a finding counts as it is.
      "$GO" test -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 5s "$package"
      count=$((count + 1))
    done
    names=()
    ;;
  esac
done <<<"$targets"
echo "$count fuzz targets ran for $time each"
[ "$count" -gt 0 ]
