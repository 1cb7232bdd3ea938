"""Classify handwritten digits under encryption: from the ONNX file to the decrypted answer."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

import fhe_core

HERE = Path(__file__).resolve().parent
MODEL = HERE / "digits_mlp.onnx"
ENCRYPTED_IMAGES = 5

console = Console(highlight=False, soft_wrap=False)


def main() -> None:
    start = time.perf_counter()
    with np.load(HERE / "digits.npz") as arrays:
        data = dict(arrays)

    heading("1. What the installed packs supply")
    show_packs()

    heading("2. Will this model compile?")
    console.print(str(fhe_core.check(MODEL)), markup=False)

    heading("3. Compile: the cheapest circuit within tolerance")
    qm = fhe_core.compile(
        MODEL, data["x_calib"], n_bits="auto", labels=data["y_calib"], progress=True
    )
    show_cost(qm)
    for notice in qm.notices:
        console.print(f"- {notice}", markup=False)

    heading(f"4. Accuracy on all {len(data['y_test'])} test images")
    show_accuracies(qm, data["x_test"], data["y_test"])

    heading(f"5. {ENCRYPTED_IMAGES} test images, encrypted, classified and decrypted")
    with tempfile.TemporaryDirectory() as folder:
        qm.save(folder)
        show_encrypted(Path(folder), data["x_test"], data["y_test"])

    console.print(f"\nThe whole demo took {time.perf_counter() - start:.0f} s.")


def heading(text: str) -> None:
    console.print(f"\n[bold]{text}[/bold]")


def show_packs() -> None:
    # The command line tool stands beside the interpreter that runs this.
    command = Path(sys.executable).with_name("fhe-ops")
    console.print("$ fhe-ops packs")
    sys.stdout.flush()
    subprocess.run([command, "packs"], check=True)

    supplied: dict[tuple[str, str], set[str]] = defaultdict(set)
    for spec in fhe_core.get_registry().ops():
        if spec.quantized_pack:
            supplied[spec.quantized_pack, spec.domain or "ai.onnx"].add(spec.op_type)
    for (pack, domain), ops in sorted(supplied.items()):
        console.print(
            f"\n{pack}, domain {domain}: {len(ops)} operators that run encrypted (fhe-ops list)"
        )
        console.print(", ".join(sorted(ops)))


def show_cost(qm: fhe_core.QuantizedModule) -> None:
    cost = qm.cost
    table = Table(box=box.SIMPLE_HEAD, show_header=False)
    table.add_row("complexity (Concrete's)", f"{cost.complexity:.3g}")
    table.add_row("table look-ups", f"{cost.pbs_count}")
    table.add_row("widest value", f"{cost.max_bit_width} bits")
    table.add_row("probability of error, a look-up", f"{cost.p_error:.2g}")
    table.add_row("probability of error, an image", f"{cost.global_p_error:.2g}")
    console.print(table)


def show_accuracies(qm: fhe_core.QuantizedModule, images: np.ndarray, truth: np.ndarray) -> None:
    net = fhe_core.NumpyModule(MODEL)
    readers = {
        "float model": lambda: net(images),
        "integers, in the clear": lambda: qm.forward(images, fhe="disable"),
        "integers, encryption simulated": lambda: qm.forward(images, fhe="simulate"),
    }
    table = Table("", "accuracy", "time", box=box.SIMPLE_HEAD)
    for name, read in readers.items():
        start = time.perf_counter()
        scores = read()
        seconds = time.perf_counter() - start
        accuracy = np.mean(scores.argmax(axis=1) == truth)
        table.add_row(name, f"{accuracy:.3f}", f"{seconds * 1e3:.1f} ms")
    console.print(table)


def show_encrypted(folder: Path, images: np.ndarray, truth: np.ndarray) -> None:
    """The deployment in one process: only bytes pass between client and server."""
    client = fhe_core.load_client(folder / "client")
    server = fhe_core.load_server(folder / "server")

    start = time.perf_counter()
    client.keygen()
    evaluation_keys = client.evaluation_keys
    console.print(
        f"keys made once in {time.perf_counter() - start:.1f} s; "
        f"{size(evaluation_keys)} of evaluation keys go to the server"
    )

    table = Table("image", "encrypt", "classify", "decrypt", "prediction", "truth")
    table.box = box.SIMPLE_HEAD
    for image, digit in zip(images[:ENCRYPTED_IMAGES], truth, strict=False):
        times = [time.perf_counter()]
        question = client.encrypt(image[None])
        times.append(time.perf_counter())
        answer = server.run(question, evaluation_keys)
        times.append(time.perf_counter())
        scores = client.decrypt(answer)
        times.append(time.perf_counter())
        encrypt, classify, decrypt = np.diff(times)
        prediction = int(np.argmax(scores))
        table.add_row(
            drawn(image),
            f"{encrypt * 1e3:.0f} ms\n{size(question)}",
            f"{classify:.2f} s",
            f"{decrypt * 1e3:.0f} ms\n{size(answer)}",
            f"{prediction}",
            f"{digit}" if prediction == digit else f"{digit} [bold red]missed[/]",
        )
    console.print(table)


def size(message: bytes) -> str:
    return f"{len(message) / 1e6:.1f} MB" if len(message) > 1e5 else f"{len(message) / 1e3:.1f} kB"


def drawn(image: np.ndarray) -> str:
    """Two rows of pixels a line, as half blocks, and an empty line below."""
    ink = image.reshape(4, 2, 8) > 0.4
    blocks = {(0, 0): " ", (1, 0): "▀", (0, 1): "▄", (1, 1): "█"}
    lines = ["".join(blocks[upper, lower] for upper, lower in pair.T) for pair in ink.astype(int)]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
