'use strict';
// Language and colours: those of the reader's system, or of the page, until a switch is used. Runs before anything is shown.
const root = document.documentElement, system = matchMedia('(prefers-color-scheme: dark)');
const chinese = () => root.lang.startsWith('zh');

function setLanguage(language) {
  root.lang = language;
  for (const part of document.querySelectorAll('[data-en]')) part.textContent = chinese() ? part.dataset.zh : part.dataset.en;
}

function setTheme() {
  root.dataset.theme = system.matches ? 'dark' : 'light';
}

setTheme();
system.addEventListener('change', setTheme);
if (!root.dataset.language) root.lang = navigator.language.startsWith('zh') ? 'zh-Hans' : 'en';
document.addEventListener('DOMContentLoaded', () => {
  setLanguage(root.lang);
  const language = document.getElementById('language'), theme = document.getElementById('theme');
  language.hidden = theme.hidden = false;
  language.addEventListener('click', () => setLanguage(chinese() ? 'en' : 'zh-Hans'));
  theme.addEventListener('click', () => root.dataset.theme = root.dataset.theme === 'dark' ? 'light' : 'dark');
});
