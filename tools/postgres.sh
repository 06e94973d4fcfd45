#!/usr/bin/env bash
# Links PostgreSQL's initdb and postgres into the folder given (default: bin/ of the repository): those in PATH, else those of Debian's
# package, which is installed if nobody has. It prints where they are.
set -euo pipefail
bin=${1:-$(cd "$(dirname "$0")" && pwd)/../bin}
mkdir -p "$bin"

# server is the folder of a PostgreSQL that has both programs: distributions keep them out of PATH.
server() {
  local path dir
  for path in $(type -ap postgres) /usr/lib/postgresql/*/bin/postgres /usr/pgsql-*/bin/postgres /opt/homebrew/opt/postgresql*/bin/postgres; do
    dir=$(dirname "$(readlink -f "$path")")
    if [ -x "$dir/postgres" ] && [ -x "$dir/initdb" ]; then
      echo "$dir"
      return
    fi
  done
}

found=$(server)
if [ -z "$found" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "postgres.sh: no PostgreSQL here; installing Debian's" >&2
  apt-get update -qq >&2
  # Without a cluster of its own: the tests make theirs.
  mkdir -p /etc/postgresql-common/createcluster.d
  echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.d/aviary.conf
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql >&2
  found=$(server)
fi
if [ -z "$found" ]; then
  echo "postgres.sh: no PostgreSQL found: install the server (Debian's package postgresql), 13 or newer" >&2
  exit 1
fi
ln -sfn "$found/initdb" "$bin/initdb"
ln -sfn "$found/postgres" "$bin/postgres"
echo "$found"
