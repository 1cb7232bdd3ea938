# tests/test_pack.py
import numpy as np
from fhe_core.testing import PackSuite, Sample

rng = np.random.default_rng(seed=0)


def recording():
    return rng.uniform(-1, 1, size=(64, 8)).astype(np.float32)


class TestAudio(PackSuite):
    pack = "audio"

    def samples(self):
        x, y = recording(), recording()
        return {
            "MuLaw": [
                Sample(x, expected=np.sign(x) * np.log(1 + 255 * abs(x)) / np.log(256)),
                Sample(x, attributes={"mu": 100.0}, name="mu-100"),
            ],
            "Difference": [Sample(x, expected=np.diff(x))],
            "Mix": [
                Sample(x, y, expected=(x + y) / 2, name="two-recordings"),
                Sample(x, recording()[:1], constants=[1], name="constant"),
            ],
        }
