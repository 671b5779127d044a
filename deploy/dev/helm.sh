#!/usr/bin/env bash
# Build Helm into .servers/helm through its Go module (three minutes of CPU, once).
set -euo pipefail
cd "$(dirname "$0")/../.."
version=v3.22.0
kubernetes=33 # 1.33: what Helm assumes without a cluster; unset it would be 1.20, too old for the chart

if ! command -v go >/dev/null; then
  echo "Helm is built through its Go module and go is not here. Install Go 1.25"
  echo "or newer (Debian 13 and older have older ones; macOS: brew install go), then run this again."
  [ "${CI:-}" = true ] && exit 1
  echo "Until then the chart's tests are skipped."
  exit 0
fi
mkdir -p .servers/helm
echo "building Helm $version into .servers/helm (some minutes, once)"
assumed=""
for package in chartutil lint/rules; do
  assumed+=" -X helm.sh/helm/v3/pkg/$package.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/$package.k8sVersionMinor=$kubernetes"
done
GOBIN="$(realpath .servers/helm)" go install -ldflags "${assumed# }" "helm.sh/helm/v3/cmd/helm@$version"
touch .servers/helm/.done
