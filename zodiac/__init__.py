"""The rooms behind the scripts: each module has one job and imports only the modules it needs.

No script calls a host unasked. Two libraries would, unless told otherwise before they are imported: ONNX Runtime (from 1.29) reports its
use to its maker and keeps an identifier, OpenVINO reports each import.
"""

import os
import sys

os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')
sys.modules.setdefault('openvino_telemetry', None)  # as if not installed: OpenVINO has a stand-in that sends nothing
