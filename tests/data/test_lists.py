"""Lists of images (annotate.list), as the tools write them: what each kind gives, and one line for what is wrong with one."""

import json
import os
import sys
from pathlib import Path

import pytest
from conftest import make_tree, picture

import annotate
from zodiac.base.errors import UserError
from zodiac.data import entry
from zodiac.data.listed import scan_list

ANIMALS = {'a/1.jpg': 'cat', 'a/2.jpg': 'cat', 'b/3.jpg': 'dog', 'b/4.jpg': 'dog'}


@pytest.fixture
def put(workdir):
    """Write a list, as text or JSON, and empty files for the images that it may name."""

    def write(content, path='photos.csv', encoding='utf-8', images=ANIMALS, below=''):
        for image in images:
            Path(below, image).parent.mkdir(parents=True, exist_ok=True)
            Path(below, image).touch()
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(content, (str, bytes)):
            content = json.dumps(content, ensure_ascii=False)
        Path(path).write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        return path

    return write


def read(path, root='out', labels='auto', unknown='stop', say=lambda line: None):
    return scan_list(str(path), root, labels, unknown, say)


def listed(path, **how):
    """{path: label}"""
    return {one.path: one.label for one in read(path, **how).entries}


def divided(tree):
    """{split: paths}"""
    return {split: [one.path for one in tree.entries if one.split == split] for split in ('train', 'valid', 'test')}


def refusal(path, **how):
    with pytest.raises(UserError) as caught:
        read(path, **how)
    message = str(caught.value)
    assert '\n' not in message and str(path) in message
    return message


def rows(separator=',', header=('path', 'label'), end='\n'):
    lines = [header] if header else []
    return ''.join(separator.join(line) + end for line in [*lines, *ANIMALS.items()])


# --- CSV and TSV


@pytest.mark.parametrize('separator', [',', '\t', ';', '|'])
@pytest.mark.parametrize('header', [('path', 'label'), ('Image Path', 'species'), ('文件名', '类别'), None])
def test_a_table_by_its_header_or_without_one(put, separator, header):
    assert listed(put(rows(separator, header))) == ANIMALS


def test_what_the_columns_were_taken_for_is_said(put):
    said = []
    text = 'id,file name,breed,age\n1,a/1.jpg,cat,3\n2,b/3.jpg,dog,4\n'
    assert listed(put(text), say=said.append) == {'a/1.jpg': 'cat', 'b/3.jpg': 'dog'}
    assert said == ['photos.csv: read as a table', 'photos.csv: path = file name, label = breed; not used: id, age']
    assert listed(put('cat,a/1.jpg\ndog,b/3.jpg\n'), say=said.append) == {'a/1.jpg': 'cat', 'b/3.jpg': 'dog'}
    assert said[3:] == ['photos.csv: no header; path = column 2, label = column 1']


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le', 'utf-16-be', 'gbk'])
@pytest.mark.parametrize('end', ['\n', '\r\n'])
def test_every_encoding_and_line_end_gives_the_same_rows(put, encoding, end):
    images = ['照片/猫 1.jpg', '照片/狗,2.jpg']
    said = []
    text = end.join(['path,label', '照片/猫 1.jpg,猫', '"照片/狗,2.jpg","狗"', ''])
    assert listed(put(text, encoding=encoding, images=images), say=said.append) == dict(zip(images, ['猫', '狗']))
    assert said[0].endswith('in GBK') == (encoding == 'gbk')


def test_splits_and_groups_are_columns(put):
    lines = ['a/1.jpg,cat,Train,x', 'a/2.jpg,cat,val,y', 'b/3.jpg,dog,train,x', 'b/4.jpg,dog,test,']
    tree = read(put('\n'.join(['path,label,split,video', *lines])))
    assert divided(tree) == {'train': ['a/1.jpg', 'b/3.jpg'], 'valid': ['a/2.jpg'], 'test': ['b/4.jpg']}
    assert tree.given_splits == dict.fromkeys(['train', 'valid', 'test'], 'photos.csv')
    assert [one.group for one in tree.entries] == ['x', 'y', 'x', '']
    without = read(put('a/1.jpg,cat,train\nb/3.jpg,dog,train\n'))
    assert list(without.given_splits) == ['train']


