"""Training with a selection, by the trainers that people use: TRL's SFTTrainer on transformers, PEFT and DeepSpeed.

``run.train`` is the command ``spectrum-fast train``; ``callbacks.SpectrumCallback`` is for a script of one's own.
Nothing here is imported before it is used: transformers, TRL and DeepSpeed take seconds to load.
"""
