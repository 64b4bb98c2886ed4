// What the outputs of the network say of a photo, as zodiac/inference/{exported_model,unknown,label_sets}.py do.

const TOP = 5;
const NEAREST = 5, REGULAR = 1, PENALTY = 0.01;  // of unknown.py and label_sets.py

export function softmax(logits) {
  const highest = Math.max(...logits), powers = Array.from(logits, logit => Math.exp(logit - highest));
  const sum = powers.reduce((all, power) => all + power, 0);
  return powers.map(power => power / sum);
}

// {top: [{label, probability}, ...], known, score, set}; the last three only with `unknown`, what model.json has under this name, with
// its arrays as `arrays`.
export function judge(labels, logits, features, unknown, arrays) {
  const probabilities = softmax(logits);
  const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
  const top = order.slice(0, TOP).map(number => ({label: labels[number], probability: probabilities[number]}));
  if (!unknown) return {top};
  const standard = similarities(features, unknown, arrays).map((value, i) => (value - unknown.center[i]) / unknown.spread[i]);
  const score = standard[0] + standard[1] - unknown.threshold;
  return {top, score, known: score >= 0, set: possible(probabilities, order, unknown).map(number => labels[number])};
}

// To the nearest photos of a class, and to the mean of a class, see Reference.similarities in unknown.py.
function similarities(features, {counts, shapes}, {mean, basis, photos, directions, gains, centers}) {
  const [classes, most, seen] = shapes.photos, wide = mean.length, shrunk = gains.length;
  const centred = features.map((value, i) => value - mean[i]);
  const square = dot(centred, 0, centred, 0, wide), norm = Math.sqrt(Math.max(square, 1e-30));
  const where = project(centred, basis, seen).map(value => value / norm), along = project(centred, directions, shrunk);
  let near = -Infinity, toMeans = -Infinity, length = square;
  for (let i = 0; i < shrunk; i++) length += along[i] ** 2 * gains[i] * (2 + gains[i]);
  const pulled = centred.map(value => value);  // shrunk in these directions
  for (let i = 0; i < wide; i++) pulled[i] += along.reduce((sum, value, j) => sum + value * gains[j] * directions[i * shrunk + j], 0);
  for (let label = 0; label < classes; label++) {
    const alike = Array.from({length: counts[label]}, (_, photo) => dot(where, 0, photos, (label * most + photo) * seen, seen));
    const nearest = alike.sort((a, b) => b - a).slice(0, NEAREST);
    near = Math.max(near, nearest.reduce((sum, value) => sum + value, 0) / nearest.length);
    toMeans = Math.max(toMeans, dot(pulled, 0, centers, label * wide, wide));
  }
  return [near, toMeans / Math.sqrt(Math.max(length, 1e-30))];
}

function dot(a, from, b, start, count) {
  let sum = 0;
  for (let i = 0; i < count; i++) sum += a[from + i] * b[start + i];
  return sum;
}

// A row of numbers times a matrix with `width` columns.
function project(row, matrix, width) {
  const result = new Float64Array(width);
  for (let i = 0; i < row.length; i++) {
    for (let j = 0; j < width; j++) result[j] += row[i] * matrix[i * width + j];
  }
  return result;
}

// The classes of the set, the most probable one first; it is always in the set.
function possible(probabilities, order, {method, at_most}) {
  let sum = 0;
  return order.filter((number, rank) => {
    sum += probabilities[number];
    const score = method === 'lac' ? 1 - probabilities[number] : sum + PENALTY * Math.max(0, rank + 1 - REGULAR);
    return rank === 0 || score <= at_most;
  });
}