@pytest.mark.parametrize('spelled', ['relative', 'dot', 'backslash', 'whole', 'url'])
def test_a_path_is_listed_relative_to_the_working_directory_however_it_is_written(put, workdir, spelled):
    write = {
        'relative': str,
        'dot': './{}'.format,
        'backslash': lambda path: path.replace('/', '\\'),
        'whole': f'{workdir}/set/{{}}'.format,
        'url': f'file://{workdir}/set/{{}}'.format,
    }[spelled]
    text = ''.join(f'{write(path)},{label}\n' for path, label in ANIMALS.items())
    path = put(text, 'set/photos.csv', below='set')
    assert listed(path) == {f'set/{path}': label for path, label in ANIMALS.items()}


def test_paths_begin_in_the_folder_of_the_list_or_in_data_root_or_here(put):
    said = []
    assert listed(put(rows(), 'lists/photos.csv', below='images'), root='images', say=said.append) == {
        f'images/{path}': label for path, label in ANIMALS.items()
    }
    assert said[-1] == 'lists/photos.csv: the paths begin in images'
    assert listed(put(rows(), 'lists/photos.csv')) == ANIMALS
    put('', 'lists/x', below='lists')
    assert listed('lists/photos.csv') == {f'lists/{path}': label for path, label in ANIMALS.items()}


def test_a_path_to_another_folder_of_the_working_directory_is_followed_and_one_that_leaves_it_is_not(put, workdir):
    text = 'path,label\n../a/1.jpg,cat\n../b/3.jpg,dog\n'
    assert listed(put(text, 'lists/photos.csv')) == {'a/1.jpg': 'cat', 'b/3.jpg': 'dog'}
    message = refusal(put(text + '../../b/4.jpg,dog\n', 'lists/photos.csv'))
    assert message.startswith('lists/photos.csv, line 4: ../../b/4.jpg leaves the folders')


def test_labels_are_sorted_and_nfc_and_a_class_list_in_the_settings_is_kept(put):
    assert read(put(rows())).labels == ['cat', 'dog']
    assert read(put(rows()), labels=['dog', 'ox', 'cat']).labels == ['dog', 'ox', 'cat']
    text = 'a/1.jpg,cafe\u0301\na/2.jpg,caf\u00e9\nb/3.jpg,dog\n'
    assert read(put(text)).labels == ['caf\u00e9', 'dog']


def test_numbers_as_labels_come_in_the_order_of_their_value(put):
    images = {f'{number}.jpg': str(number % 11) for number in range(22)}
    text = 'path,label\n' + ''.join(f'{path},{label}\n' for path, label in images.items())
    assert read(put(text, images=images)).labels == [str(number) for number in range(11)]


def test_a_row_that_comes_twice_is_kept_once_and_said(put):
    said = []
    assert listed(put(rows() + './a/1.jpg,cat\n'), say=said.append) == ANIMALS
    assert said[-1] == 'photos.csv: 1 repeated row kept once'


