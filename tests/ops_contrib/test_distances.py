"""Distances to clear vectors: as ONNX Runtime has them, on integers, and found in what exporters write."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fhe_core.errors import CompilationError, ModelError
from fhe_ops_contrib.distances import cdist
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.neighbors import (
    KNeighborsClassifier,
    KNeighborsRegressor,
    KNeighborsTransformer,
    LocalOutlierFactor,
)

import fhe_core
from tests.ops_contrib.models import by_runtime, ml, model
from tests.ops_std.onnx_cases import assert_same

INT64, FLOAT = TensorProto.INT64, TensorProto.FLOAT
RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 3)).astype(np.float32)
VECTORS = RNG.normal(size=(5, 3)).astype(np.float32)


def node(op: str, inputs: str, outputs: str, domain: str = "", **attributes: Any) -> Any:
    return helper.make_node(
        op, inputs.split(), outputs.split(), name=op, domain=domain, **attributes
    )


def distances(metric: str = "sqeuclidean", outputs: Any = None) -> Any:
    one = node("CDist", "x v", "d", "com.microsoft", metric=metric)
    return model([one], {"x": X}, outputs or {"d": FLOAT}, {"v": VECTORS})


# -- in float


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean"])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_distances_are_runtime_s(metric: str, kind: Any) -> None:
    x, v = X.astype(kind), VECTORS.astype(kind)
    element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    one = node("CDist", "x v", "d", "com.microsoft", metric=metric)
    proto = model([one], {"x": x, "v": v}, {"d": element})
    assert_same(fhe_core.NumpyModule(proto)(x, v), by_runtime(proto, x, v)[0], rtol=1e-5, atol=1e-5)


def test_distances_far_from_zero_are_still_exact() -> None:
    """An expansion of the square around zero would cancel nearly all digits."""
    far = (VECTORS * 1e-3 + 1000).astype(np.float64)
    expected = ((far[:, None] - far[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(cdist(far, far), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("a", "b", "attributes", "named"),
    [
        (X, VECTORS, {"metric": "cosine"}, "metric"),
        (X, VECTORS[:, :2], {}, "columns"),
        (X[0], VECTORS, {}, "matrices"),
    ],
)
def test_what_does_not_fit_is_a_model_error(a: Any, b: Any, attributes: Any, named: str) -> None:
    with pytest.raises(ModelError, match=named) as raised:
        cdist(a, b, **attributes)
    assert (raised.value.where.op, raised.value.where.domain) == ("CDist", "com.microsoft")


# -- on integers


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean"])
def test_the_client_squares_so_that_distances_take_no_look_up(metric: str) -> None:
    proto = distances(metric)
    qm = fhe_core.quantize(proto, X, n_bits=8)
    got, exact = qm.forward(X), fhe_core.NumpyModule(proto)(X)
    np.testing.assert_allclose(got, exact, atol=0.01 * exact.max())
    assert got.min() >= 0
    assert len(qm.program.lookups) == 0
    assert len(qm.encoder_names) == 2


def test_on_the_server_a_feature_s_square_is_one_look_up() -> None:
    proto = distances()
    qm = fhe_core.quantize(proto, X, n_bits=6, client_side="minimal")
    got, exact = qm.forward(X), fhe_core.NumpyModule(proto)(X)
    np.testing.assert_allclose(got, exact, atol=0.05 * exact.max())
    assert len(qm.program.lookups) == 1


def test_one_sample_far_away_widens_no_accumulator_beyond_what_there_is() -> None:
    x = X.copy()
    x[7, 1] = 200
    proto = distances()
    qm = fhe_core.quantize(proto, x, n_bits=8)
    exact = fhe_core.NumpyModule(proto)(x)
    np.testing.assert_allclose(qm.forward(x), exact, atol=0.01 * exact.max())


def test_encrypted_vectors_are_refused() -> None:
    one = node("CDist", "x x", "d", "com.microsoft")
    with pytest.raises(CompilationError, match=r"CDist.*'B' is encrypted"):
        fhe_core.quantize(model([one], {"x": X}, {"d": FLOAT}), X)


# -- found


def k_means(**changes: Any) -> Any:
    """As skl2onnx writes it: |c|² + (|x|² + (-2 x·c + 0 |x|²))."""
    norms = (VECTORS.astype(np.float64) ** 2).sum(axis=1).astype(np.float32)
    given = {"norms": norms, "zero": np.zeros(1, np.float32), "v": VECTORS, **changes}
    nodes = [
        node("ReduceSumSquare", "x", "r", axes=[1], keepdims=1),
        node("Mul", "r zero", "z"),
        node("Gemm", "x v z", "g", alpha=-2.0, transB=1),
        node("Add", "r g", "s"),
        node("Add", "norms s", "d"),
        node("ArgMin", "d", "label", axis=1, keepdims=0),
        node("Sqrt", "d", "root"),
    ]
    nodes[4].name = "Last"
    return model(nodes, {"x": X}, {"label": INT64, "root": FLOAT}, given)


def test_the_distances_of_k_means_are_found_and_take_no_look_up() -> None:
    qm = fhe_core.quantize(k_means(), X, n_bits=8)
    (label, root), (wanted, exact) = qm.forward(X), fhe_core.NumpyModule(k_means())(X)
    assert np.mean(label == wanted) >= 0.98
    np.testing.assert_allclose(root, exact, atol=0.05)
    assert len(qm.program.lookups) == 0
    assert "contrib.find_distances" in qm.passes


@pytest.mark.parametrize(
    "changes", [{"norms": np.full(5, 50, np.float32)}, {"zero": np.ones(1, np.float32)}]
)
def test_other_sums_of_products_are_no_distances(changes: Any) -> None:
    qm = fhe_core.quantize(k_means(**changes), X, n_bits=6)
    assert "contrib.find_distances" not in qm.passes


#: How loops spell squared distances: as of opset 13, with axes as inputs since 18, as a product, a root too.
SPELLINGS = {
    "attributes": [node("ReduceSumSquare", "difference", "square", axes=[1], keepdims=0)],
    "product": [
        node("Mul", "difference difference", "product"),
        node("ReduceSum", "product last", "square", keepdims=0),
    ],
    "root": [
        node("Abs", "difference", "size"),
        node("Pow", "size two", "powers"),
        node("ReduceSum", "powers last", "sum", keepdims=0),
        node("Sqrt", "sum", "square"),
    ],
}


def nearest(*, scan: str = "", target: Any = (-1, 2)) -> Any:
    """As skl2onnx writes it: a loop over the training samples, or CDist; then TopK and a look-up."""
    body = helper.make_graph(
        [
            node("Identity", "all", "same"),
            node("Sub", "all one", "difference"),
            *SPELLINGS[scan or "attributes"],
            node("Identity", "square", "found"),
        ],
        "body",
        [helper.make_tensor_value_info(name, FLOAT, None) for name in ("all", "one")],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in ("same", "found")],
        [
            numpy_helper.from_array(np.array([1]), "last"),
            numpy_helper.from_array(np.float32(2), "two"),
        ],
    )
    body.node[-1].name = "Found"
    looped = [
        node("Scan", "x v", "left turned", body=body, num_scan_inputs=1),
        node("Transpose", "turned", "d", perm=[1, 0]),
    ]
    nodes = [
        *(looped if scan else [node("CDist", "x v", "d", "com.microsoft")]),
        node("TopK", "d k", "values places", largest=0, sorted=1),
        node("Flatten", "places", "flat"),
        ml("ArrayFeatureExtractor", "targets flat", "row"),
        node("Reshape", "row target", "rows"),
        node("ReduceMean", "rows", "y", axes=[1], keepdims=1),
    ]
    constants = {
        "v": VECTORS,
        "k": np.array([2]),
        "targets": np.array([1.0, -2.0, 3.0, 5.0, 8.0], np.float32),
        "target": np.array(target),
    }
    return model(nodes, {"x": X}, {"y": FLOAT}, constants)


@pytest.mark.parametrize("scan", ["", *SPELLINGS])
def test_nearest_neighbours_are_found_and_sorted_after_decryption(scan: str) -> None:
    proto = nearest(scan=scan)
    qm = fhe_core.quantize(proto, X, n_bits=8)
    got, exact = qm.forward(X), fhe_core.NumpyModule(proto)(X)
    assert np.mean(got == exact) >= 0.95
    assert len(qm.program.lookups) == 0
    assert "contrib.find_neighbours" in qm.passes


def test_a_loop_that_computes_something_else_is_no_distance() -> None:
    proto = nearest(scan="attributes")
    body = proto.graph.node[0].attribute[0].g
    body.node[2].op_type = "ReduceSum"
    del body.node[2].attribute[:]
    body.node[2].attribute.append(helper.make_attribute("keepdims", 0))
    body.initializer.append(numpy_helper.from_array(np.array([1]), "axes"))
    body.node[2].input.append("axes")
    assert "contrib.find_distances" not in fhe_core.quantize(proto, X).passes


NEIGHBOURS: dict[str, Any] = {
    "classes": lambda: KNeighborsClassifier(3),
    "weights": lambda: KNeighborsClassifier(4, weights="distance"),
    "numbers": lambda: KNeighborsRegressor(3),
    "two targets": lambda: KNeighborsRegressor(3),
    "outliers": lambda: LocalOutlierFactor(4, novelty=True),
    "graph": lambda: KNeighborsTransformer(n_neighbors=3),
}


@pytest.mark.parametrize("opset", [17, None], ids=["17", "newest"])
@pytest.mark.parametrize("which", NEIGHBOURS)
def test_scikit_learn_s_neighbours_compile_as_they_are_exported(
    which: str, opset: int | None
) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 0.5)
    numbers = np.stack([x[:, 0], 2 * x[:, 1]], axis=1)
    targets = {"numbers": numbers[:, 0], "two targets": numbers}.get(which, y)
    options = {"zipmap": False} if which in ("classes", "weights") else None
    proto = to_onnx(NEIGHBOURS[which]().fit(x, targets), x[:1], target_opset=opset, options=options)
    assert fhe_core.check(proto).ok
    qm = fhe_core.quantize(proto, x, n_bits=8)
    got, exact = qm.forward(x), fhe_core.NumpyModule(proto)(x)
    assert len(qm.program.lookups) == 0
    for one, other in zip(
        *(r if isinstance(r, tuple) else (r,) for r in (got, exact)), strict=True
    ):
        assert np.mean(np.isclose(one, other, atol=0.05 * np.abs(other).max())) >= 0.95
