#!/usr/bin/env bash
# Write the bill of materials of the image's targets into dist and build them, or say what is missing:
#   [EXTRAS="otel faust"] image.sh [cpu|cuda ...]
set -euo pipefail
cd "$(dirname "$0")/../.."

extras=${EXTRAS:-}
machine=$(uname -m)
[ "$machine" = arm64 ] && machine=aarch64 # as Linux calls it, which the image runs
mkdir -p dist
for target in "${@:-cpu}"; do
  name=$target${extras:+-${extras// /-}}
  .venv/bin/python -m deploy.sbom "$target" --extras "$extras" --machine "$machine" \
    --cpu-torch-sha256 "${CPU_TORCH_SHA256:-}" >"dist/emotrack-$name.cdx.json"
  echo "dist/emotrack-$name.cdx.json lists what emotrack:$name is made of"
done
docker version >/dev/null 2>&1 || {
  echo "no container engine answers: install Docker 23 or newer (or start it), then run this again" >&2
  exit 1
}
build=(--build-arg "EXTRAS=$extras")
if [ -n "${CPU_TORCH_INDEX:-}" ]; then
  build+=(--build-arg "CPU_TORCH_INDEX=$CPU_TORCH_INDEX" --build-arg "CPU_TORCH_SHA256=${CPU_TORCH_SHA256:-}")
fi
for target in "${@:-cpu}"; do
  docker build -f deploy/Dockerfile --target "$target" "${build[@]}" -t "emotrack:$target${extras:+-${extras// /-}}" .
done
