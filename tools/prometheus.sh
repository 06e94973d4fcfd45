#!/usr/bin/env bash
# Puts a Prometheus into the folder given (default: bin/ of the repository) and prints its path. It links the one in PATH,
# which takes no time; without one it builds the version that tools/prometheus/go.mod names (about 10 CPU-minutes once).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=${1:-$here/../bin}
mkdir -p "$bin"
bin=$(cd "$bin" && pwd)
out=$bin/prometheus

if found=$(command -v prometheus) && [ "$found" != "$out" ]; then
  ln -sfn "$found" "$out"
  echo "$out"
  exit 0
fi

cd "$here/prometheus"
version=$(go list -m -f '{{.Version}}' github.com/prometheus/prometheus)
stamp=$bin/.prometheus-version
if [ -x "$out" ] && [ ! -L "$out" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$version" ]; then
  echo "$out"
  exit 0
fi
echo "prometheus.sh: no prometheus in PATH; building $version, some minutes the first time" >&2
rm -f "$out" "$stamp"
# Two packages at a time: more of them would not fit the memory of a small machine.
CGO_ENABLED=0 nice go build -p "${PROMETHEUS_BUILD_JOBS:-2}" -trimpath -tags netgo \
  -ldflags "-s -w -X github.com/prometheus/common/version.Version=${version#v}" \
  -o "$out" github.com/prometheus/prometheus/cmd/prometheus
echo "$version" >"$stamp"
echo "$out"
