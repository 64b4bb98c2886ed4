"""The code behind the scripts, in sub-packages ("wings") without import cycles: see WINGS in tests/structure.py.

The docstring of a wing states its purpose, which wings it may import, and which module to read first.

No script contacts a host unless asked to. Two libraries would send telemetry when imported, so it is disabled here: ONNX Runtime (from
1.29) and OpenVINO.
"""

import os
import sys

os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')
sys.modules.setdefault('openvino_telemetry', None)  # as if not installed: OpenVINO then uses a stub that sends nothing