BROKEN = {
    'empty': ('', 'the list is empty'),
    'blank': ('\n \n', 'the list is empty'),
    'header only': ('path,label\n', 'lists no images'),
    'one column': ('path\na/1.jpg\n', 'line 1: one column'),
    'spaces': ('a/1.jpg cat\nb/3.jpg dog\n', 'line 1: one column'),
    'no label column': ('path,age\na/1.jpg,3\n', 'line 1: no column label among'),
    'one column per class': ('path,cat,dog,ox\na/1.jpg,1,0,0\na/2.jpg,0,1,0\n', 'one column per class; several labels'),
    'unclear columns': ('a/1.jpg,cat,3\nb/3.jpg,dog,4\n', 'line 1: 3 columns without a header'),
    'no path': (rows() + ',dog\n', 'line 6: no path'),
    'no label': (rows() + 'c.jpg,\n', '1 line has no label: line 6: c.jpg; add it, or set annotate.unknown_class=skip'),
    'two labels in columns': (rows() + 'a/1.jpg,cat,dog\n', 'line 6: 3 columns, but the first line has 2'),
    'two labels in a cell': (rows() + 'c.jpg,cat|dog\n', "line 6: 'cat|dog' joins several classes"),
    'too few columns': (rows() + 'a/1.jpg\n', 'line 6: 1 columns, but the first line has 2'),
    'two labels in lines': (
        rows() + 'a/1.jpg,dog\n',
        'line 6: a/1.jpg has the label dog, but cat in line 2; several labels',
    ),
    'unknown split': (
        'path,label,split\na/1.jpg,cat,best\n',
        "line 2: split 'best' is not one of train, valid (or val) and test",
    ),
    'split lacking': ('path,label,split\na/1.jpg,cat,train\nb/3.jpg,dog,\n', 'line 3: no split, but line 2 has one'),
    'no training': ('path,label,split\na/1.jpg,cat,val\nb/3.jpg,dog,val\n', 'there are valid images but no training'),
    'one class': ('path,label\na/1.jpg,cat\n', 'there is only one class, cat'),
    'look alikes': ('path,label\na/1.jpg,cat\na/2.jpg,Cat\n', 'the classes Cat (line 3) and cat (line 2) differ only'),
    'slash': ('path,label\na/1.jpg,cat/dog\n', "line 2: 'cat/dog' cannot be the name of a class"),
    'address': ('path,label\nhttps://x.org/1.jpg,cat\n', 'line 2: https://x.org/1.jpg is an address; download'),
    'open quote': (rows() + '"a/1.jpg,cat\n', 'line 6: cannot be read'),
    'huge field': (rows() + 'x' * 200_000 + ',cat\n', 'line 6: cannot be read'),
    'zero byte': (rows() + 'a\0.jpg,cat\n', 'line 6: has a NUL byte'),
    'mixed encodings': (
        rows().encode() + '猫.jpg,cat\n'.encode() + '狗.jpg,dog\n'.encode('gbk'),
        'line 6 is UTF-8, line 7 is not',
    ),
    'no encoding': (rows().encode() + b'caf\xe9,cat\n', 'line 6: is neither UTF-8 nor GBK'),
    'half utf-16': (rows().encode('utf-16')[:-1], 'is not text in UTF-16'),
    'missing files': (
        rows() + ''.join(f'{n}.jpg,cat\n' for n in range(5)),
        '5 files do not exist: line 6: 0.jpg, line 7: 1.jpg, line 8: 2.jpg, ...',
    ),
    'all missing': ('path,label\nx.jpg,cat\n', '1 file does not exist: line 2: x.jpg; set data.root to the folder'),
}


@pytest.mark.parametrize('name', BROKEN)
def test_what_is_wrong_with_a_table_is_said_with_its_line(put, name):
    content, words = BROKEN[name]
    images = [*ANIMALS, 'c.jpg'] if 'label' in name else ANIMALS
    message = refusal(put(content, images=images))
    assert words in message
    assert not Path('out').exists()


def test_a_list_that_is_a_folder_or_does_not_exist(workdir):
    Path('a').mkdir()
    assert 'is a folder; set data.root' in refusal('a')
    assert 'no such file; set annotate.list' in refusal('b.csv')


def test_a_class_that_the_settings_do_not_name_stops_or_is_skipped(put):
    path = put(rows() + 'c.jpg,cta\nd.jpg,\ne.jpg,dog\n', images=[*ANIMALS, 'c.jpg', 'd.jpg'])
    assert refusal(path, labels=['cat', 'dog']).startswith('photos.csv: 1 file does not exist: line 8: e.jpg')
    path = put(rows() + 'c.jpg,cta\n', images=[*ANIMALS, 'c.jpg'])
    message = refusal(path, labels=['cat', 'dog'])
    assert '1 line has a class that is not in data.labels: line 6: c.jpg (cta); did you mean cat?' in message
    tree = read(put(rows() + 'c.jpg,cta\nd.jpg,\ne.jpg,dog\n'), labels=['cat', 'dog'], unknown='skip')
    assert tree.stray == ['photos.csv, line 7: d.jpg', 'photos.csv, line 6: c.jpg (cta)']
    assert [(e.path, e.verdict.reason) for e in tree.entries if e.verdict.reason != 'not read'] == [
        ('e.jpg', 'no such file')
    ]


def test_a_class_may_have_a_comma_in_its_name_if_no_other_class_is_a_part_of_it(put):
    text = 'path,label\na/1.jpg,"tench, Tinca tinca"\nb/3.jpg,"crane, bird"\n'
    assert read(put(text)).labels == ['crane, bird', 'tench, Tinca tinca']
    text += 'b/4.jpg,crane\n'
    assert 'joins several classes, such as crane' in refusal(put(text))
    labels = ['crane', 'crane, bird', 'tench, Tinca tinca']
    assert read(put(text), labels=labels).labels == labels


