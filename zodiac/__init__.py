"""What is behind the scripts, in sub-packages ("wings") that import each other one way only: see WINGS in tests/structure.py.

A wing's docstring says its one job, what it may import, and which module to read first.

No script calls a host unasked. Two libraries would, unless told otherwise before they are imported: ONNX Runtime (from 1.29) reports its
use to its maker and keeps an identifier, OpenVINO reports each import.
"""

import os
import sys

os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')
sys.modules.setdefault('openvino_telemetry', None)  # as if not installed: OpenVINO has a stand-in that sends nothing
