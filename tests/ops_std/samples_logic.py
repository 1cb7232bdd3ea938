"""Samples for the conformance kit: truth values that are encrypted, and choices by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fhe_core.testing import Sample

from tests.ops_std.conformance_samples import Named, batch, normal


def logic() -> Named:
    x, z = batch(5), batch(5, seed=1)
    mask, other = batch(5, seed=2) > 0.3, z > -0.2
    for op in ("And", "Or", "Xor"):
        yield op, Sample(mask, other, name="encrypted")
        yield op, Sample(mask, other[:, :1], name="encrypted, broadcast")
    yield "Where", Sample(mask[0], x, z, constants=[0], name="a constant mask of two encrypted")
    yield "Where", Sample(mask, x, z, name="encrypted")
    yield "Where", Sample(mask, x, normal(5), constants=[2], name="encrypted or a constant")
    yield "Where", Sample(mask, normal(5), z, constants=[1], name="a constant or encrypted")
    yield "Where", Sample(mask[:, :1], abs(x) + 1, -abs(z), name="encrypted, broadcast")


SAMPLES: Mapping[str, Sequence[Sample]] = {
    op: [sample for name, sample in logic() if name == op] for op in ("And", "Or", "Xor", "Where")
}
