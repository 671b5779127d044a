"""Research models lack or add a part: the future for the twin, a part of the graph for others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.errors import CheckpointError
from model.interface import INPUTS, ServingOptions
from model.pcgnet.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from model.pcgnet.collate import ConversationTensors
from model.pcgnet.config import PcgnetConfig
from model.pcgnet.graph import TO_ES
from model.pcgnet.model import Pcgnet, WholeOutput
from model.registry import load_predictor
from model.serving.calibration import Calibration, Thresholds
from model.study.ablations import PARTS, load, network_of


def config(*research: str) -> PcgnetConfig:
    return PcgnetConfig(
        labels=("calm", "glad"), text=6, audio=4, video=0, hidden=8, research=research
    )


def model(*research: str) -> Pcgnet:
    torch.manual_seed(3)
    made = network_of(config(*research))(config(*research))
    assert isinstance(made, Pcgnet)
    return made.eval()


def talk(seed: int, speakers: str) -> ConversationTensors:
    draw = torch.Generator().manual_seed(seed)
    widths = config().widths
    columns = {n: torch.randn(len(speakers), widths[n], generator=draw) for n in INPUTS}
    present = torch.ones(len(speakers), 4, dtype=torch.bool)
    return ConversationTensors(present=present, speakers=tuple(speakers), **columns)


def head(whole: ConversationTensors, count: int) -> ConversationTensors:
    columns = {name: getattr(whole, name)[:count] for name in (*INPUTS, "present")}
    return ConversationTensors(speakers=whole.speakers[:count], **columns)


@torch.no_grad()
def answers(network: Pcgnet, *talks: ConversationTensors) -> WholeOutput:
    out: WholeOutput = network(network.collate(talks), rounding=False)
    return out


def test_the_twin_reads_the_future_and_the_causal_model_does_not() -> None:
    whole = talk(0, "abab")
    for network, hears in ((model(), False), (model("bidirectional"), True)):
        early = answers(network, head(whole, 2)).emotion
        late = answers(network, whole).emotion[:2]
        assert bool((early - late).abs().max() > 1e-4) is hears


def test_the_twins_answers_do_not_depend_on_what_shares_the_batch() -> None:
    """The published code pads without packing: a dialogue's answers change with its batch."""
    network = model("bidirectional")
    one, longer = talk(0, "abca"), talk(1, "abcabcd")
    alone = answers(network, one).emotion
    together = answers(network, longer, one).emotion[len(longer.speakers) :]
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-6)


def test_the_twins_two_directions_are_mirror_images() -> None:
    """Backwards over a conversation is forwards over its reverse, per session and speaker."""
    gru = model("bidirectional").speaker
    forwards = model("bidirectional").collate([talk(0, "abbab")]).speaker
    backwards = model("bidirectional").collate([talk(0, "babba")]).speaker
    x = torch.randn(5, 3, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        half = gru.cells // 2  # equal weights in both directions
        for name, weight in gru.named_parameters():
            weight[half:] = weight[:half]
            if name == "w_ih1":  # it reads ahead and behind: swapped in the mirror
                weight[half:] = weight[:half].roll(gru.width, dims=2)
        straight = gru(x, forwards, False)
        mirrored = gru(x.flip(0), backwards, False).flip(0).roll(gru.width, dims=2)
    torch.testing.assert_close(straight, mirrored, rtol=0, atol=1e-6)


def test_without_a_graph_no_edge_is_left_but_a_nodes_own() -> None:
    batch = model("no-graph").collate([talk(0, "abab")])
    assert torch.equal(batch.persona_edges[0], batch.persona_edges[1])
    assert torch.equal(batch.graph_edges[0], batch.graph_edges[1])
    assert batch.graph_edges.shape[1] == 4 * 6


def test_without_cross_task_edges_the_emotion_nodes_do_not_know_the_shift_task() -> None:
    for research, knows in (((), True), (("no-cross-task",), False)):
        network = model(*research)
        before = answers(network, talk(0, "abab")).emotion
        with torch.no_grad():
            network.task[1] += 1.0
        after = answers(network, talk(0, "abab")).emotion
        assert bool((before - after).abs().max() > 1e-5) is knows
    cut = model("no-cross-task").collate([talk(0, "abab")])
    assert int(cut.relation.max()) < TO_ES


def test_without_evidence_the_shift_head_does_not_read_the_utterance_alone() -> None:
    for research, knows in (((), True), (("no-evidence",), False)):
        network = model(*research)
        before = answers(network, talk(0, "abab"))
        with torch.no_grad():
            network.evidence_head.bias[1] += 1.0
        after = answers(network, talk(0, "abab"))
        assert torch.equal(before.emotion, after.emotion)
        moved = (after.shift - before.shift).view(-1, 2, 2)  # [P, from, to]
        wanted = torch.tensor([0.0, float(knows)])
        torch.testing.assert_close(moved, wanted.expand_as(moved))


@pytest.mark.parametrize("research", PARTS[PcgnetConfig][1])
def test_a_research_model_is_saved_and_loaded_but_never_served(
    tmp_path: Path, research: str
) -> None:
    save_checkpoint(
        tmp_path,
        model(research),
        calibration=Calibration(),
        thresholds=Thresholds(),
        extractors={},
        card="",
    )
    assert load_checkpoint(tmp_path).config.research == (research,)
    with pytest.raises(ValueError, match="ablations"):
        load_checkpoint(tmp_path).model()
    loaded = load(tmp_path)
    assert isinstance(loaded, Checkpoint) and loaded.model().research == (research,)
    with pytest.raises(CheckpointError, match=f"research \\({research}\\)"):
        load_predictor(tmp_path, ServingOptions(device="cpu"))


def test_an_unknown_switch_is_refused() -> None:
    with pytest.raises(ValueError, match="no-graph"):
        network_of(PcgnetConfig(labels=("a", "b"), research=("no-grpah",)))
