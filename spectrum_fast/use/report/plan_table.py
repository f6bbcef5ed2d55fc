"""A memory plan as a person reads it in a terminal: one line a part."""

from __future__ import annotations

from rich.console import RenderableType

from spectrum_fast.choose.planner.memory import GIB, NOTES, MemoryPlan
from spectrum_fast.use.report.layout import add_row, page, plain_table


def plan_table(plan: MemoryPlan, limit_bytes: int | None = None) -> RenderableType:
    """Parts in GiB, the peak, and what was assumed; fits 80 columns."""
    table = plain_table("part", "GiB a GPU", "what", words=("what",))
    what = _explanations(plan)
    for part, count in plan.parts().items():
        add_row(table, part, f"{count / GIB:.2f}", what[part])
    add_row(table, "peak", f"{plan.peak / GIB:.2f}", _peak_words(plan, limit_bytes))
    if plan.states.host:
        add_row(table, "host", f"{plan.states.host / GIB:.2f}", "offloaded to host memory, a process")
    trained = plan.trained
    share = (
        f"trained: {trained.trained_count:,} of {trained.count:,} parameters "
        f"({100 * plan.trained_fraction:.2f} %); {trained.assumption}"
    )
    return page(_title(plan), share, "", table, "", *(f"note: {note}" for note in NOTES))


def _title(plan: MemoryPlan) -> str:
    setup = plan.setup
    sharding = "FSDP2" if setup.fsdp2 else f"ZeRO-{setup.zero}" if setup.zero else "no ZeRO"
    gpus = "1 GPU" if setup.gpus == 1 else f"{setup.gpus} GPUs"
    return (
        f"{plan.trained.name}: {setup.method}, {gpus}, {sharding}, {setup.dtype}, {setup.optimizer}, "
        f"{setup.micro_batch} x {setup.seq_len} tokens"
    )


def _explanations(plan: MemoryPlan) -> dict[str, str]:
    setup, states, activations = plan.setup, plan.states, plan.activations
    optimizer = [f"{setup.optimizer} states {states.moments / GIB:.2f}"]
    if states.master:
        optimizer.insert(0, f"float32 masters {states.master / GIB:.2f}")
    kept = "inputs of the layers and the loss" if setup.checkpointing == "layer" else "kept for the backward pass"
    buffers = [f"communication {states.buffers / GIB:.2f}"]
    if states.gathered:
        buffers.append(f"gathered weights {states.gathered / GIB:.2f}")
    if states.step:
        buffers.append(f"in the step {states.step / GIB:.2f}")
    return {
        "weights": "NF4 where linear and frozen"
        if setup.quantises
        else f"frozen in {setup.dtype}, trained in {setup.trained_dtype}",
        "gradients": "offloaded" if setup.offload != "none" else f"of what is trained, in {setup.trained_dtype}",
        "optimizer": "offloaded" if setup.offload != "none" else ", ".join(optimizer),
        "activations": f"{kept} {activations.saved / GIB:.2f}",
        "buffers": ", ".join(buffers),
    }


def _peak_words(plan: MemoryPlan, limit_bytes: int | None) -> str:
    words = "parts that are never alive together are not added up"
    if limit_bytes is None:
        return words
    percent = "" if plan.top_percent is None else f"top {plan.top_percent:g} %, "
    fits = "fits" if plan.peak <= limit_bytes else "DOES NOT FIT"
    return f"{percent}{fits} in {limit_bytes / GIB:.2f} GiB"
