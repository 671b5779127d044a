#!/usr/bin/env bash
# Build Helm into .servers/helm through its Go module (three minutes of CPU, once).
set -euo pipefail
cd "$(dirname "$0")/../.."
version=v3.22.0

if ! command -v go >/dev/null; then
  echo "Helm is built through its Go module and go is not here. Install Go 1.25"
  echo "or newer (Debian 13 and older have older ones; macOS: brew install go), then run this again."
  [ "${CI:-}" = true ] && exit 1
  echo "Until then the chart's tests are skipped."
  exit 0
fi
mkdir -p .servers/helm
echo "building Helm $version into .servers/helm (some minutes, once)"
GOBIN="$(realpath .servers/helm)" go install "helm.sh/helm/v3/cmd/helm@$version"
touch .servers/helm/.done
