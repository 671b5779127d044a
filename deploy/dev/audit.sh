#!/usr/bin/env bash
# Compare a hashed lock with the advisories of OSV: fails where one applies. A service that cannot be
# reached is said, and fails nothing. OSV_URL and LOCK may name others.
set -euo pipefail
cd "$(dirname "$0")/../.."
lock=${LOCK:-requirements/all.lock}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

options=(--vulnerability-service osv --disable-pip --require-hashes --progress-spinner off
  --timeout 10 --format json --output "$scratch/found.json" --requirement "$lock")
[ -n "${OSV_URL:-}" ] && options+=(--osv-url "$OSV_URL")
if .venv/bin/pip-audit "${options[@]}" 2>"$scratch/said"; then
  echo "no known advisory applies to $lock"
elif [ -s "$scratch/found.json" ]; then # it got an answer for each package
  .venv/bin/python - "$scratch/found.json" <<'PY'
import json
import sys

with open(sys.argv[1], encoding="utf-8") as found:
    for package in json.load(found)["dependencies"]:
        for advisory in package.get("vulns", []):
            cure = ", ".join(advisory["fix_versions"]) or "no fixed version yet"
            print(f"{package['name']} {package['version']}: {advisory['id']} (fixed in: {cure})")
PY
  echo "advisories apply to $lock: raise the versions with \`make lock\`"
  exit 1
elif grep -qE 'requests\.exceptions\.|ConnectionError|ServiceError' "$scratch/said"; then
  echo "not audited: the advisory service cannot be reached ($(tail -n 1 "$scratch/said" | cut -d: -f1))"
else
  cat "$scratch/said" >&2
  exit 1
fi
