"""Selections of models with towers: modules compete within their own, and the reference's groups are there too."""

from __future__ import annotations

import pytest

from spectrum_fast import Scan
from spectrum_fast.choose.selection.formats import write_selection
from spectrum_fast.choose.selection.selection import parse_selection
from spectrum_fast.errors import UsageError
from spectrum_fast.measure.scoring.records import ScanFailure

from support.scans import scored, towers_model

KINDS = ("self_attn.q_proj", "self_attn.k_proj", "mlp.fc1")


def test_modules_compete_within_their_tower() -> None:
    scan = towers_model()
    selection = scan.select(50)
    sizes = {group.name: (group.taken, group.size) for group in selection.groups if group.size}
    assert sizes["self_attn.q_proj"] == (4, 8)
    assert sizes["vision:self_attn.q_proj"] == (2, 4)
    assert sizes["vision_tower.embeddings.position_embedding"] == (0, 1)
    for module in selection.modules:
        rivals = [
            other
            for other in scan.modules
            if other.type == module.type and other.name.startswith("vision") == module.name.startswith("vision")
        ]
        better = sum(other.rank_value > (module.snr or 0) for other in rivals)
        assert module.rank == better + 1 <= len(rivals) // 2


def test_the_references_groups_know_no_tower() -> None:
    """By the reference's rule, written out: the best of each type, whatever stands before it."""
    scan = towers_model()
    selection = scan.select(25, grouping="reference")
    expected: list[str] = []
    types: dict[str, list[tuple[float, str]]] = {}
    for module in scan.modules:
        if module.name not in ("lm_head", "language_model.model.embed_tokens"):
            types.setdefault(module.type, []).append((module.rank_value, module.name))
    for members in types.values():
        expected += [name for _, name in sorted(members, key=lambda it: -it[0])[: int(len(members) * 25 / 100)]]
    assert [module.name for module in selection.modules] == expected
    assert {module.group for module in selection.modules} <= {module.type for module in scan.modules}
    assert selection.names != scan.select(25).names


@pytest.mark.parametrize("grouping", ["type", "experts-merged", "global"])
def test_a_model_of_one_tower_has_the_references_groups(grouping: str) -> None:
    names = [f"model.layers.{layer}.{kind}" for layer in range(8) for kind in KINDS]
    scan = Scan("m", "spectrum", tuple(scored(name, 1.0 + hash_of(name)) for name in names))
    if grouping == "type":
        yaml = write_selection(scan.select(50), "axolotl")
        assert yaml == write_selection(scan.select(50, grouping="reference"), "axolotl")
    assert not any(":" in group.name for group in scan.select(50, grouping=grouping).groups)


def hash_of(name: str) -> float:
    return sum(ord(letter) * place for place, letter in enumerate(name)) % 97 / 97


def test_only_one_tower_is_selected_from_and_trained() -> None:
    scan = towers_model()
    vision = scan.select(50, only=["vision"])
    assert vision.names
    assert all(name.startswith("vision_tower") for name in vision.names)
    assert (vision.always, vision.always_rule) == ((), "none")
    text = write_selection(vision, "axolotl")
    assert "lm_head" not in text  # the reference's header would train it
    assert parse_selection(text).names == vision.names
    language = scan.select(50, only=["language-model"])
    assert language.always == ("language_model.model.embed_tokens", "lm_head")
    assert [module for module in scan.select(50).modules if "vision" not in module.name] == list(language.modules)
    both = scan.select(50, only=["vision", "language-model"])
    assert set(both.names) == {*vision.names, *language.names}
    assert scan.select(50, only=["language-model"], always=["vision*position*"]).always == ()
    with pytest.raises(
        UsageError, match=r"only: expected towers of org/towers \(language-model, vision\), found 'audio'"
    ):
        scan.select(50, only=["audio"])


def test_a_failure_in_another_tower_is_no_hole() -> None:
    scan = towers_model()
    failure = ScanFailure(name="vision_tower.encoder.layers.9.mlp.fc1", kind="values", message="holds NaN")
    scan = Scan(scan.model, scan.criterion, scan.modules, (failure,), provenance=scan.provenance)
    assert scan.select(50, only=["language-model"]).failed == ()
    assert scan.select(50, allow_incomplete=True).failed == (failure.name,)


def test_only_the_language_models_tables_are_trained_always() -> None:
    names = ("talker.model.embed_tokens", "model.embed_tokens", "lm_head", "audio_tower.embed_positions")
    modules = tuple(scored(name, 1.0) for name in names)
    without = Scan("m", "spectrum", modules).select()
    assert set(without.always) == {"talker.model.embed_tokens", "model.embed_tokens", "lm_head"}
    config = {"talker_config": {"model_type": "x"}}
    assert set(Scan("m", "spectrum", modules, provenance={"config": config}).select().always) == set(names[1:3])
    halves = [
        f"{half}.{part}" for half in ("encoder", "decoder") for part in ("embed_tokens", "block.0.q", "block.1.q")
    ]
    t5 = Scan("t5", "spectrum", tuple(scored(name, 1.0) for name in ("shared", *halves))).select(50)
    assert set(t5.always) == {"shared", "encoder.embed_tokens", "decoder.embed_tokens"}
    assert {group.name for group in t5.groups if group.size} == {"encoder:q", "decoder:q"}


def test_a_comparison_ranks_within_towers() -> None:
    a, b = towers_model(), towers_model(seed=1)
    result = a.compare(b)
    assert {"self_attn.q_proj", "vision:self_attn.q_proj"} <= set(result.spearman_by_type)
