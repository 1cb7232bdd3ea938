"""Categories before encryption, after decryption and in between; maps after decryption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fhe_core.errors import CompilationError, FheError
from onnx import TensorProto, helper

import fhe_core
from tests.ops_contrib.models import mapping, ml, model

INT64, FLOAT, STRING = TensorProto.INT64, TensorProto.FLOAT, TensorProto.STRING
RNG = np.random.default_rng(0)
CODES = RNG.integers(0, 4, (300, 2))
X = RNG.normal(size=(300, 4)).astype(np.float32)
CLASSIFIED = {"label": INT64, "scores": FLOAT}


def onnx_node(op: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return helper.make_node(op, inputs.split(), outputs.split(), name=op, **attributes)


def classifier(source: str, features: int, **others: Any) -> Any:
    weights = np.random.default_rng(1).normal(size=3 * features).astype(np.float32)
    given = {"classlabels_ints": [7, 3, 5], "post_transform": "SOFTMAX", **others}
    return ml(
        "LinearClassifier",
        source,
        "label scores",
        coefficients=weights.tolist(),
        intercepts=[0.1, 0.0, -0.1],
        **given,
    )


def both(proto: Any, x: Any, n_bits: int = 8, **options: Any) -> tuple[Any, Any, Any]:
    qm = fhe_core.quantize(proto, x, n_bits=n_bits, **options)
    return qm, qm.forward(x), fhe_core.NumpyModule(proto)(x)


def encoder(**attributes: Any) -> list[Any]:
    return [
        ml("OneHotEncoder", "x", "marks", cats_int64s=[0, 1, 3], **attributes),
        onnx_node("Flatten", "marks", "flat"),
    ]


@pytest.mark.parametrize("kind", [np.int64, np.float32])
@pytest.mark.parametrize("zeros", [0, 1])
def test_categories_become_ones_before_encryption(kind: Any, zeros: int) -> None:
    # Without `zeros` the float model refuses what is no category.
    x = (CODES if zeros else np.where(CODES == 2, 3, CODES)).astype(kind)
    proto = model([*encoder(zeros=zeros), classifier("flat", 6)], {"x": x}, CLASSIFIED)
    qm, got, expected = both(proto, x)
    np.testing.assert_allclose(got[1], expected[1], atol=0.005)
    assert len(qm.program.lookups) == 0


def test_categories_become_ones_on_the_server_by_one_look_up_each() -> None:
    proto = model([*encoder(), classifier("flat", 6)], {"x": CODES}, CLASSIFIED)
    qm, got, expected = both(proto, CODES, client_side="minimal")
    np.testing.assert_allclose(got[1], expected[1], atol=0.005)
    assert sum(int(np.prod(node.shape[1:])) for node in qm.program.lookups) == 6


def test_numbers_are_mapped_before_encryption_and_in_a_look_up() -> None:
    node = ml("LabelEncoder", "x", "m", keys_int64s=[0, 1, 2], values_floats=[0.5, -1.0, 2.0])
    proto = model([node, classifier("m", 2)], {"x": CODES}, CLASSIFIED)
    for options, count in (({}, 0), ({"client_side": "minimal"}, 1)):
        qm, got, expected = both(proto, CODES, **options)
        np.testing.assert_allclose(got[1], expected[1], atol=0.02)
        assert len(qm.program.lookups) == count


def test_labels_are_mapped_after_decryption() -> None:
    """By an encoder, by a mapper to text, and by their place among constants."""
    places = {"classlabels_ints": [0, 1, 2]}
    nodes = [
        classifier("x", 4, **places),
        ml("LabelEncoder", "label", "number", keys_int64s=[0, 1, 2], values_floats=[0.5, 1.5, 9.0]),
        ml("CategoryMapper", "label", "name", cats_int64s=[0, 2], cats_strings=["no", "yes"]),
        ml("ArrayFeatureExtractor", "names label", "row"),
    ]
    outputs = {"number": FLOAT, "name": STRING, "row": STRING}
    constants = {"names": np.array([["a", "", "é"]], object)}
    proto = model(nodes, {"x": X}, outputs, constants)
    qm, got, expected = both(proto, X, n_bits=10)
    for one, other in zip(got, expected, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert np.mean(one == other) >= 0.99
    assert len(qm.program.lookups) == 0


def zipped() -> Any:
    key = mapping(STRING, FLOAT, sequence=True)
    zip_map = ml("ZipMap", "scores", "maps", classlabels_strings=["a", "b", "c"])
    return model([classifier("x", 4), zip_map], {"x": X}, {"label": INT64, "maps": key})


def test_maps_are_made_after_decryption() -> None:
    qm, (label, maps), (wanted, expected) = both(zipped(), X, n_bits=10)
    assert np.mean(label == wanted) >= 0.99
    assert type(maps) is list
    for one, other in zip(maps, expected, strict=True):
        assert list(one) == ["a", "b", "c"]
        np.testing.assert_allclose(list(one.values()), list(other.values()), atol=0.02)
    assert len(qm.program.lookups) == 0


@pytest.mark.fhe
def test_a_saved_client_makes_the_maps(tmp_path: Path) -> None:
    """Without this pack: what it computes after decryption is data."""
    qm = fhe_core.compile(zipped(), X, n_bits=6)
    qm.save(tmp_path / "model")
    assert fhe_core.load(tmp_path / "model").forward(X[:3])[1] == qm.forward(X[:3])[1]
    client = fhe_core.load_client(tmp_path / "model" / "client")
    server = fhe_core.load_server(tmp_path / "model" / "server")
    client.keygen()
    results = server.run(client.encrypt(X[:2]), client.evaluation_keys)
    assert client.decrypt(results)[1] == qm.forward(X[:2])[1]


TEXT = np.array([["a"], ["b"]], object)
MAP = mapping(STRING, FLOAT)


@pytest.mark.parametrize(
    ("node", "given"),
    [
        (ml("OneHotEncoder", "x", "y", cats_strings=["a", "b"]), TEXT),
        (ml("LabelEncoder", "x", "y", keys_strings=["a"], values_floats=[1.0]), TEXT),
        (ml("DictVectorizer", "x", "y", string_vocabulary=["a", "b"]), MAP),
    ],
)
def test_text_and_maps_cannot_be_encrypted(node: Any, given: Any) -> None:
    proto = model([node], {"x": given}, {"y": FLOAT})
    report = fhe_core.check(proto)
    assert not report.ok
    assert any("'x'" in problem.reason for problem in report.problems)
    with pytest.raises(FheError, match="'x'"):
        fhe_core.quantize(proto, {"x": TEXT})


def test_a_wrong_attribute_is_named_when_the_model_is_quantized() -> None:
    node = ml("LabelEncoder", "x", "m", keys_int64s=[0, 1], values_floats=[0.5])
    proto = model([node, classifier("m", 2)], {"x": CODES}, CLASSIFIED)
    with pytest.raises(FheError, match=r"node 'LabelEncoder'.*'keys' and 'values'"):
        fhe_core.quantize(proto, CODES)


def test_encrypted_places_in_several_rows_are_refused() -> None:
    nodes = [
        classifier("x", 4, classlabels_ints=[0, 1, 2]),
        ml("ArrayFeatureExtractor", "table label", "y"),
    ]
    proto = model(nodes, {"x": X}, {"y": FLOAT}, {"table": np.ones((2, 3), np.float32)})
    with pytest.raises(CompilationError, match=r"ArrayFeatureExtractor.*indices.*encrypted"):
        fhe_core.quantize(proto, X)
