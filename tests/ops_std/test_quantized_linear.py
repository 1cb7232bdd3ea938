"""Elements that constants name, fixed linear maps, transposed windows, Einsum and integer products.

What each computes alone the conformance kit shows (`samples_linear`). Here: what they cost, how exactly weights
that an op makes itself are kept, static batches, what cannot be encrypted, and real encryption.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from fhe_core.quantization.quantizers import QuantizationParameters
from fhe_ops_std.quantized.linear import convolution

import fhe_core
from fhe_core import CompilationError, FheError, PlanError, QuantizedArray
from fhe_ops_std import linear
from tests.core.quantization.building import model, normal, relative_error

ROWS = 200
DOUBLE = np.array([1, 1, 2, 2], np.float32)


def levels(*shape: int, seed: int = 0) -> Any:
    """Floats that four bits hold exactly, the least and the largest among them."""
    values = np.random.default_rng(seed).integers(0, 16, (ROWS, *shape)).astype(np.float32)
    values[0], values[1] = 0, 15
    return values


def by_runtime(proto: onnx.ModelProto, **inputs: Any) -> Any:
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)[0]


@pytest.mark.parametrize(
    ("group", "kernel"), [(1, (6, 4, 2, 2)), (2, (6, 2, 2, 2)), (4, (8, 1, 3, 3))]
)
@pytest.mark.parametrize("pads", [0, 1])
def test_a_convolution_takes_a_zero_point_for_each_channel(
    group: int, kernel: tuple[int, ...], pads: int
) -> None:
    """Exactly that of the real values, whose padding is what stands for zero in its channel."""
    zero_point = np.array([3, -1, 0, 7]).reshape(1, 4, 1, 1)
    params = QuantizationParameters(0.25, zero_point, zero_point - 8, zero_point + 7)
    integers = np.random.default_rng(0).integers(-8, 8, (5, 4, 5, 5)) + zero_point
    x = QuantizedArray(4, integers, value_is_float=False, params=params)
    w = QuantizedArray(8, normal(*kernel, seed=1))
    attrs = {
        "auto_pad": "NOTSET",
        "dilations": (1, 1),
        "group": group,
        "pads": (pads,) * 4,
        "strides": (1, 1),
    }
    expected = linear.conv(x.dequant(), w.dequant(), **attrs)
    np.testing.assert_allclose(convolution(x, w, attrs), expected, atol=1e-9)


# -- cost

#: Ops on (batch, 2, 4, 4) after a product that are layout, or linear: no look-up of their own, or one
#: that ends their accumulator.
BETWEEN: dict[str, tuple[str, dict[str, Any], int]] = {
    "Resize nearest": ("y = Resize(x, , s)", {"s": DOUBLE}, 1),
    "Upsample": ("y = Upsample <scales = [1.0, 1.0, 2.0, 2.0]> (x)", {}, 1),
    "Compress": ("y = Compress <axis = 3> (x, c)", {"c": np.array([True, False, True, True])}, 1),
    "CenterCropPad": ("y = CenterCropPad <axes = [2, 3]> (x, s)", {"s": np.array([2, 6])}, 1),
    "Trilu": ("y = Trilu(x)", {}, 1),
    "CumSum": ("y = CumSum(x, a)", {"a": np.int64(3)}, 2),
    "Resize linear": ('y = Resize <mode = "linear"> (x, , s)', {"s": DOUBLE}, 2),
    "ConvTranspose": ("y = ConvTranspose <strides = [2, 2]> (x, k)", {"k": normal(2, 3, 2, 2)}, 2),
    "Einsum": ('y = Einsum <equation = "bchw,cd->bdhw"> (x, k)', {"k": normal(2, 3)}, 2),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_between_two_products_it_agrees_with_float_and_costs_no_more(name: str) -> None:
    node, constants, lookups = BETWEEN[name]
    opset = 8 if name == "Upsample" else 18
    alone = model(node, {"x": ("N", 2, 4, 4)}, "y", constants, opset=opset)
    width = fhe_core.NumpyModule(alone)(normal(1, 2, 4, 4)).shape[-1]
    # Of one sign, so that errors are not measured against a difference of large numbers.
    weights = {"a_": normal(4, 4) / 2, "b_": np.abs(normal(width, 3)) / 2}
    nodes = f"x = MatMul(in, a_) \n {node} \n out = MatMul(y, b_)"
    shapes = {"in": ("N", 2, 4, 4)}
    proto = model(nodes, shapes, "out", {**constants, **weights}, opset=opset)
    x = normal(ROWS, 2, 4, 4)
    qm = fhe_core.quantize(proto, x, n_bits=8, rounding=10, rounding_method="exact")
    assert relative_error(qm(x), fhe_core.NumpyModule(proto)(x)) < 0.03
    assert len(qm.program.lookups) == lookups
    assert np.array_equal(qm.forward(x, fhe="simulate"), qm.forward(x))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "attributes", ["strides = [1]", "strides = [2]", "pads = [1, 1], strides = [3]"]
)
def test_a_sequence_convolved_backwards_is_padded_with_each_channel_s_own_zero(
    channels: int, attributes: str
) -> None:
    k = normal(channels, 2, 3, seed=1)
    nodes = (
        f"h = Conv(x, u) \n s = Add(h, o) \n r = Relu(s) \n y = ConvTranspose <{attributes}> (r, k)"
    )
    offsets = np.linspace(-2, 6, channels, dtype=np.float32).reshape(1, -1, 1)
    constants = {"u": normal(channels, 2, 1), "o": offsets, "k": k}
    proto = model(nodes, {"x": ("N", 2, 5)}, "y", constants)
    x = normal(ROWS, 2, 5)
    qm = fhe_core.quantize(proto, x, n_bits=8, rounding=10)
    assert relative_error(qm(x), fhe_core.NumpyModule(proto)(x)) < 0.03


def test_two_encrypted_tensors_scattered_into_one_another_share_a_scale() -> None:
    """They are joined without a look-up beyond the two that quantize them."""
    index = np.broadcast_to(np.array([2, 0]).reshape(1, 2, 1), (1, 2, 4)).copy()
    scattered = "s = ScatterElements <axis = 1> (d, i, u)"
    nodes = f"d = MatMul(x, a) \n u = MatMul(z, b) \n {scattered} \n y = MatMul(s, c)"
    constants = {"a": normal(4, 4), "b": normal(4, 4, seed=1), "c": normal(4, 3), "i": index}
    proto = model(nodes, {"x": (1, 3, 4), "z": (1, 2, 4)}, "y", constants)
    data = {"x": normal(ROWS, 3, 4), "z": normal(ROWS, 2, 4, seed=1)}
    qm = fhe_core.quantize(proto, data, n_bits=8, rounding=10, rounding_method="exact")
    one_by_one = [
        by_runtime(proto, **{k: v[i : i + 1] for k, v in data.items()}) for i in range(ROWS)
    ]
    assert relative_error(qm(**data), np.concatenate(one_by_one)) < 0.03
    assert len(qm.program.lookups) == 2


# -- weights that no plan has


@pytest.mark.parametrize(
    ("node", "constants", "shape", "outputs"),
    [
        ('y = Resize <mode = "cubic"> (x, , s)', {"s": DOUBLE}, (1, 3, 4), (1, 6, 8)),
        (
            'y = Resize <mode = "linear"> (x, , s)',
            {"s": np.array([1, 1, 1.7, 1.3], np.float32)},
            (1, 3, 4),
            (1, 5, 5),
        ),
        ("y = DFT(x, , a)", {"a": np.int64(1)}, (8, 1), (8, 2)),
    ],
    ids=["cubic", "linear", "DFT"],
)
def test_weights_of_its_own_are_off_by_half_a_step_of_their_integers(
    node: str, constants: Mapping[str, Any], shape: tuple[int, ...], outputs: tuple[int, ...]
) -> None:
    """One matrix has 8 bits, each of two has 6: 2^(bits - 1) - 1 steps in the largest weight."""
    proto = model(node, {"x": ("N", *shape)}, "y", constants, opset=20)
    x = levels(*shape)
    qm = fhe_core.quantize(proto, x, n_bits=4)
    exact = fhe_core.NumpyModule(proto)
    size = int(np.prod(shape))
    units = np.eye(size, dtype=np.float32).reshape(size, *shape)
    matrix = exact(units).reshape(size, -1)
    steps = 127 if "DFT" in node else 31
    # Each matrix is off by half a step, relative to its largest weight; both of them, twice that and a bit.
    relative = 0.5 / steps if "DFT" in node else (1 + 0.5 / steps) ** 2 - 1
    bound = relative * np.abs(matrix).max() * x.reshape(ROWS, -1).sum(axis=1)
    error = np.abs(qm(x) - exact(x)).reshape(ROWS, -1).max(axis=1)
    assert qm(x).shape[1:] == outputs
    assert (error <= bound + 1e-4).all()


# -- a batch of a static size


@pytest.mark.parametrize(
    ("node", "constants"),
    [
        ("y = Resize(x, , , s)", {"s": np.array([1, 2, 6, 2])}),
        ('y = Resize <mode = "linear"> (x, , , s)', {"s": np.array([1, 2, 6, 8])}),
        ("y = CenterCropPad(x, s)", {"s": np.array([1, 2, 6, 2])}),
        ("y = ReverseSequence <batch_axis = 0, time_axis = 1> (x, s)", {"s": np.array([2])}),
        ("y = GatherND <batch_dims = 1> (x, s)", {"s": np.array([[[1, 2], [0, 3]]])}),
        (
            "y = GatherElements <axis = 2> (x, s)",
            {"s": np.broadcast_to(np.array([3, 1, 0]).reshape(1, 1, 3, 1), (1, 2, 3, 4)).copy()},
        ),
    ],
    ids=[
        "Resize",
        "Resize linear",
        "CenterCropPad",
        "ReverseSequence",
        "GatherND",
        "GatherElements",
    ],
)
def test_constants_made_for_a_batch_of_one_serve_any(
    node: str, constants: Mapping[str, Any]
) -> None:
    proto = model(node, {"x": (1, 2, 4, 4)}, "y", constants, opset=18)
    x = levels(2, 4, 4)
    expected = np.concatenate([by_runtime(proto, x=row[None]) for row in x])
    qm = fhe_core.quantize(proto, x, n_bits=4)
    assert np.allclose(qm(x), expected, atol=1e-4)


# -- products of integers


def whole(*shape: int, high: int = 16, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, high, (ROWS, *shape)).astype(np.uint8)


def integers(nodes: str, inputs: Mapping[str, Any], constants: Mapping[str, Any]) -> Any:
    """A model of uint8 inputs."""
    shapes = {name: ("N", *values.shape[1:]) for name, values in inputs.items()}
    proto = model(nodes, shapes, "y", constants, opset=13)
    for info in proto.graph.input:
        info.type.tensor_type.elem_type = onnx.TensorProto.UINT8
    proto.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT32
    return proto


def test_two_encrypted_integer_matrices_are_multiplied_exactly() -> None:
    data = {"x": whole(2, 3), "z": whole(3, 2, seed=1)}
    zeros = {"a": np.uint8(7), "b": np.uint8(2)}
    proto = integers("y = MatMulInteger(x, z, a, b)", data, zeros)
    qm = fhe_core.quantize(proto, data, n_bits=4, rounding_method="exact", rounding=10)
    assert np.array_equal(np.rint(qm(**data)), by_runtime(proto, **data))


def test_a_zero_point_between_two_integers_of_a_factor_says_how_many_bits_it_needs() -> None:
    data = {"x": whole(2, 3, high=256), "z": whole(3, 2, seed=1, high=256)}
    zeros = {"a": np.uint8(7), "b": np.uint8(2)}
    proto = integers("y = MatMulInteger(x, z, a, b)", data, zeros)
    assert fhe_core.check(proto).ok
    with pytest.raises(PlanError, match="a zero point lies between") as caught:
        fhe_core.quantize(proto, data, n_bits=4)
    assert "8 bits" in str(caught.value.fix)


@pytest.mark.parametrize("bits", [3, 4])
def test_padding_of_an_integer_convolution_is_its_zero_point(bits: int) -> None:
    """Also where the zero point is none of the few integers that x is quantized to: what rounding x moves a
    result by is half a step a tap, and at the border there is no more of it."""
    x, w = whole(1, 3, 3), np.arange(-4, 5, dtype=np.int8).reshape(1, 1, 3, 3)
    proto = integers(
        "y = ConvInteger <pads = [1, 1, 1, 1]> (x, w, a)", {"x": x}, {"w": w, "a": np.uint8(7)}
    )
    qm = fhe_core.quantize(proto, {"x": x}, n_bits=bits, rounding=12, rounding_method="exact")
    # onnxruntime has no ConvInteger of int8 weights on CPU: the sum is written out.
    padded = np.pad(x.astype(np.int64) - 7, [(0, 0), (0, 0), (1, 1), (1, 1)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    expected = (windows * w[0, 0].astype(np.int64)).sum(axis=(-1, -2))
    half_step = 0.5 * 15 / (2**bits - 1) if bits < 4 else 0.0
    assert np.abs(qm(x) - expected).max() <= half_step * np.abs(w).sum() + 1e-4


def test_a_constant_matrix_may_be_transposed() -> None:
    proto = model(
        "y = Gemm <transA = 1, transB = 1> (a, x)", {"x": (4, 3)}, "y", {"a": normal(3, 5)}
    )
    x = np.random.default_rng(0).integers(0, 16, (ROWS, 3)).astype(np.float32)
    qm = fhe_core.quantize(proto, x, n_bits={"model_inputs": 4, "op_weights": 12}, rounding=16)
    assert relative_error(qm(x[:4]), by_runtime(proto, x=x[:4])) < 1e-3


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose", "ConvInteger"])
def test_weights_that_do_not_fit_are_refused_by_check(op: str) -> None:
    proto = model(f"y = {op} <group = 2> (x, w)", {"x": ("N", 4, 5)}, "y", {"w": normal(3, 3, 2)})
    (problem,) = fhe_core.check(proto).problems
    assert "do not fit each other" in problem.reason
    with pytest.raises(FheError, match="do not fit each other"):
        fhe_core.NumpyModule(proto)(normal(2, 4, 5))


# -- what cannot be


INDEX = "f = MatMul(x, w) \n i = Cast <to = 7> (f) \n "


@pytest.mark.parametrize(
    ("nodes", "constants", "says"),
    [
        (INDEX + "y = GatherElements <axis = 1> (x, i)", {}, "'indices' is encrypted"),
        (INDEX + "y = ScatterElements <axis = 1> (x, i, x)", {}, "'indices' is encrypted"),
        ("y = Compress(x, c)", {"c": np.array([True])}, "flattens the batch"),
        ("y = Compress <axis = 0> (x, c)", {"c": np.array([True])}, "samples of the batch"),
        ("y = GatherND(x, c)", {"c": np.array([[0]])}, "samples of the batch"),
        ("y = Trilu(x)", {}, "mixes several elements"),
        ("y = CumSum(x, c)", {"c": np.int64(0)}, "the batch"),
        ("y = CenterCropPad <axes = [0]> (x, c)", {"c": np.array([7])}, "samples of the batch"),
        ('y = Einsum <equation = "bi,ci->bc"> (x, x)', {}, "samples of a batch apart"),
        ('y = Einsum <equation = "bi,bi,bi->b"> (x, x, x)', {}, "3 encrypted operands"),
        (
            'y = ScatterElements <axis = 1, reduction = "max"> (x, c, x)',
            {"c": np.zeros((1, 4), np.int64)},
            "reduction 'max'",
        ),
    ],
)
def test_what_has_no_encrypted_form_says_why_and_what_to_do(
    nodes: str, constants: Any, says: str
) -> None:
    proto = model(
        nodes, {"x": ("N", 4)}, "y", {"w": np.eye(4, dtype=np.float32), **constants}, opset=18
    )
    x = np.zeros((1, 4), np.float32) if "max" in nodes else np.abs(normal(1, 4)) % 1
    with pytest.raises(CompilationError, match=says) as caught:
        fhe_core.quantize(proto, x, client_side="minimal")
    assert caught.value.where.node
    assert caught.value.fix


# -- real encryption


@pytest.mark.fhe
@pytest.mark.parametrize(
    ("nodes", "constants", "shape"),
    [
        (
            "y = ConvTranspose <strides = [2, 2], pads = [1, 0, 0, 1]> (x, w)",
            {"w": np.rint(normal(2, 1, 2, 2))},
            (2, 2, 2),
        ),
        ('y = Resize <mode = "linear"> (x, , s)', {"s": DOUBLE}, (1, 2, 2)),
        ("y = Resize(x, , s)", {"s": DOUBLE}, (1, 2, 2)),
        ("y = CumSum(x, a)", {"a": np.int64(1)}, (4,)),
        ('y = Einsum <equation = "bij,jk->bki"> (x, w)', {"w": np.rint(normal(2, 3))}, (2, 2)),
        ('y = Einsum <equation = "bij,bkj->bik"> (x, x)', {}, (2, 2)),
        (
            "t = CenterCropPad <axes = [1, 2]> (x, s) \n y = Relu(t)",
            {"s": np.array([3, 1])},
            (2, 2),
        ),
    ],
    ids=["ConvTranspose", "linear", "nearest", "CumSum", "Einsum", "products", "CenterCropPad"],
)
def test_encryption_changes_nothing(
    nodes: str, constants: Mapping[str, Any], shape: tuple[int, ...]
) -> None:
    proto = model(nodes, {"x": ("N", *shape)}, "y", constants, opset=18)
    x = np.random.default_rng(0).integers(-1, 3, (ROWS, *shape)).astype(np.float32)
    qm = fhe_core.compile(
        proto, x, n_bits=2, rounding=16, rounding_method="exact", client_side="minimal"
    )
    assert np.array_equal(qm.forward(x[:2], fhe="execute"), qm.forward(x[:2]))
