// For pages that have TEXTS, $ and an element #message.

// A text in both languages, of which the page shows one; `values` replace its {names}.
function both(key, values = {}) {
  return Object.entries({en: 'en', zh: 'zh-Hans'}).map(([language, lang]) => {
    const part = document.createElement('span');
    part.className = 't';
    part.lang = lang;
    part.textContent = TEXTS[key][language].replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
    return part;
  });
}

function tell(parts, bad = false) {
  $('message').className = bad ? 'bad' : '';
  $('message').replaceChildren(...parts);
}
