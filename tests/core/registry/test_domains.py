"""An attribute's annotation says which values it can have; a node with another does not load."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Optional

import numpy as np
import pytest
from fhe_core.registry import OpSignature
from onnx import TensorProto, helper

import fhe_core
from fhe_core import ModelError, NumpyModule

if TYPE_CHECKING:
    from somewhere import Hidden

Flag = Literal[0, 1]


def annotated(
    x: Any,
    /,
    *,
    flag: Flag = 1,
    truth: bool = False,
    mode: Literal["up", "down"] = "up",
    given: Flag | None = None,
    old: Optional[Literal["a"]] = None,  # noqa: UP045 - as many write it
    flags: Sequence[Flag] | None = None,
    several: tuple[Literal["l", "r"], ...] = ("l",),
    number: int = 0,
    numbers: Sequence[int] | None = None,
    either: Literal["auto"] | int = 0,
    hidden: Hidden = None,
    bare=None,
) -> Any:
    return x


CHOICES = {
    "flag": (0, 1),
    "truth": (0, 1),
    "mode": ("up", "down"),
    "given": (0, 1),
    "old": ("a",),
    "flags": (0, 1),
    "several": ("l", "r"),
}


def test_annotations_say_which_values_there_are_and_all_others_say_nothing() -> None:
    signature = OpSignature.from_callable(annotated)
    assert signature.choices == CHOICES
    assert pickle.loads(pickle.dumps(signature)) == signature


def test_annotations_need_not_be_written_as_text() -> None:
    def evaluated(x: Any, /, *, flag: Any = 1) -> Any:
        return x

    evaluated.__annotations__["flag"] = Flag
    assert OpSignature.from_callable(evaluated).choices == {"flag": (0, 1)}


def model_of(**attributes: Any) -> Any:
    node = helper.make_node("Annotated", ["x"], ["y"], "here", domain="tests", **attributes)
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in "xy"]
    graph = helper.make_graph([node], "net", infos[:1], infos[1:])
    imports = [helper.make_opsetid("tests", 1), helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


@pytest.fixture
def registry() -> Iterator[Any]:
    with fhe_core.registered(impls=[("Annotated", annotated, {"domain": "tests"})]) as registry:
        yield registry


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("flag", 2, "0 or 1"),
        ("flag", -1, "0 or 1"),
        ("truth", 5, "0 or 1"),
        ("mode", "sideways", "'up' or 'down'"),
        ("mode", "", "'up' or 'down'"),
        ("given", 3, "0 or 1"),
        ("flags", [0, 1, 2], "0 or 1"),
        ("several", ["l", "x"], "'l' or 'r'"),
    ],
)
def test_a_node_with_another_value_is_refused_before_it_runs(
    name: str, value: Any, expected: str, registry: Any
) -> None:
    model = model_of(**{name: value})
    with pytest.raises(ModelError, match=f"{name!r} has a value that it cannot have") as caught:
        NumpyModule(model, registry=registry)
    assert caught.value.where.node == "here"
    assert caught.value.expected == expected
    assert "cannot have" in str(fhe_core.check(model, registry=registry))


def test_a_node_with_one_of_the_values_runs(registry: Any) -> None:
    model = model_of(flag=0, truth=1, mode="down", given=1, flags=[0, 0], several=["r", "l"])
    NumpyModule(model, registry=registry)(np.ones(2, np.float32))


# --- our own packs

#: Whole numbers that begin at 0 or 1, and are no truth values.
NUMBERS = {
    "axis", "batch_dims", "block_size", "group", "k", "max_map", "n_supports", "offset_group",
    "output_datatype", "output_dtype", "output_height", "output_width", "precision",
    "replaced_value_int64", "rotary_embedding_dim", "sampling_ratio", "start", "stash_type", "targets",
    "output_sequence",
}  # fmt: skip


def test_every_truth_value_of_our_packs_is_declared_as_one() -> None:
    """onnxruntime takes 2 for false in one op and for true in another; here it is refused."""
    undeclared = {
        (spec.op_type, name)
        for spec in fhe_core.get_registry().ops(shadowed=True)
        if spec.impl_pack in ("std", "contrib") and spec.signature is not None
        for name, default in spec.signature.attributes.items()
        if type(default) in (int, bool)
        and default in (0, 1)
        and name not in spec.signature.choices
        and name not in NUMBERS
    }
    assert not undeclared
