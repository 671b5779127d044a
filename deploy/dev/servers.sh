#!/usr/bin/env bash
# Get redis-server (7 or newer), Prometheus, Alertmanager, and espeak-ng and sox (sound for tests) from
# Debian's packages, or say what to install.
set -euo pipefail

missing=()
command -v redis-server >/dev/null || missing+=(redis-server)
command -v prometheus >/dev/null || missing+=(prometheus)
command -v amtool >/dev/null || missing+=(prometheus-alertmanager)
command -v espeak-ng >/dev/null || missing+=(espeak-ng)
command -v sox >/dev/null || missing+=(sox)
[ ${#missing[@]} = 0 ] && exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  # The packages would start their own services; ours run as children of the tests.
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"
  exit 0
fi
echo "not installed: ${missing[*]}. Debian/Ubuntu: sudo apt-get install ${missing[*]}    macOS: brew install redis prometheus alertmanager espeak-ng sox"
[ "${CI:-}" = true ] && exit 1
echo "Until then the tests that need them are skipped."
