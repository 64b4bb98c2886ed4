// From a photo to the input of the network, as zodiac/images/transforms.py prepares it: the same pixels as Pillow's.

const BITS = 22;  // of the fraction in Pillow's fixed-point weights
const STRIP = 1 << 20;  // pixels that are read at a time: some phones refuse a canvas of a whole photo

const KERNELS = {  // reach in old pixels where nothing shrinks, and the weight at a distance
  bilinear: [1, x => Math.max(0, 1 - x)],
  bicubic: [2, x => x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0],
};

// x rounded to a whole number, and 0.5 to the even one, as Python does.
function even(x) {
  const low = Math.floor(x);
  return x - low === 0.5 ? low + (low & 1) : Math.round(x);
}

// Where a step shows a photo: {box: [left, top, right, bottom] in the photo, size: [width, height] that it is scaled to, at: [x, y] of that
// in the result}.
export function frame(width, height, step) {
  const {size} = step;
  if (step.op === 'resize') return {box: [0, 0, width, height], size: [size, size], at: [0, 0]};
  if (step.op === 'pad') {
    const sides = [width, height].map(side => Math.max(1, even(side * size / Math.max(width, height))));
    return {box: [0, 0, width, height], size: sides, at: sides.map(side => Math.floor((size - side) / 2))};
  }
  const short = Math.min(width, height);
  const [w, h] = [width, height].map(side => Math.floor(step.resize * side / short));
  const left = even((w - size) / 2), top = even((h - size) / 2), x = width / w, y = height / h;
  const box = [left * x, top * y, Math.min((left + size) * x, width), Math.min((top + size) * y, height)];
  return {box, size: [size, size], at: [0, 0]};
}

// For each of `count` new pixels between two places of a row of `length`: {first: old pixel, weights: of it and of those after it}.
function taps(length, start, stop, count, [reach, kernel]) {
  [start, stop] = [Math.fround(start), Math.fround(stop)];
  const step = Math.fround(stop - start) / count, wide = Math.max(step, 1), narrow = 1 / wide;  // wide: antialiasing
  return Array.from({length: count}, (_, number) => {
    const middle = start + (number + 0.5) * step;
    const first = Math.max(0, Math.trunc(middle - reach * wide + 0.5));
    const last = Math.min(length, Math.trunc(middle + reach * wide + 0.5));
    const exact = Array.from({length: last - first}, (_, i) => kernel(Math.abs((first + i - middle + 0.5) * narrow)));
    const sum = exact.reduce((all, weight) => all + weight, 0);
    const weights = Int32Array.from(exact, weight => {
      const scaled = weight / sum * (1 << BITS);
      return Math.trunc(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
    });
    return {first, weights};
  });
}

// The part `box` of a photo scaled to width x height: Uint8ClampedArray of RGB.
// read(left, top, width, height) gives pixels of the photo, RGBA.
export function scale(read, shape, box, [width, height], interpolation) {
  const kernel = KERNELS[interpolation ?? 'bilinear'];
  const columns = taps(shape[0], box[0], box[2], width, kernel), rows = taps(shape[1], box[1], box[3], height, kernel);
  const from = range(columns), down = range(rows);
  const half = new Uint8ClampedArray(down.length * width * 3), result = new Uint8ClampedArray(height * width * 3);
  const most = Math.max(1, Math.floor(STRIP / from.length)), stride = 4 * from.length;
  for (let top = 0; top < down.length; top += most) {
    const count = Math.min(most, down.length - top), strip = read(from.first, down.first + top, from.length, count);
    for (let y = 0; y < count; y++) {
      for (let x = 0, to = (top + y) * width * 3; x < width; x++) {
        const {first, weights} = columns[x];
        let at = y * stride + 4 * (first - from.first), red = 1 << BITS - 1, green = red, blue = red;
        for (let i = 0; i < weights.length; i++, at += 4) {
          red += weights[i] * strip[at];
          green += weights[i] * strip[at + 1];
          blue += weights[i] * strip[at + 2];
        }
        half[to++] = red >> BITS;
        half[to++] = green >> BITS;
        half[to++] = blue >> BITS;
      }
    }
  }
  for (let y = 0; y < height; y++) {
    const {first, weights} = rows[y];
    for (let x = 0; x < width * 3; x++) {
      let at = (first - down.first) * width * 3 + x, sum = 1 << BITS - 1;
      for (let i = 0; i < weights.length; i++, at += width * 3) sum += weights[i] * half[at];
      result[y * width * 3 + x] = sum >> BITS;
    }
  }
  return result;
}

// The old pixels that taps use, in one dimension.
function range(all) {
  const first = all[0].first, last = all[all.length - 1];
  return {first, length: last.first + last.weights.length - first};
}

// A function as `scale` needs it, for a bitmap; what is transparent is put on white.
function reader(bitmap) {
  let canvas, ink;
  return (left, top, width, height) => {
    if (canvas?.width !== width || canvas.height !== height) {
      canvas = new OffscreenCanvas(width, height);
      ink = canvas.getContext('2d', {alpha: false, willReadFrequently: true});
    }
    ink.fillStyle = '#fff';
    ink.fillRect(0, 0, width, height);
    ink.drawImage(bitmap, -left, -top);
    return ink.getImageData(0, 0, width, height).data;
  };
}

// The pixels of a photo after a step of scaling, Uint8ClampedArray of RGB, size x size.
export function scaled(bitmap, step) {
  const shape = [bitmap.width, bitmap.height], {box, size, at} = frame(...shape, step);
  const pixels = scale(reader(bitmap), shape, box, size, step.interpolation);
  if (step.op !== 'pad') return pixels;
  const whole = new Uint8ClampedArray(step.size * step.size * 3), row = size[0] * 3;
  for (let i = 0; i < whole.length; i++) whole[i] = step.fill[i % 3];
  for (let y = 0; y < size[1]; y++) whole.set(pixels.subarray(y * row, (y + 1) * row), ((at[1] + y) * step.size + at[0]) * 3);
  return whole;
}

// RGB pixels as normalised planes, Float32Array [3, size, size].
export function normalize(pixels, {mean, std}) {
  const count = pixels.length / 3, planes = new Float32Array(pixels.length);
  for (let c = 0; c < 3; c++) {
    const spread = Math.fround(std[c]);
    const factor = Math.fround(1 / Math.fround(255 * spread)), shift = Math.fround(Math.fround(mean[c]) / spread);
    for (let i = 0; i < count; i++) planes[c * count + i] = Math.fround(pixels[3 * i + c] * factor) - shift;
  }
  return planes;
}
