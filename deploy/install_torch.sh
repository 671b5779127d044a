#!/bin/sh
# Install torch: install_torch.sh PYTHON TORCH_LOCK. By hash, whichever way:
#  - by default from the public index, whose Linux wheel is the CUDA build with its libraries;
#  - with CPU_TORCH_INDEX and CPU_TORCH_SHA256 the CPU build of the same version from that index.
set -eu
python=$1 lock=$2

if [ -z "${CPU_TORCH_INDEX:-}" ]; then
  [ -z "${CPU_TORCH_SHA256:-}" ] || { echo "CPU_TORCH_SHA256 is given without CPU_TORCH_INDEX" >&2; exit 2; }
  exec uv pip install --python "$python" --no-deps --require-hashes -r "$lock"
fi
if [ -z "${CPU_TORCH_SHA256:-}" ]; then
  echo "CPU_TORCH_INDEX needs CPU_TORCH_SHA256: the sha256 of the wheel for this Python and machine, as the index states it" >&2
  exit 2
fi
version=$(sed -n 's/^torch==\([^ ]*\).*/\1/p' "$lock")
pinned=$(mktemp)
printf 'torch==%s+cpu --hash=sha256:%s\n' "$version" "$CPU_TORCH_SHA256" >"$pinned"
uv pip install --python "$python" --no-deps --require-hashes --default-index "$CPU_TORCH_INDEX" -r "$pinned"
rm "$pinned"
