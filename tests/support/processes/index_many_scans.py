"""Index many scans and search them; print what is found and how memory grew."""

import resource
import sys
from pathlib import Path

from spectrum_fast.choose.library import LibraryIndex
from spectrum_fast.choose.selection.scan_result import Scan
from spectrum_fast.measure.scoring.records import ModuleScore

folder, scans = Path(sys.argv[1]), int(sys.argv[2])
kinds = [f"self_attn.{k}_proj" for k in "qkvo"] + [f"mlp.{k}_proj" for k in ("gate", "up", "down")]
names = [(f"model.layers.{layer}.{kind}", kind) for layer in range(32) for kind in kinds]


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


before = peak()
with LibraryIndex(folder) as index, index._connection:
    for number in range(scans):
        free = number % 100 == 0
        modules = tuple(
            ModuleScore(
                name=name,
                type=kind,
                shape=(8, 8),
                noise_free=free and kind.endswith("v_proj"),
                snr=None if free and kind.endswith("v_proj") else (number * 31 + place) % 1009 / 1009,
            )
            for place, (name, kind) in enumerate(names)
        )
        scan = Scan(model=f"org{number % 50}/model-{number}", criterion="mp", modules=modules)
        index.add(f"scan_{number}.mp.json", "", scan)
with LibraryIndex(folder) as index:
    free = sum(1 for _ in index.find(type="v_proj", noise_free=True))
    one = sum(1 for _ in index.find(model="org7/model-57"))
    best = [m.score for m in index.find(type="mlp.up_proj", layers=(3, 5), scores=(0.9, 0.95), limit=10)]
print(free, one, len(best), best == sorted(best, reverse=True), peak() - before)