# --- PaddleClas and PaddleX


def numbered(images, separator=' '):
    return ''.join(f'{path}{separator}{["cat", "dog"].index(label)}\n' for path, label in images.items())


HALVES = [dict(list(ANIMALS.items())[::2]), dict(list(ANIMALS.items())[1::2])]


@pytest.mark.parametrize('separator', [' ', '\t'])
@pytest.mark.parametrize(
    ('names', 'label_file', 'text'),
    [
        (('train_list.txt', 'val_list.txt'), 'labels.txt', 'cat\ndog\n'),
        (('train.txt', 'val.txt'), 'label.txt', '0 cat\n1 dog\n'),
        (('train_list.txt', 'test_list.txt'), 'animals_label_list.txt', '0 cat\n1 dog\n'),
    ],
    ids=['PaddleX 2', 'PaddleX 3', 'PaddleClas'],
)
def test_lists_with_numbers_and_a_label_file(put, separator, names, label_file, text):
    put(text, f'set/{label_file}')
    for name, images in zip(names, HALVES):
        put(numbered(images, separator), f'set/{name}', below='set')
    for name in names:
        tree = read(f'set/{name}')
        assert tree.labels == ['cat', 'dog'] and {one.path: one.label for one in tree.entries} == {
            f'set/{path}': label for path, label in ANIMALS.items()
        }
        other = 'test' if 'test' in names[1] else 'valid'
        assert tree.given_splits == {'train': f'set/{names[0]}', other: f'set/{names[1]}'}


def test_classes_keep_the_order_of_their_numbers_without_those_that_have_no_images(put):
    said = []
    put('dog\nox\ncat and kitten\n', 'labels.txt')
    tree = read(put('a/1.jpg 2\nb/3.jpg 0\n', 'list.txt'), say=said.append)
    assert tree.labels == ['dog', 'cat and kitten'] and tree.given_splits == {}
    assert said[1:] == ['labels.txt: the names of the classes', 'list.txt: no images of ox: left out of the classes']


def test_an_empty_list_of_a_split_and_one_of_another_kind_are_not_read(put):
    said = []
    put('cat\ndog\n', 'labels.txt')
    put(numbered(ANIMALS), 'train_list.txt')
    put('', 'test_list.txt')
    put('a/1.jpg,cat\n', 'val_list.txt')
    assert read('train_list.txt', say=said.append).given_splits == {}
    assert said[1] == 'val_list.txt: not read, it is not a list of the same kind'


def test_a_tsv_with_a_header_and_numbers_is_a_table(put):
    assert read(put('path\tlabel\n' + numbered(ANIMALS, '\t'))).labels == ['0', '1']


def test_without_a_label_file_numbers_are_those_of_data_labels_or_names(put):
    path = put(numbered(ANIMALS), 'list.txt')
    assert listed(path, labels=['cat', 'dog']) == ANIMALS
    assert read(path).labels == ['0', '1']


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        ('a/1.jpg 0\nb/3.jpg 2\n', 'line 2: there is no class 2; the classes have the numbers 0 to 1'),
        (
            'a/1.jpg 0\na/2.jpg 0\nb/3.jpg dog\n',
            "line 3: 'b/3.jpg dog' is not a path, a space and the number of a class",
        ),
        ('a/1.jpg\t0,1\nb/3.jpg\t1,0\n', 'line 1: labels 0,1; several labels per image'),
        ('a/1.jpg 0\na/1.jpg 1\n', 'line 2: a/1.jpg has the label dog, but cat in line 1'),
    ],
)
def test_what_is_wrong_with_a_numbered_list_is_said_with_its_line(put, content, words):
    put('cat\ndog\n', 'labels.txt')
    assert words in refusal(put(content, 'list.txt'))


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('0 cat\n0 dog\n', 'the number 0 has two names'),
        ('cat\ncat\n', 'cat comes twice'),
        ('cat\n\ndog\n', 'line 2: no name'),
    ],
)
def test_what_is_wrong_with_a_label_file_is_said(put, text, words):
    put(text, 'labels.txt')
    with pytest.raises(UserError, match=f'^labels.txt.*{words}'):
        read(put(numbered(ANIMALS), 'list.txt'))


