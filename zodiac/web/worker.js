// The model, apart from the page so that it never blocks it. Takes {id, file}; sends {progress: 0 to 1}, {ready: true} or {failed: true}
// while the model is loaded, then {id, answer, time} or {id, fault}, a text of the page.

import {judge} from './judge.js';
import {normalize, scaled} from './preprocess.js';

const ENGINES = {  // of ONNX Runtime: its files in runtime/
  wasm: {script: 'ort', code: 'ort-wasm'},
  webgpu: {script: 'ort-gpu', code: 'ort-wasm-gpu'},
};
const HEAD = 1024;  // bytes that tell the kind of a file
const MOST = 0.001;  // difference of a logit, as a share of their spread, up to which a GPU is trusted: that of fp32 in export.py

const asked = new URLSearchParams(location.search).get('engine');  // to compare engines: wasm or webgpu
const model = load();
model.then(() => postMessage({ready: true}), error => {
  console.error(error);
  postMessage({failed: true});
});

let waits = false;  // whether a photo came before the model
self.onmessage = async ({data: {id, file}}) => {
  waits = true;
  postMessage({id, ...await classify(file)});
};

async function classify(file) {
  try {
    const {about, engine, run, arrays} = await model;
    const start = performance.now();
    const bitmap = await decode(file);
    if (!bitmap) return {fault: await fault(file)};
    const [step, ...rest] = about.transform, pixels = scaled(bitmap, step);
    bitmap.close();
    const {logits, features} = await run(rest.length ? normalize(pixels, rest[0]) : new Uint8Array(pixels.buffer));
    const answer = {...judge(about.labels, logits, features, about.unknown, arrays), engine};
    return {answer, time: performance.now() - start};
  } catch (error) {
    console.error(error);
    return {fault: 'not_loaded'};
  }
}

// An upright bitmap of the values in the file; null if the browser cannot decode it.
async function decode(file) {
  try {
    return await createImageBitmap(file, {colorSpaceConversion: 'none', premultiplyAlpha: 'none'});
  } catch {
    return null;
  }
}

// Which text says what is wrong with a file, by its first bytes, as zodiac/images/file_types.py does.
async function fault(file) {
  let head = '';
  try {
    head = String.fromCharCode(...new Uint8Array(await file.slice(0, HEAD).arrayBuffer()));
  } catch {
    return 'unreadable';  // a folder, or a file that is gone
  }
  if (/^....ftyp/s.test(head) && /hei[cxms]|hev[cxms]|mif1|msf1/.test(head.slice(8, 64))) return 'heic';
  if (/^(\xff\xd8|\x89PNG|GIF8|RIFF....WEBP|BM)/s.test(head)) return 'damaged';
  if (/^(II[*+]\0|MM\0[*+]|P[1-7]\s|8BPS|%PDF|%!PS|\0\0\x01\0|DDS |....ftyp|\0\0\0\x0cj|\xff\x0a|\s*<(\?xml|svg))/s.test(head)) return 'format';
  return 'unreadable';
}

// {about: model.json, engine, run: input -> {logits, features}, arrays: those of about.unknown}
async function load() {
  const about = await (await get('model.json')).json();
  const [network, arrays] = await Promise.all([content(about), about.unknown ? unknown(about.unknown) : null, prefetched('wasm')]);
  const gpu = asked !== 'wasm' && about.gpu && await onGpu(about, network);
  const engine = gpu ? 'webgpu' : 'wasm', run = gpu || await start('wasm', about, network);
  return {about, engine, run, arrays};
}

async function get(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response;
}

// The ONNX file; its progress is sent.
async function content({bytes}) {
  const reader = (await get('model.onnx')).body.getReader(), all = new Uint8Array(bytes);
  let at = 0;
  for (;;) {
    const {done, value} = await reader.read();
    if (done) break;
    all.set(value, at);
    at += value.length;
    postMessage({progress: at / bytes});
  }
  if (at !== bytes) throw new Error(`model.onnx: ${at} bytes, not ${bytes}`);
  return all;
}

async function unknown({shapes}) {
  const buffer = await (await get('unknown.bin')).arrayBuffer(), arrays = {};
  let at = 0;
  for (const [name, shape] of Object.entries(shapes)) {
    const count = shape.reduce((all, side) => all * side, 1);
    arrays[name] = new Float32Array(buffer, at, count);
    at += 4 * count;
  }
  return arrays;
}

// Loaded while the model is: the script of an engine and its code. Passed on as bytes, its code needs no type from the server.
const loaded = {};
function prefetched(engine) {
  const {script, code} = ENGINES[engine], path = name => new URL(`runtime/${name}`, location.href).href;
  loaded[engine] ??= Promise.all([
    import(path(`${script}.js`)),
    get(path(`${code}.wasm`)).then(response => response.arrayBuffer()),
    path(`${code}.js`),
  ]);
  return loaded[engine];
}

async function start(engine, about, network) {
  const [ort, wasmBinary, mjs] = await prefetched(engine);
  Object.assign(ort.env.wasm, {wasmBinary, wasmPaths: {mjs}});
  const session = await ort.InferenceSession.create(network, {executionProviders: [engine], logSeverityLevel: 3});
  const {name, dtype, shape} = about.input, outputs = session.outputNames.filter(output => ['logits', 'features'].includes(output));
  const run = async input => {
    const found = await session.run({[name]: new ort.Tensor(dtype, input, [1, ...shape.slice(1)])}, outputs);
    return {logits: found.logits.data, features: found.features?.data};
  };
  const Numbers = dtype === 'uint8' ? Uint8Array : Float32Array;
  if (!waits) await run(new Numbers(shape.slice(1).reduce((all, side) => all * side, 1)));  // the first run is slow
  return run;
}

// `run` of a graphics card that gives the logits of the network for a picture of export.py; else null.
async function onGpu(about, network) {
  try {
    const adapter = WebAssembly.Suspending && await navigator.gpu?.requestAdapter();
    if (!adapter || adapter.info?.isFallbackAdapter && asked !== 'webgpu') return null;
    const run = await start('webgpu', about, network);
    const pixels = new Uint8Array(await (await get('check.bin')).arrayBuffer()), [normalisation] = about.transform.slice(1);
    const {logits} = await run(normalisation ? normalize(pixels, normalisation) : pixels);
    const off = Math.max(...logits.map((logit, i) => Math.abs(logit - about.gpu.logits[i])));
    if (off <= MOST * about.gpu.spread) return run;
    console.warn(`WebGPU is not used: a logit differs by ${off}`);
  } catch (error) {
    console.warn('WebGPU is not used:', error);
  }
  return null;
}
