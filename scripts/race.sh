#!/usr/bin/env bash
# race.sh PACKAGE...: runs their tests with the race detector, which needs a C
# compiler. Without one it says so, and fails where everything is required.
set -euo pipefail
GO=${GO:-go}
cc=$("$GO" env CC)
if ! command -v "${cc%% *}" >/dev/null; then
  echo "race tests: NOT RUN: the race detector needs a C compiler, and \"$cc\" is not here (Debian: apt-get install gcc libc6-dev)"
  [ "${LEAT_TEST_REQUIRE_ALL:-}" != 1 ]
  exit
fi
CGO_ENABLED=1 exec "$GO" test -race -timeout 30m "$@"
