"""The notebook's annotation loop: the baseline of benchmarks/annotate.py.

python benchmarks/notebook_annotate.py DATA_ROOT LABEL,LABEL,...
"""

import argparse
import io
import os

from PIL import Image


def generate_annotation(root, mode, labels):
    with open(f'{root}/{mode}.txt', 'w', encoding='utf-8') as index:
        folder = f'{root}/{mode}'
        for label in os.listdir(folder):
            number = labels.index(label)
            for name in os.listdir(f'{folder}/{label}'):
                path = f'{folder}/{label}/{name}'
                try:
                    with open(path, 'rb') as file:
                        image = Image.open(io.BytesIO(file.read()))
                        image.load()
                        if image.mode == 'RGB':
                            index.write(f'{path}\t{number}\n')
                except Exception:
                    continue


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('root')
    parser.add_argument('labels', metavar='LABEL,LABEL,...')
    args = parser.parse_args()
    generate_annotation(args.root, 'train', args.labels.split(','))
