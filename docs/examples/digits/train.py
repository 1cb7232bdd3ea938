"""Train the classifier of the demo; write `digits_mlp.onnx` and `digits.npz` beside this file.

The data are the UCI handwritten digits that scikit-learn ships: 1,797 grey images of 8 x 8 pixels.
Both files are committed, so that the demo needs neither this script nor the training.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

HERE = Path(__file__).resolve().parent
SEED = 0
HELD_OUT = 450  # for each of calibration and test; training sees neither, so that both are honest


def main() -> None:
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # the order of additions, and so the weights, depend on it

    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)  # grey levels 0..16 to 0..1
    x_train, x_test, y_train, y_test = train_test_split(
        images, labels, test_size=HELD_OUT, stratify=labels, random_state=SEED
    )
    x_train, x_calib, y_train, y_calib = train_test_split(
        x_train, y_train, test_size=HELD_OUT, stratify=y_train, random_state=SEED
    )

    net = nn.Sequential(
        nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)
    )
    train(net, torch.from_numpy(x_train), torch.from_numpy(y_train))

    with torch.no_grad():
        predictions = net(torch.from_numpy(x_test)).argmax(dim=1).numpy()
    print(f"accuracy on {len(y_test)} held-out images: {np.mean(predictions == y_test):.3f}")

    torch.onnx.export(
        net.eval(),
        (torch.zeros(1, 64),),
        HERE / "digits_mlp.onnx",
        input_names=["pixels"],
        output_names=["scores"],
        dynamic_axes={"pixels": {0: "batch"}, "scores": {0: "batch"}},
        opset_version=17,
        dynamo=False,  # the newer exporter needs onnxscript
    )
    np.savez_compressed(
        HERE / "digits.npz",
        x_calib=x_calib,
        y_calib=y_calib,
        x_test=x_test,
        y_test=y_test,
    )


def train(net: nn.Module, x: torch.Tensor, y: torch.Tensor, epochs: int = 120) -> None:
    """Adam with weight decay: smaller weights make narrower accumulators, which are cheaper."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.1)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
            optimizer.step()


if __name__ == "__main__":
    main()
