"""What a search may leave out of a model: fewer look-ups, as long as the outputs bear it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fhe_core.compiler import search
from fhe_core.compiler.scoring import r_squared
from fhe_core.compiler.search import Found
from fhe_core.compiler.students import in_best_forms, students
from fhe_core.progress import progress_of
from fhe_core.quantization.module import Cost, QuantizedModule
from fhe_core.quantization.planning import Settings
from fhe_core.quantization.session import Session

from tests.core.quantization.building import model, normal

X = normal(300, 6, seed=5)
#: Weights of the second layer: most channels hardly matter.
MATTER = np.array([1, 1, 1, 1] + [0.01] * 12, np.float32)[:, None]


def net(bias: float = 0.0, nodes: str = "h = Gemm(x, w, b)") -> Any:
    constants = {
        "w": normal(6, 16, seed=1) / np.float32(3),
        "b": normal(16, seed=2) + np.float32(bias),
        "v": normal(16, 2, seed=3) * MATTER,
    }
    return model(nodes + "\n r = Relu(h) \n y = Gemm(r, v)", {"x": ("N", 6)}, "y", constants)


def found(proto: Any, **options: Any) -> list[Any]:
    session = Session(proto, X)
    wanted = session.net(X)

    def margin(student: Session) -> float:
        return 1 - (1 - r_squared(student.net(X), wanted)) / 0.02

    return students(session, margin, None, least=0.3, seed=0, advance=lambda _: None, **options)


def test_channels_that_hardly_matter_are_left_out() -> None:
    """Each student has fewer look-ups than the one before, and is within what it may lose."""
    sizes = [(student.lookups, student.margin) for student in found(net())]
    counts = [count for count, _ in sizes]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] <= 8
    assert min(margin for _, margin in sizes) >= 0.3


@pytest.mark.parametrize("nodes", ["h = Gemm(x, w, b)", "m = MatMul(x, w) \n h = Add(m, b)"])
def test_activations_that_hardly_bend_are_left_out_whole(nodes: str) -> None:
    assert found(net(bias=6.0, nodes=nodes))[-1].lookups == 0


def test_the_whole_model_is_always_there_and_alone_if_that_is_wanted() -> None:
    assert found(net())[0].left_out == 0
    assert len(found(net(), wanted=False)) == 1


def test_models_are_tried_in_the_forms_that_the_packs_have() -> None:
    """relu(x) = (x + |x|) / 2, and a look-up of |x| needs one bit less."""
    forms = in_best_forms(found(net(), wanted=False))
    assert [node.op_type for node in forms[-1].session.graph.nodes] == [
        "Gemm",
        "Abs",
        "Concat",
        "Gemm",
    ]


def searched(savings: str, *, dear: bool = False) -> Found:
    """A search through few candidates, where the model's other forms cost half as much, or twice if ``dear``.

    Which form Concrete's prices favour hangs on weights that were tuned by a thousand steps in float32, and so
    on the order in which a machine's BLAS adds: with prices of its own the test has one result everywhere.
    """

    def price(module: QuantizedModule) -> Cost:
        usual, other = (1e9, 2e9) if dear else (2e9, 1e9)
        return Cost(other if module.plan.alternatives else usual, 1, 8, 2.0**-40, 2.0**-40)

    return search.search(
        Session(net(), X),
        None,
        score=r_squared,
        tolerance=0.3,
        base=Settings.of(6, None, savings=savings),
        compiled=price,
        seed=0,
        progress=progress_of(None),
    )


@pytest.fixture
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "PAIRS", ((8, 8),))
    monkeypatch.setattr(search, "ROUNDINGS", (4,))
    monkeypatch.setattr(search, "_REFINEMENTS", 0)
    monkeypatch.setattr(search, "_TRIAL_STEPS", 25)
    monkeypatch.setattr(search, "_STEPS", 25)


@pytest.mark.usefixtures("_few")
@pytest.mark.parametrize(
    ("savings", "dear", "forms"),
    [("exact", False, ["std.split_activations"]), ("exact", True, []), ("none", False, [])],
    ids=["exact", "exact-dear", "none"],
)
def test_nothing_is_left_out_unless_the_caller_allows_it(
    savings: str, dear: bool, forms: list[str]
) -> None:
    """``exact``: another form of the same function may be taken, where it is cheaper; ``none``: the model as
    it is, and nothing else is tried."""
    found = searched(savings, dear=dear)
    tried = {row.student.session.alternatives for row in found.candidates}
    assert tried == ({(), ("std.split_activations",)} if savings == "exact" else {()})
    assert not any(row.student.session.reductions for row in found.candidates)
    assert found.module.plan.alternatives == forms
