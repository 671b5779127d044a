#!/usr/bin/env bash
# Put Apache Kafka's jars into .servers/kafka/jars (45 files, 43 MB).
set -euo pipefail
cd "$(dirname "$0")/../.."

say_how() {
  echo "Apache Kafka's jars are missing and $1 is not here. Install a JDK 17 and Maven, then run this again:"
  echo "  Debian/Ubuntu: apt-get install openjdk-17-jre-headless maven    macOS: brew install openjdk@17 maven"
  [ "${CI:-}" = true ] && exit 1
  echo "Until then the tests that need Kafka are skipped."
  exit 0
}

may_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

for program in java mvn; do
  if ! command -v "$program" >/dev/null; then
    may_install && { apt-get update -q && apt-get install -qy openjdk-17-jre-headless maven; }
    command -v "$program" >/dev/null || say_how "$program"
  fi
done
mkdir -p .servers/kafka
mvn -q -B -f deploy/kafka/pom.xml dependency:copy-dependencies \
  -DincludeScope=runtime -DoutputDirectory="$PWD/.servers/kafka/jars"
touch .servers/kafka/.done
