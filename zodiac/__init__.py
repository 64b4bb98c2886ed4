"""Image classification with PaddlePaddle. From Python: `zodiac.load` runs an exported model, `zodiac.run` makes one from photos.

The code behind the scripts is in sub-packages ("wings") without import cycles: see WINGS in tests/structure.py. The docstring of a wing
states its purpose, which wings it may import, and which module to read first.

No script contacts a host unless asked to. Two libraries would send telemetry when imported, so it is disabled here: ONNX Runtime (from
1.29) and OpenVINO.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # true for type checkers; to import it from typing would slow down every start
if TYPE_CHECKING:
    from typing import Any

    from zodiac.inference.classifier import Classifier

__version__ = '0.1.0'
__all__ = ['load', 'run']

os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')
sys.modules.setdefault('openvino_telemetry', None)  # as if not installed: OpenVINO then uses a stub that sends nothing


def load(
    run: str | os.PathLike[str], engine: str = 'auto', device: str = 'auto', precision: str = 'auto'
) -> Classifier:
    """Load the exported model of a run; see `zodiac.inference.classifier.load`."""
    from zodiac.inference import classifier  # imports NumPy and Pillow

    return classifier.load(run, engine, device, precision)


def run(photos: str | os.PathLike[str], **settings: Any) -> str:
    """Photos to a tested, exported model, as `zodiac run`.

    Args:
        photos: folder, archive or list of labelled photos.
        settings: by section or by dotted name: `train={'epochs': 3}`, `**{'train.epochs': 3}`.
    Returns: the folder of the run, for `load`. Raises UserError.
    """
    from zodiac.base import calls  # its module imports the scripts, and they Paddle

    return calls.load('run').run(os.fspath(photos), settings)
