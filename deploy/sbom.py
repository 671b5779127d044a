"""Write the image's bill of materials, CycloneDX 1.6: `python -m deploy.sbom cpu > cpu.cdx.json`.

Of the hashed locks that the image is built from: the packages that its Linux and its Python
install, each with the hashes of the files that may be installed. Debian's packages in the base
image are not in it: the base stands there with its digest.
"""

from __future__ import annotations

import argparse
import os
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement

ROOT: Final = Path(__file__).parents[1]
TARGETS: Final = ("cpu", "cuda")
EXTRAS: Final = ("otel", "faust")
ALWAYS: Final = ("torch", "worker", "encoder")  # locks, as deploy/Dockerfile installs them
BASE: Final = re.compile(r"^FROM (\S+):([\w.-]+)@sha256:([0-9a-f]{64}) AS runtime$", re.MULTILINE)
NAMESPACE: Final = uuid.UUID("8f3f8dd0-3a64-4f2e-9c0e-6f6b9a1a6a54")  # of our serial numbers


@dataclass(frozen=True, slots=True)
class Pin:
    """One package of a lock and the hashes of the files that may be installed."""

    name: str
    version: str
    hashes: tuple[str, ...]


def pins(lock: Path, python: str, machine: str) -> list[Pin]:
    """Return the packages of a lock that Linux with this Python and this machine gets."""
    system = {
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "platform_machine": machine,
        "python_full_version": python,
        "python_version": ".".join(python.split(".")[:2]),
    }
    found = []
    for block in re.split(r"\n(?=\S)", lock.read_text("utf-8").strip()):
        wanted = Requirement(block.partition("\n")[0].rstrip("\\ "))
        if wanted.marker is None or wanted.marker.evaluate(system):
            (pinned,) = wanted.specifier
            hashes = tuple(re.findall(r"sha256:([0-9a-f]{64})", block))
            found.append(Pin(wanted.name, pinned.version, hashes))
    return found


def base_image() -> Component:
    """Return the image that ours is built on, as deploy/Dockerfile names it."""
    found = BASE.search((ROOT / "deploy/Dockerfile").read_text("utf-8"))
    assert found is not None, "the last stage is built on an image with tag and digest"
    name, tag, digest = found.groups()
    return Component(
        name=name,
        version=tag,
        type=ComponentType.CONTAINER,
        bom_ref=f"{name}@sha256:{digest}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        purl=PackageURL("oci", None, name, f"sha256:{digest}", {"tag": tag}),
        properties=[Property(name="emotrack:contents", value="not listed here")],
    )


def package(pin: Pin) -> Component:
    """Return a Python package."""
    purl = PackageURL("pypi", None, pin.name, pin.version)
    return Component(
        name=pin.name,
        version=pin.version,
        type=ComponentType.LIBRARY,
        bom_ref=purl.to_string(),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=each) for each in pin.hashes],
        purl=purl,
    )


def packages(extras: Sequence[str], machine: str, cpu_torch_sha256: str) -> list[Pin]:
    """Return all packages of an image; `cpu_torch_sha256` is of the wheel that replaces torch's."""
    python = base_image().version or ""
    found: list[Pin] = []
    for lock in (*ALWAYS, *extras):
        pinned = pins(ROOT / f"requirements/{lock}.lock", python.partition("-")[0], machine)
        if lock == "torch" and cpu_torch_sha256:  # deploy/install_torch.sh installs nothing else
            (torch,) = (pin for pin in pinned if pin.name == "torch")
            pinned = [Pin("torch", f"{torch.version}+cpu", (cpu_torch_sha256,))]
        found += pinned
    # Locks overlap where a package is for some systems in one, and for all in another.
    return [Pin("emotrack", version("emotrack"), ()), *dict.fromkeys(found)]


def document(
    target: str, *, extras: Sequence[str] = (), machine: str = "x86_64", cpu_torch_sha256: str = ""
) -> str:
    """Return the bill of materials of a target of deploy/Dockerfile, as JSON.

    Equal inputs give an equal serial number, and with `SOURCE_DATE_EPOCH` equal bytes.
    """
    image = Component(
        name=f"emotrack-{target}",
        version=version("emotrack"),
        type=ComponentType.CONTAINER,
        bom_ref="image",
        properties=[Property(name="emotrack:extras", value=" ".join(extras))] if extras else [],
    )
    pinned = packages(extras, machine, cpu_torch_sha256)
    parts = [base_image(), *map(package, pinned)]
    bom = Bom(components=parts)
    bom.metadata.component = image
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    bom.metadata.timestamp = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    bom.serial_number = uuid.uuid5(NAMESPACE, repr((target, parts[0].bom_ref.value, pinned)))
    bom.register_dependency(image, parts)
    return JsonV1Dot6(bom).output_as_string(indent=1) + "\n"


def main() -> None:
    """Print the document that the command line asks for."""
    ask = argparse.ArgumentParser(prog="python -m deploy.sbom", description=__doc__)
    ask.add_argument("target", choices=TARGETS)
    ask.add_argument("--extras", default="", help="as EXTRAS of the build: otel, faust or both")
    ask.add_argument("--machine", default="x86_64", help="as `uname -m` says: aarch64")
    ask.add_argument("--cpu-torch-sha256", default="", help="as CPU_TORCH_SHA256 of the build")
    given = ask.parse_args()
    extras = given.extras.split()
    if unknown := sorted(set(extras) - set(EXTRAS)):
        ask.error(f"--extras: {' '.join(unknown)}: choose from {', '.join(EXTRAS)}")
    print(
        document(
            given.target,
            extras=extras,
            machine=given.machine,
            cpu_torch_sha256=given.cpu_torch_sha256,
        ),
        end="",
    )


if __name__ == "__main__":
    main()
