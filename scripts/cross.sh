#!/usr/bin/env bash
# cross.sh OS/ARCH...: builds everything, tests too, for each platform, and vets it.
set -euo pipefail
GO=${GO:-go}
export CGO_ENABLED=0
for platform in "$@"; do
  echo "$platform"
  GOOS=${platform%/*} GOARCH=${platform#*/} "$GO" build -o /dev/null ./cmd/leat
  GOOS=${platform%/*} GOARCH=${platform#*/} "$GO" vet ./...
  (cd tools/suite && GOOS=${platform%/*} GOARCH=${platform#*/} "$GO" vet ./...)
done
