// A service worker: keeps the page, so that it works without a network, and lets it use several threads.

const VERSION = '%VERSION%', FILES = %FILES%, WHEN_USED = %WHEN_USED%;
const OURS = `zodiac ${registration.scope} `, STORE = OURS + VERSION;
const ISOLATED = {'Cross-Origin-Opener-Policy': 'same-origin', 'Cross-Origin-Embedder-Policy': 'require-corp'};  // browsers ask this for threads

self.addEventListener('install', event => event.waitUntil(keep()));
self.addEventListener('activate', event => event.waitUntil(forget()));
self.addEventListener('fetch', event => {
  const {method, url} = event.request, plain = url.split(/[?#]/)[0];
  if (method !== 'GET' || !plain.startsWith(registration.scope)) return;
  const path = plain.slice(registration.scope.length) || 'index.html';
  if (FILES.includes(path) || WHEN_USED.includes(path)) event.respondWith(answer(path));
});

async function keep() {
  const store = await caches.open(STORE);
  await store.addAll(FILES.map(path => new Request(path, {cache: 'no-cache'})));
  await skipWaiting();
}

// Remove earlier versions of this page; other pages of the same server stay.
async function forget() {
  for (const name of await caches.keys()) {
    if (name.startsWith(OURS) && name !== STORE) await caches.delete(name);
  }
  await clients.claim();
}

async function answer(path) {
  const store = await caches.open(STORE);
  let found = await store.match(path);
  if (!found) {
    found = await fetch(path);
    if (found.ok) await store.put(path, found.clone());
  }
  return new Response(found.body, {status: found.status, headers: {...Object.fromEntries(found.headers), ...ISOLATED}});
}
