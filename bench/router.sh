#!/usr/bin/env bash
# Gets the proxies to compare with and runs the comparison; arguments go to the bench program (-h lists them). What can't be
# had is left out, and the table says so. Caddy and Traefik are built once per version into bin/bench/.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=$(cd "$here/.." && pwd)/bin
mkdir -p "$bin/bench"

# installed NAME: from the system's packages if it isn't there. Without root or a reachable registry it stays absent.
installed() {
  if command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ]; then return; fi
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "router.sh: no $1 in PATH, and it can't be installed without root and apt-get" >&2
    return
  fi
  apt-get update -qq >&2 || true
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1" >&2 ||
    echo "router.sh: $1 could not be installed" >&2
}

# built NAME MODULE: from the module bench/NAME, whose go.mod names the version.
built() {
  local name=$1 module=$2 version out
  version=$(cd "$here/$name" && go list -m -f '{{.Version}}' "$module") || return 0
  out=$bin/bench/$name-$version
  if [ -x "$out" ]; then return; fi
  echo "router.sh: building $name $version, some minutes the first time" >&2
  if (cd "$here/$name" && CGO_ENABLED=0 nice go build -ldflags '-s -w' -o "$bin/bench/.$name" "$module/cmd/$name"); then
    rm -f "$bin/bench/$name-"* # older versions, which would be taken for this one
    mv "$bin/bench/.$name" "$out"
  else
    echo "router.sh: $name could not be built" >&2
  fi
}

installed nginx
installed haproxy
built caddy github.com/caddyserver/caddy/v2
built traefik github.com/traefik/traefik/v3

commit=$(git -C "$here" describe --always --dirty 2>/dev/null || echo unknown)
cd "$here"
CGO_ENABLED=0 go build -o "$bin/bench/bench-router" .
cd "$OLDPWD"
exec "$bin/bench/bench-router" -bin "$bin" -commit "$commit" "$@"
