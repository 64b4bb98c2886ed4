"""Read JSON lists of images: COCO, and Label Studio's exports JSON and JSON-MIN."""

from zodiac.base.errors import UserError
from zodiac.data.list_source import COLUMNS, IMAGE, SEVERAL, Row, plain

ABOUT_A_TASK = (
    'id',
    'annotation_id',
    'annotator',
    'created_at',
    'updated_at',
    'lead_time',
)  # Label Studio's own fields


def is_coco(source):
    return isinstance(source.content, dict) and {'images', 'annotations', 'categories'} <= {*source.content}


def coco_rows(source, names, say):
    content, path = source.content, source.path
    try:
        categories = {category['id']: str(category['name']) for category in content['categories']}
        images = {
            image['id']: [number, str(image['file_name']), ''] for number, image in enumerate(content['images'], 1)
        }
        if len(images) < len(content['images']):
            raise UserError(f'{path}: two images have the same id')
        for number, annotation in enumerate(content['annotations'], 1):
            where, image = f'{path}, annotation {number}', images.get(annotation['image_id'])
            label = categories.get(annotation['category_id'])
            if image is None:
                raise UserError(
                    f'{where}: there is no image with the id {annotation["image_id"]}; export the list again'
                )
            if label is None:
                raise UserError(
                    f'{where}: there is no category with the id {annotation["category_id"]}; export the list again'
                )
            if image[2] not in ('', label):
                raise UserError(f'{where}: {image[1]} is {label}, before it was {image[2]}; {SEVERAL}')
            image[2] = label
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f'{path}: is not as COCO defines it ({type(error).__name__}: {error}); export the list again'
        ) from None
    return (Row(*image) for image in images.values())


def is_label_studio(source):
    content = source.content
    return isinstance(content, list) and bool(content) and all(isinstance(task, dict) for task in content)


def label_studio_rows(source, names, say):
    for number, task in enumerate(source.content, 1):
        where = f'{source.path}, task {number}'
        where += f' (id {task["id"]})' if 'id' in task else ''
        full = isinstance(task.get('data'), dict)
        data = task['data'] if full else {key: value for key, value in task.items() if key not in ABOUT_A_TASK}
        picture = _picture(data)
        if picture is None:
            raise UserError(f'{where}: no path of an image in {", ".join(map(str, data)) or "it"}')
        labels = _choices(task, where) if full else _chosen(data, picture)
        if len(labels) > 1:
            raise UserError(f'{where}: {", ".join(sorted(labels))}; {SEVERAL}')
        extra = {plain(str(key)): value for key, value in data.items() if isinstance(value, (str, int))}
        split, group = (
            next((str(extra[name]) for name in COLUMNS[what] if name in extra), '') for what in ('split', 'group')
        )
        yield Row(number, data[picture], next(iter(labels), ''), split, group)


def _picture(data):
    """The key of the image's path; None if there is none."""
    texts = [key for key, value in data.items() if isinstance(value, str)]
    known = [key for name in COLUMNS['path'] for key in texts if plain(str(key)) == name]
    looks = [key for key in texts if IMAGE.fullmatch(data[key].partition('?d=')[2] or data[key].partition('?')[0])]
    return next(iter([key for key in known if key in looks] + looks + known), None)


def _choices(task, where):
    """The labels of a task in JSON: those of all annotations that were not skipped."""
    labels = set()
    try:
        for annotation in task.get('annotations') or task.get('completions') or []:
            if not annotation.get('was_cancelled') and not annotation.get('skipped'):
                for result in annotation.get('result', []):
                    if result.get('type') == 'choices':
                        labels.update(str(choice).strip() for choice in result['value']['choices'])
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f'{where}: is not as Label Studio writes it ({type(error).__name__}: {error}); export it again'
        ) from None
    return labels


def _chosen(data, picture):
    """The labels of a task in JSON-MIN, or of any object with a path and a label."""
    fields = {plain(str(key)): value for key, value in data.items() if key != picture}
    own = next((name for name in COLUMNS['label'] if name in fields), None)
    left = [name for name in fields if name not in (*COLUMNS['split'], *COLUMNS['group'])]
    value = fields.get(own or (left[0] if len(left) == 1 else None))
    if isinstance(value, dict):
        value = value.get('choices')
    values = value if isinstance(value, list) else [value]
    return {str(one).strip() for one in values if isinstance(one, (str, int)) and str(one).strip()}