def test_an_image_in_two_lists_is_refused_with_both(put):
    put('cat\ndog\n', 'labels.txt')
    put('a/1.jpg 0\nb/3.jpg 1\n', 'train_list.txt')
    put('b/4.jpg 1\na/1.jpg 0\n', 'val_list.txt')
    with pytest.raises(
        UserError, match='val_list.txt, line 2: a/1.jpg has the split valid, but train in train_list.txt, line 1'
    ):
        read('train_list.txt')


def test_a_list_that_the_index_would_replace_is_refused(put):
    path = put(numbered(ANIMALS), 'set/train.txt', below='set')
    assert 'would replace the list by its own train.txt' in refusal(path, root='set')
    assert len(read(path, root='index').entries) == 4


# --- COCO


def coco(images=ANIMALS, extra=(), **more):
    ids = {path: number for number, path in enumerate(images, 7)}
    return {
        'info': {},
        'images': [{'id': number, 'file_name': path, 'width': 4, 'height': 4} for path, number in ids.items()],
        'categories': [{'id': 3, 'name': 'dog', 'supercategory': ''}, {'id': 1, 'name': 'cat', 'supercategory': ''}],
        'annotations': [
            {
                'id': number,
                'image_id': ids.get(path, 99),
                'category_id': {'cat': 1, 'dog': 3}.get(label, 5),
                'bbox': [0, 0, 1, 1],
            }
            for number, (path, label) in enumerate([*images.items(), *extra], 1)
        ],
        **more,
    }


def test_coco_with_one_category_per_image(put):
    content = coco(extra=[('a/1.jpg', 'cat')])  # two boxes of one class
    assert listed(put(content, 'instances.json')) == ANIMALS
    assert read('instances.json').labels == ['cat', 'dog']


def test_coco_lists_of_splits_beside_each_other(put):
    put(coco(HALVES[0]), 'annotations/instances_train2017.json', below='annotations')
    put(coco(HALVES[1]), 'annotations/instances_val2017.json', below='annotations')
    tree = read('annotations/instances_train2017.json')
    assert [len(paths) for paths in divided(tree).values()] == [2, 2, 0]


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (coco(extra=[('a/1.jpg', 'dog')]), 'annotation 5: a/1.jpg is dog, before it was cat; several labels per image'),
        (coco(extra=[('x.jpg', 'dog')]), 'annotation 5: there is no image with the id 99'),
        (coco(extra=[('a/1.jpg', 'ox')]), 'annotation 5: there is no category with the id 5'),
        (coco(annotations=[]), '4 images have no label: image 1: a/1.jpg, image 2: a/2.jpg, image 3: b/3.jpg, ...'),
        ({**coco(), 'images': [{'id': 1}]}, "is not as COCO defines it (KeyError: 'file_name')"),
        ({**coco(), 'images': 3}, 'is not as COCO defines it'),
        ({'shapes': []}, 'is JSON, but neither of COCO'),
        (json.dumps(coco())[:-80], 'line 1: is not valid JSON'),
        ('[' * 100_000, 'is not'),
        ('[' + '1' * 5000 + ']', 'is'),
    ],
)
def test_what_is_wrong_with_coco_is_said(put, content, words):
    assert words in refusal(put(content, 'instances.json', images=[*ANIMALS, 'x.jpg'] if content else ANIMALS))


# --- Label Studio


def task(number, path, *choices, kind='choices', cancelled=False):
    result = (
        [{'from_name': 'choice', 'to_name': 'image', 'type': kind, 'value': {kind: list(choices)}}] if choices else []
    )
    annotation = {'id': number, 'was_cancelled': cancelled, 'ground_truth': False, 'result': result, 'task': number}
    return {'id': number, 'annotations': [annotation], 'file_upload': 'x', 'data': {'image': path}, 'predictions': []}


def tasks(write='{}'.format):
    return [task(number, write(path), label) for number, (path, label) in enumerate(ANIMALS.items(), 40)]


def test_label_studio_json_and_json_min(put):
    assert listed(put(tasks(), 'project.json')) == ANIMALS
    least = [
        {
            'image': path,
            'id': 4,
            'choice': label,
            'annotator': 1,
            'annotation_id': 2,
            'created_at': '',
            'lead_time': 2.5,
        }
        for path, label in ANIMALS.items()
    ]
    assert listed(put(least, 'project.json')) == ANIMALS
    own = [{('animal' if key == 'choice' else key): value for key, value in one.items()} for one in least]
    assert listed(put(own, 'project.json')) == ANIMALS


