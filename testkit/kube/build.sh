#!/usr/bin/env bash
# The real parts that the tests of Kubernetes drivers run against, in DIR (bin/kube): etcd, a Kubernetes API server, istiod, a gRPC client that is
# told by xDS where to send its calls, the definitions of Istio's kinds and the Gateway API's, and what starts them all. Each is kept by its
# version, so that only what changed is built: about 20 CPU-minutes the first time.
#
#   testkit/kube/build.sh DIR
set -euo pipefail
dir=${1:?want a folder}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
cd "$(dirname "$0")"

etcd=3.4.23-4+b4
istio_api=v1.31.1
gateway_api=v1.5.1

say() { echo "kube: $*" >&2; }

# sums is what a module's binary was built from.
sums() { cat "$1"/go.mod "$1"/go.sum "$1"/*.go | sha256sum | cut -c1-16; }

# build MODULE PACKAGE NAME LDFLAGS
build() {
  local stamp="$dir/.$3-$(sums "$1")"
  if [[ -x "$dir/$3" && -e "$stamp" ]]; then return; fi
  say "building $3 in the module testkit/kube/$1"
  local start=$SECONDS
  (cd "$1" && CGO_ENABLED=0 go build -ldflags "-s -w $4" -o "$dir/$3" "$2")
  rm -f "$dir/.$3-"*
  touch "$stamp"
  say "$3 took $((SECONDS - start)) s"
}

if [[ ! -x "$dir/etcd" ]]; then
  if command -v etcd >/dev/null; then
    ln -sf "$(command -v etcd)" "$dir/etcd"
  else
    say "fetching Debian's etcd-server $etcd"
    work=$(mktemp -d)
    (cd "$work" && { apt-get download "etcd-server=$etcd" >/dev/null 2>&1 || apt-get download etcd-server >/dev/null 2>&1 ||
      { apt-get update >/dev/null && apt-get download etcd-server >/dev/null; }; } && dpkg -x etcd-server_*.deb unpacked)
    install "$work/unpacked/usr/bin/etcd" "$dir/etcd"
    rm -rf "$work"
  fi
fi

if [[ ! -e "$dir/crds/$istio_api-$gateway_api" ]]; then
  # where MODULE@VERSION: the folder of a module's files.
  where() { (cd istiod && GOFLAGS=-mod=mod go mod download -json "$1") | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p'; }
  rm -rf "$dir/crds"
  mkdir -p "$dir/crds"
  install -m 644 "$(where istio.io/api@$istio_api)/kubernetes/customresourcedefinitions.gen.yaml" "$dir/crds/istio.yaml"
  standard="$(where sigs.k8s.io/gateway-api@$gateway_api)/config/crd/standard"
  install -m 644 "$standard"/gateway.networking.k8s.io_*.yaml "$dir/crds/"
  touch "$dir/crds/$istio_api-$gateway_api"
fi

version=$(sed -n 's/^require k8s.io\/kubernetes //p' apiserver/go.mod)
build apiserver k8s.io/kubernetes/cmd/kube-apiserver kube-apiserver \
  "-X k8s.io/component-base/version.gitVersion=$version -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=$(cut -d. -f2 <<<"$version")"
build istiod istio.io/istio/pilot/cmd/pilot-discovery istiod ""
build xds . xds ""
build cluster . cluster ""
