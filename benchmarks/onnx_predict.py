"""Predict a folder with plain ONNX Runtime, one image per run, decoded as in predict.py: a baseline of benchmarks/predict.py.

python benchmarks/onnx_predict.py INFER_DIR FOLDER
"""

import argparse
import sys
from pathlib import Path

import onnxruntime

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from zodiac.inference import export_folder, image_batches  # noqa: E402

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('infer')
    parser.add_argument('folder')
    args = parser.parse_args()
    manifest = export_folder.read_manifest(args.infer)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    model = f'{args.infer}/{manifest["name"]}.onnx'
    session = onnxruntime.InferenceSession(model, options, providers=['CPUExecutionProvider'])
    paths = sorted(str(path) for path in Path(args.folder).iterdir())
    for path, image in zip(paths, image_batches.read_indexed(paths, manifest['transform'], 1)):
        (probabilities,) = session.run(['probabilities'], {'image': image})
        print(f'{path}\t{probabilities.argmax()}')
