"""A checkpoint of one's own in the chart: from a claim, an image, or any volume."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from model.checkpoint_files import kind_of
from tests.deploy.chart import OWN_MODEL, SMALL, container, plain_settings, render, run
from tests.deploy.programs import ROOT

SHIPPED = ROOT / "model/checkpoints/pcgnet-meld"
PLACE = "/var/lib/emotrack/model"
IMAGE = "model.image=registry/checkpoint:1"


def pod(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return dict(objects["Deployment"]["spec"]["template"]["spec"])


def volume(objects: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    (found,) = (v for v in pod(objects)["volumes"] if v["name"] == name)
    return dict(found)


def mount(objects: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    (found,) = (m for m in container(objects)["volumeMounts"] if m["name"] == name)
    return dict(found)


def test_without_one_the_shipped_checkpoint_is_served() -> None:
    objects = render()
    assert "EMOTRACK_MODEL" not in str(objects) and "initContainers" not in pod(objects)
    assert [v["name"] for v in pod(objects)["volumes"]] == ["tmp"]


@pytest.mark.parametrize(("path", "folder"), [("", ""), ("mine", "/mine"), ("/a/b/", "/a/b")])
def test_a_claim_is_mounted_for_reading_only(path: str, folder: str) -> None:
    objects = render(SMALL, "model.existingClaim=checkpoints", f"model.path={path}")
    claim = {"claimName": "checkpoints", "readOnly": True}
    assert volume(objects, "model")["persistentVolumeClaim"] == claim
    assert mount(objects, "model") == {"name": "model", "mountPath": PLACE, "readOnly": True}
    assert plain_settings(objects)["model"] == PLACE + folder
    assert "initContainers" not in pod(objects)


def test_an_image_is_copied_by_a_container_without_rights() -> None:
    objects = render(OWN_MODEL)
    (copies,) = pod(objects)["initContainers"]
    assert copies["image"] == "registry.internal/our-checkpoint:3"
    assert copies["securityContext"] == container(objects)["securityContext"]
    assert copies["volumeMounts"] == [{"name": "model", "mountPath": PLACE}]
    assert volume(objects, "model") == {"name": "model", "emptyDir": {"sizeLimit": "1Gi"}}
    assert mount(objects, "model")["readOnly"] is True
    settings = plain_settings(objects)
    assert settings["model"] == PLACE and len(settings["model_digest"]) == 64


def test_the_copy_is_a_checkpoint_also_when_it_is_made_twice(tmp_path: Path) -> None:
    """A node that restarts runs init containers again, over files that are read-only by then."""
    (copies,) = pod(render(OWN_MODEL))["initContainers"]
    place = tmp_path / "place"
    place.mkdir()
    real = {"/checkpoint/.": f"{SHIPPED}/.", PLACE: str(place)}
    command = [real.get(word, word) for word in copies["command"]]
    assert set(real) <= set(copies["command"])
    assert "-Rf" in command, "only root overwrites a read-only file without it"
    for _ in range(2):
        subprocess.run(command, check=True)
        for file in place.iterdir():
            file.chmod(0o444)
    assert kind_of(place) == kind_of(SHIPPED)
    assert {f.name: f.read_bytes() for f in place.iterdir()} == {
        f.name: f.read_bytes() for f in SHIPPED.iterdir()
    }


def test_an_image_can_be_a_volume_where_kubernetes_mounts_images() -> None:
    objects = render(SMALL, IMAGE, "model.imageAs=volume", "model.path=mine")
    reference = {"reference": "registry/checkpoint:1", "pullPolicy": "IfNotPresent"}
    assert volume(objects, "model")["image"] == reference
    assert plain_settings(objects)["model"] == f"{PLACE}/mine"
    assert "initContainers" not in pod(objects)
    kubernetes_validate.validate(objects["Deployment"], "1.33", strict=True)


def test_any_volume_can_hold_a_checkpoint_or_an_encoder(tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    given: dict[str, Any] = {
        "extraVolumes": [{"name": "nfs", "nfs": {"server": "files", "path": "/models"}}],
        "extraVolumeMounts": [{"name": "nfs", "mountPath": "/models", "readOnly": True}],
        "settings": {"model": "/models/ours", "encoder": "/models/encoder"},
    }
    file.write_text(yaml.safe_dump(yaml.safe_load(SMALL.read_text()) | given))
    objects = render(file)
    assert volume(objects, "nfs")["nfs"] == {"server": "files", "path": "/models"}
    assert mount(objects, "nfs") == given["extraVolumeMounts"][0]
    assert plain_settings(objects)["model"] == "/models/ours"
    kubernetes_validate.validate(objects["Deployment"], "1.33", strict=True)


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ((IMAGE, "model.path=m", "model.existingClaim=c"), "leave one out"),
        ((IMAGE,), "model.path is missing"),
        (("model.path=m",), "without model.existingClaim or model.image"),
        (("model.existingClaim=c", "settings.model=/x"), "it is set by model"),
        (("model.existingClaim=c", "model.imageAs=link"), "/model/imageAs"),
        (("extraVolumes[0].emptyDir.medium=Memory",), "/extraVolumes/0"),
    ],
)
def test_what_contradicts_itself_is_refused(sets: tuple[str, ...], said: str) -> None:
    refused = run("template", SMALL, sets)
    assert refused.returncode != 0 and said in refused.stderr, refused.stderr
