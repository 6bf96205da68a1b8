#!/usr/bin/env bash
# vuln.sh GOVULNCHECK MODULE...: looks for known vulnerabilities in what the code of each module calls.
#
# The vulnerabilities are those of vuln.go.dev, or of the database that LEAT_VULNDB names
# (https://HOST or file:///DIR). Where vuln.go.dev cannot be reached, they are those of the newest
# golang.org/x/vulndb, the module from which it is made, as the module proxy has it. Where neither
# can be had, nothing is checked, and this says so and succeeds: a gate must not turn red since a
# server of others is away. A vulnerability that is called fails, and so does everything else.
#
# The standard library is that of the Go by which go.mod has the module built (its line "toolchain"), also on a machine whose Go is
# older and set to fetch no other one, if that Go can be had.
set -uo pipefail
GO=${GO:-go}
tool=$1
shift
here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT

if GOTOOLCHAIN=auto "$GO" version >/dev/null; then
  export GOTOOLCHAIN=auto
else
  echo "The Go that go.mod names cannot be had: the one of this machine is judged."
fi

db=${LEAT_VULNDB:-https://vuln.go.dev}

# Checks a module; the status is that of the tool, and 100 if there is no database.
check() {
  local status
  (cd "$1" && "$tool" -db "$db" ./...) 2>"$scratch/errors"
  status=$?
  cat "$scratch/errors" >&2
  if [ "$status" -ne 0 ] && grep -q '^govulncheck: fetching vulnerabilities: ' "$scratch/errors"; then
    return 100
  fi
  return "$status"
}

# Makes a database of the module golang.org/x/vulndb.
copy() {
  local module dir
  module=$(cd "$scratch" && GOFLAGS=-mod=mod "$GO" mod download -json golang.org/x/vulndb@latest) || return 1
  dir=$(sed -n 's/^\t"Dir": "\(.*\)",\{0,1\}$/\1/p' <<<"$module")
  version=$(sed -n 's/^\t"Version": "\(.*\)",\{0,1\}$/\1/p' <<<"$module")
  [ -n "$dir" ] && (cd "$here/.." && "$GO" run ./tools/vulndb "$dir/data/osv" "$scratch/db") || return 1
}

failed=0
for module in "$@"; do
  echo "vulnerabilities of $module, built by $(cd "$module" && "$GO" env GOVERSION), by $db"
  check "$module"
  status=$?
  if [ "$status" -eq 100 ] && [ -z "${LEAT_VULNDB:-}" ] && [ "$db" = https://vuln.go.dev ]; then
    echo "$db cannot be reached: trying the module golang.org/x/vulndb"
    if copy; then
      db=file://$scratch/db
      echo "vulnerabilities of $module, built by $(cd "$module" && "$GO" env GOVERSION), by golang.org/x/vulndb $version"
      check "$module"
      status=$?
    else
      echo "NOT CHECKED for vulnerabilities: neither vuln.go.dev nor the module golang.org/x/vulndb can be reached."
      echo "Set LEAT_VULNDB to a copy of the database, such as file:///DIR."
      exit 0
    fi
  fi
  if [ "$status" -ne 0 ]; then
    echo "$module: see above (status $status)"
    failed=1
  fi
done
exit "$failed"
