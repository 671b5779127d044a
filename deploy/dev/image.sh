#!/usr/bin/env bash
# Build the image's targets, or say what is missing: image.sh [cpu|cuda ...]
set -euo pipefail
cd "$(dirname "$0")/../.."

docker version >/dev/null 2>&1 || {
  echo "no container engine answers: install Docker 23 or newer (or start it), then run this again" >&2
  exit 1
}
build=()
if [ -n "${CPU_TORCH_INDEX:-}" ]; then
  build+=(--build-arg "CPU_TORCH_INDEX=$CPU_TORCH_INDEX" --build-arg "CPU_TORCH_SHA256=${CPU_TORCH_SHA256:-}")
fi
for target in "${@:-cpu}"; do
  docker build -f deploy/Dockerfile --target "$target" ${build[@]+"${build[@]}"} -t "emotrack:$target" .
done
