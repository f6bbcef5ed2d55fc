"""Which matrices are worth training? A pre-registered study on a real language model (docs/quality-study.md).

``make study`` fetches the model and the texts, then goes through the plan from where it stopped: one JSON file a
run under ``bench/results/study/TEXT/``. ``python -m bench.training.docs`` makes the page from what is there.
"""