@pytest.mark.parametrize(
    ('write', 'images'),
    [
        ('/data/local-files/?d=photos/{}'.format, 'photos/'),
        ('/data/local-files/?d=home%2Fme%2Fphotos/{}'.format, ''),
        (lambda path: f'/data/upload/1/{path.replace("/", "_")}', 'upload/1/'),
        (lambda path: f'/data/upload/1/0a1b2c3d-{path.replace("/", "_")}', 'uploaded/0a1b2c3d-'),
        (lambda path: f'/data/upload/1/0a1b2c3d-{path.replace("/", "_")}', 'uploaded/'),
    ],
    ids=['local', 'local, encoded', 'upload', 'upload with prefix', 'upload of the original'],
)
def test_addresses_of_label_studio_are_found_among_the_files(put, write, images):
    flat = 'upload' in images
    names = [images + (path.replace('/', '_') if flat else path) for path in ANIMALS]
    path = put(tasks(write), 'project.json', images=names)
    assert listed(path, root='uploaded') == dict(zip(names, ANIMALS.values()))


def test_spaces_and_chinese_characters_are_encoded_in_addresses(put):
    content = [task(1, '/data/local-files/?d=%E7%8C%AB%201.jpg', 'cat'), task(2, '/data/local-files/?d=2.jpg', 'dog')]
    assert listed(put(content, 'project.json', images=['猫 1.jpg', '2.jpg'])) == {'猫 1.jpg': 'cat', '2.jpg': 'dog'}


def test_annotators_who_agree_are_one_and_those_who_do_not_are_refused(put):
    content = tasks()
    content[0]['annotations'] += [
        *task(1, '', 'cat')['annotations'],
        *task(1, '', 'dog', cancelled=True)['annotations'],
    ]
    assert listed(put(content, 'project.json')) == ANIMALS
    content[0]['annotations'] += task(1, '', 'dog')['annotations']
    assert 'task 1 (id 40): cat, dog; several labels per image' in refusal(put(content, 'project.json'))


@pytest.mark.parametrize(
    ('bad', 'words'),
    [
        (task(9, 'x.jpg', 'cat', 'dog'), 'task 5 (id 9): cat, dog; several labels per image are not supported'),
        (task(9, 'x.jpg'), '1 task has no label: task 5: x.jpg; add it, or set annotate.unknown_class=skip'),
        (task(9, 'x.jpg', 'cat', cancelled=True), '1 task has no label: task 5: x.jpg'),
        (task(9, 'x.jpg', 'cat', kind='rectanglelabels'), '1 task has no label: task 5: x.jpg'),
        ({'id': 9, 'data': {'text': 3}, 'annotations': []}, 'task 5 (id 9): no path of an image in text'),
        ({**task(9, 'x.jpg'), 'annotations': [{'result': [{'type': 'choices'}]}]}, 'is not as Label Studio writes it'),
        ({'image': 'x.jpg', 'choice': {'choices': ['cat', 'dog']}}, 'task 5: cat, dog; several labels per image'),
        (3, 'is JSON, but neither of COCO'),
    ],
)
def test_what_is_wrong_with_a_task_is_said(put, bad, words):
    path = put([*tasks(), bad], 'project.json', images=[*ANIMALS, 'x.jpg'])
    assert words in refusal(path)
    if 'no label' in words:
        assert listed(path, unknown='skip') == ANIMALS


# --- through annotate.py


def photos(count=12):
    """Draw images, and return {path: label}."""
    found = {}
    for number in range(count):
        path = f'照片/photo {number}.jpg'
        Path('照片').mkdir(exist_ok=True)
        picture(number).save(path)
        found[path] = '猫' if number % 2 else '狗'
    return found


@pytest.fixture
def run(workdir, monkeypatch):
    """Call annotate.py's main; returns annotation.json."""
    monkeypatch.setattr(entry, 'SETTLED', 0)  # the files of these tests are new

    def call(*overrides, root='out'):
        settings = [f'data.root={root}', 'data.labels=auto', *overrides]
        monkeypatch.setattr(sys, 'argv', ['annotate.py', '-o', *settings])
        annotate.main()
        return json.loads(Path(root, 'annotation.json').read_text(encoding='utf-8'))

    return call


