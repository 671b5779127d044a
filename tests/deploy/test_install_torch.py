"""`deploy/install_torch.sh` against an index in a folder: by hash, or one sentence."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy/install_torch.sh"
VERSION = "9.9.9"


@pytest.fixture
def index(tmp_path: Path) -> tuple[str, str]:
    """An index in a folder that has a CPU build of `VERSION`: its address and the wheel's hash."""
    folder = tmp_path / "index/torch"
    folder.mkdir(parents=True)
    wheel = folder / f"torch-{VERSION}+cpu-py3-none-any.whl"
    info = f"torch-{VERSION}+cpu.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("torch/__init__.py", "")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {VERSION}+cpu\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    (folder / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    return folder.parent.as_uri(), hashlib.sha256(wheel.read_bytes()).hexdigest()


def install(tmp_path: Path, **given: str) -> subprocess.CompletedProcess[str]:
    """Run the script on a fresh environment and a lock that pins `VERSION`."""
    lock = tmp_path / "torch.lock"
    lock.write_text(f"torch=={VERSION} \\\n    --hash=sha256:{'0' * 64}\n")
    here = Path(sys.executable).parent
    subprocess.run([here / "uv", "venv", "-q", tmp_path / "env"], check=True)
    return subprocess.run(
        ["sh", SCRIPT, tmp_path / "env/bin/python", lock],
        env={"PATH": f"{here}:{os.environ['PATH']}", "HOME": str(tmp_path), **given},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_cpu_build_of_the_locked_version_is_installed_by_its_hash(
    tmp_path: Path, index: tuple[str, str]
) -> None:
    address, digest = index
    ran = install(tmp_path, CPU_TORCH_INDEX=address, CPU_TORCH_SHA256=digest)
    assert ran.returncode == 0, ran.stderr
    (installed,) = (tmp_path / "env").glob("lib/*/site-packages/torch-*.dist-info")
    assert installed.name == f"torch-{VERSION}+cpu.dist-info"


def test_a_wheel_with_another_hash_is_refused(tmp_path: Path, index: tuple[str, str]) -> None:
    ran = install(tmp_path, CPU_TORCH_INDEX=index[0], CPU_TORCH_SHA256="1" * 64)
    assert ran.returncode != 0 and "hash mismatch" in ran.stderr.lower()
    assert not list((tmp_path / "env").glob("lib/*/site-packages/torch*"))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"CPU_TORCH_INDEX": "file:///nowhere"}, "CPU_TORCH_INDEX needs CPU_TORCH_SHA256"),
        ({"CPU_TORCH_SHA256": "1" * 64}, "CPU_TORCH_SHA256 is given without CPU_TORCH_INDEX"),
    ],
)
def test_half_a_choice_is_refused_in_one_sentence(
    tmp_path: Path, given: dict[str, str], sentence: str
) -> None:
    ran = install(tmp_path, **given)
    assert ran.returncode == 2 and ran.stderr.startswith(sentence) and ran.stderr.count("\n") == 1
