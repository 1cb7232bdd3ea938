"""A random forest on encrypted data: train with scikit-learn, export, compile, predict.

    pip install fhe-core[concrete] fhe-ops-std fhe-ops-contrib scikit-learn skl2onnx
    python forest.py

The data are the breast cancer cases of Wisconsin that scikit-learn ships: 30 measurements of a cell sample,
benign or malignant. The owner of a sample sees the answer; the owner of the forest sees neither.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import skl2onnx
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

import fhe_core

TREES, DEPTH = 10, 2
ENCRYPTED_SAMPLES = 2


def main() -> None:
    data = load_breast_cancer()
    x_train, x_test, y_train, y_test = train_test_split(
        data.data.astype(np.float32), data.target, test_size=0.3, random_state=0
    )

    forest = RandomForestClassifier(TREES, max_depth=DEPTH, random_state=0)
    forest.fit(x_train, y_train)
    onnx_model = exported(forest, x_train)
    print(fhe_core.check(onnx_model), end="\n\n")

    # There are no widths to choose: the client compares with the forest's thresholds, exactly. The training
    # data only say which inputs to expect.
    qm = fhe_core.compile(onnx_model, x_train)
    print(f"{TREES} trees of depth {DEPTH}: {qm.cost.pbs_count} look-ups, ", end="")
    print(f"complexity {qm.cost.complexity:.2g}")
    for notice in qm.notices:
        print("note:", notice)

    labels, _ = qm.forward(x_test)
    as_float = np.mean(labels == fhe_core.NumpyModule(onnx_model)(x_test)[0])
    print(
        f"accuracy {np.mean(labels == y_test):.3f}; {as_float:.0%} of the labels are the float forest's"
    )

    with tempfile.TemporaryDirectory() as folder:
        qm.save(folder)
        found = encrypted(Path(folder), x_test[:ENCRYPTED_SAMPLES])
    for label, truth in zip(found, y_test, strict=False):
        print(f"encrypted: {data.target_names[label]}, in truth {data.target_names[truth]}")


def exported(forest: RandomForestClassifier, x: Any) -> Any:
    """The forest as ONNX, with its probabilities as a tensor and not as a list of maps."""
    options = {id(forest): {"zipmap": False}}
    return skl2onnx.to_onnx(forest, x[:1], target_opset={"": 17, "ai.onnx.ml": 3}, options=options)


def encrypted(folder: Path, samples: Any) -> list[int]:
    """The labels of samples: client and server share bytes alone."""
    client = fhe_core.load_client(folder / "client")
    server = fhe_core.load_server(folder / "server")
    start = time.perf_counter()
    client.keygen()
    evaluation_keys = client.evaluation_keys
    print(f"keys made once, in {time.perf_counter() - start:.0f} s")
    labels = []
    for sample in samples:
        start = time.perf_counter()
        answer = server.run(client.encrypt(sample[None]), evaluation_keys)
        label, _ = client.decrypt(answer)
        print(f"a sample took {time.perf_counter() - start:.1f} s")
        labels.append(int(label[0]))
    return labels


if __name__ == "__main__":
    main()