def index(root='out'):
    """{split: {path: class number}}"""
    return {
        split: dict(line.split('\t') for line in Path(root, f'{split}.txt').read_text(encoding='utf-8').splitlines())
        for split in ('train', 'valid', 'test')
    }


def table(images, *columns):
    lines = [','.join(row) for row in zip(images, images.values(), *columns)]
    return '\n'.join([','.join(['path', 'label', *(['split'] if columns else [])]), *lines, ''])


def test_annotate_reads_a_list_and_keeps_what_it_knows(run, put, capsys):
    images = photos()
    put(table(images), images=())
    summary = run('annotate.list=photos.csv')
    first = index()
    assert {path: '狗猫'[int(number)] for part in first.values() for path, number in part.items()} == images
    assert (
        summary['labels'] == ['狗', '猫'] and summary['accepted'] == 12 and summary['settings']['split_folders'] == {}
    )
    assert all(first.values()) and Path('out/splits.tsv').is_file() and not Path('照片/train.txt').exists()

    capsys.readouterr()
    assert run('annotate.list=photos.csv') == summary
    assert 'no file has changed since the last run' in capsys.readouterr().err

    picture(99).save('照片/photo 99.jpg')
    put(table({**dict(reversed(images.items())), '照片/photo 99.jpg': '猫'}), images=())
    run('annotate.list=photos.csv')
    second = index()
    assert all(first[split].items() <= second[split].items() for split in first)


def test_a_changed_label_or_split_in_a_list_is_noticed(run, put):
    images = photos()
    splits = ['train', 'train', 'train', 'train', 'val', 'test'] * 2
    put(table(images, splits), images=())
    summary = run('annotate.list=photos.csv')
    assert summary['settings']['drawn_splits'] == []
    assert {split: list(part) for split, part in index().items()} == {
        'train': [path for path, split in zip(images, splits) if split == 'train'],
        'valid': [path for path, split in zip(images, splits) if split == 'val'],
        'test': [path for path, split in zip(images, splits) if split == 'test'],
    }
    name = '照片/photo 2.jpg'
    put(table({**images, name: '猫'}, splits), images=())
    run('annotate.list=photos.csv')
    assert index()['train'][name] == '1'


def test_an_image_of_a_list_that_cannot_be_used_is_left_out_like_any_other(run, put):
    images = photos()
    Path('照片/photo 3.jpg').write_bytes(b'no image')
    Path('照片/photo 5.jpg').unlink()
    put(table(images), images=())
    with pytest.raises(
        UserError, match=r'photos.csv: 1 file does not exist: line 7: 照片/photo 5.jpg; correct the list'
    ):
        run('annotate.list=photos.csv')
    assert not Path('out').exists()
    summary = run('annotate.list=photos.csv', 'annotate.unknown_class=skip')
    reasons = {item['path']: (item['reason'], item['detail']) for item in summary['rejected']}
    assert reasons['照片/photo 5.jpg'] == ('no such file', 'line 7 of photos.csv')
    assert len(reasons) == 2 and summary['accepted'] == 10


def test_images_in_two_folders_with_one_name_keep_their_results_apart(run, put):
    images = {}
    for folder in ('out/a', 'a'):
        for number in range(6):
            Path(folder).mkdir(parents=True, exist_ok=True)
            path = f'{folder}/{number}.jpg'
            picture(len(images), (40 + len(images), 40)).save(path)
            images[path] = f'class{number % 2}'
    put(table({f'{os.getcwd()}/{path}': label for path, label in images.items()}), images=())
    summary = run('annotate.list=photos.csv')
    picture(99, (99, 40)).save('out/a/0.jpg')  # so that the others come from the cache
    again = run('annotate.list=photos.csv', 'seed=1')
    assert summary['accepted'] == again['accepted'] == 12 and again['sizes']['different'] == 12
    assert {path for part in index().values() for path in part} == set(images)


@pytest.mark.parametrize('folders', [('train', 'val'), ('train', 'val', 'test'), ('train', 'test')])
def test_trees_of_ultralytics_and_torchvision_need_no_list(run, folders):
    make_tree('set', ['cat', 'dog'], dict.fromkeys(folders, 6))
    summary = run(root='set')
    assert list(summary['settings']['split_folders'].values()) == [f'set/{folder}' for folder in folders]
    assert all(index('set').values())
