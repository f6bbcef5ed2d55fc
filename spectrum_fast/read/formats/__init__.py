"""Packed layouts, one file each: how it is recognised, planned and read, and its row in docs/formats.md.

``recognition`` finds codes and companions by their names, ``planning`` decides what is decoded (a :class:`WeightPlan`),
the format reads what was stored into :class:`Codes`, and ``measure/ops/decode`` makes numbers of these. A new format is
a file beside these and a line in ``registry``.
"""
