// Makes the pages better; all of them work without. Three things, and one helper for all: take a fresh copy of a page,
// and put its marked parts (data-live) in the place of ours. Nothing is ever built from text here.
'use strict';

// ask fetches a page as a document: the browser parses it, and runs nothing of it.
function ask(method, url, body) {
  return new Promise((resolve, reject) => {
    const x = new XMLHttpRequest();
    x.open(method, url);
    x.responseType = 'document';
    x.setRequestHeader('X-Requested-With', 'curation');
    if (body) x.setRequestHeader('Content-Type', 'application/x-www-form-urlencoded');
    x.timeout = 30000;
    x.onload = () => x.response ? resolve({ status: x.status, url: x.responseURL, page: x.response }) : reject(new Error('no page'));
    x.onerror = x.ontimeout = () => reject(new Error('no answer'));
    x.send(body || null);
  });
}

const samePage = (page) => page.body.dataset.page === document.body.dataset.page;

// adopt replaces the marked parts that have changed, and keeps the focus where it was.
function adopt(page) {
  const fresh = new Map();
  for (const e of page.querySelectorAll('[data-live]')) fresh.set(e.dataset.live, e);
  for (const old of document.querySelectorAll('[data-live]')) {
    const now = fresh.get(old.dataset.live);
    if (!now) { if (old.matches('.case')) old.remove(); continue; }
    if (strip(now) === strip(old)) continue;
    const at = old.contains(document.activeElement) ? document.activeElement : null, home = at && at.closest('[data-live]');
    const scrolls = [...old.querySelectorAll('.text')].map((e) => e.scrollTop);
    const copy = document.importNode(now, true);
    old.replaceWith(copy);
    copy.classList.add('changed');
    localTimes(copy);
    [...copy.querySelectorAll('.text')].forEach((e, i) => { e.scrollTop = scrolls[i] || 0; });
    if (!at) continue;
    const there = [copy, ...copy.querySelectorAll('[data-live]')].find((e) => e.dataset.live === home.dataset.live); // others above it may be gone
    (there && follow(there, pathTo(home, at)) || copy).focus({ preventScroll: true });
  }
}

// What tells two versions of a part apart: not what this script has changed in it.
function strip(e) {
  const c = e.cloneNode(true);
  c.classList.remove('changed');
  if (!c.classList.length) c.removeAttribute('class');
  for (const t of c.querySelectorAll('time')) t.textContent = '';
  return c.outerHTML;
}

function pathTo(root, e) {
  const path = [];
  for (; e !== root; e = e.parentElement) path.unshift([...e.parentElement.children].indexOf(e));
  return path;
}
const follow = (root, path) => path.reduce((e, i) => e && e.children[i], root);

// say shows what was done, or what went wrong.
function say(page) {
  const area = document.getElementById('flash');
  const said = page.querySelector('#flash > .flash');
  if (said) area.replaceChildren(document.importNode(said, true));
}
function sayText(text) {
  const flash = document.createElement('div');
  flash.className = 'flash';
  flash.append(text);
  document.getElementById('flash').replaceChildren(flash);
}

// refresh takes a fresh copy of this page, one at a time, and once more if something happened meanwhile.
let refreshing = false, again = false;
async function refresh() {
  if (refreshing) { again = true; return; }
  refreshing = true;
  try {
    do {
      again = false;
      const got = await ask('GET', location.href);
      if (got.status === 200 && samePage(got.page)) adopt(got.page);
    } while (again);
  } catch { /* the next event tries again */ }
  refreshing = false;
  retry();
}

// retry asks again in a while for a page that the server could not fill whole.
let retrying = 0;
function retry() {
  if (retrying || !document.querySelector('[data-again]')) return;
  retrying = setTimeout(() => { retrying = 0; if (document.hidden) retry(); else refresh(); }, 5000);
}

// Forms that stay on the page.
document.addEventListener('submit', async (event) => {
  const form = event.target;
  if (!(form instanceof HTMLFormElement) || !form.hasAttribute('data-enhance')) return;
  event.preventDefault();
  if (form.dataset.busy) return;
  form.dataset.busy = 'yes';
  const data = new URLSearchParams(new FormData(form, event.submitter));
  try {
    const got = await ask('POST', form.action, data.toString());
    if (got.status === 200 && samePage(got.page)) { adopt(got.page); say(got.page); }
    else if (got.status === 401) sayText('You are not signed in any more. Load this page again to sign in; nothing was changed.');
    else sayText((got.page.querySelector('main p:not(.muted)') || got.page.body).textContent.trim());
  } catch {
    sayText('The curation app does not answer. Nothing was changed, as far as this page knows; try again in a moment.');
  }
  delete form.dataset.busy;
});

// Live: the server tells which keys have changed, and this page asks for itself anew. A hidden page does not listen:
// a browser has few connections.
let source = null;
function listen() {
  const keys = [...new Set([...document.querySelectorAll('[data-key]')].map((e) => e.dataset.key))];
  if (document.hidden) { if (source) { source.close(); source = null; } return; }
  if (source || !keys.length || !window.EventSource) return;
  source = new EventSource('/live?' + new URLSearchParams(keys.map((k) => ['key', k])));
  source.addEventListener('watching', refresh);
  source.addEventListener('changed', refresh);
  source.addEventListener('error', () => { if (source.readyState === EventSource.CLOSED) { source = null; setTimeout(listen, 5000); } });
}
document.addEventListener('visibilitychange', listen);
for (const e of document.querySelectorAll('[data-refresh]')) setInterval(() => { if (!document.hidden) refresh(); }, 1000 * e.dataset.refresh);

// Times as they are where the reader is.
function localTimes(root) {
  for (const t of root.querySelectorAll('time[datetime]')) {
    const at = new Date(t.dateTime);
    if (isNaN(at)) continue;
    const options = { day: 'numeric', month: 'short', year: 'numeric', hour: '2-digit', minute: '2-digit' };
    if (t.closest('.history')) options.second = '2-digit';
    t.textContent = at.toLocaleString('en-GB', options);
  }
}

// Keys. They can be switched off on the help page.
const keysOff = () => localStorage.getItem('curation-keys') === 'off';
const writing = (e) => e instanceof HTMLElement && (e.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(e.tagName));

function press(key) {
  const here = document.activeElement && document.activeElement.closest('tr, .case');
  const wanted = [...document.querySelectorAll('[data-shortcut="' + key + '"]')];
  const target = wanted.find((e) => here && here.contains(e)) || (document.querySelector('table.list') && key === 's' ? null : wanted[0]);
  if (!target) return false;
  target.click();
  return true;
}

function move(by) {
  const titles = [...document.querySelectorAll('.list .title')];
  if (!titles.length) return false;
  const row = document.activeElement && document.activeElement.closest('.list tr');
  const at = row ? titles.findIndex((e) => row.contains(e)) : -1;
  const next = titles[Math.min(Math.max(at + by, 0), titles.length - 1)];
  next.focus();
  next.scrollIntoView({ block: 'nearest' });
  return true;
}

document.addEventListener('keydown', (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === 's' && press('mod+s')) { event.preventDefault(); return; }
  if (event.ctrlKey || event.metaKey || event.altKey || writing(event.target) || keysOff()) return;
  const field = event.key === '/' && document.querySelector('[data-focus="/"]');
  let done = false;
  if (field) { field.focus(); field.select(); done = true; }
  else if (event.key === '?') { location.href = '/help#keys'; done = true; }
  else if (event.key === 'j') done = move(1);
  else if (event.key === 'k') done = move(-1);
  else if (/^[senup]$/.test(event.key)) done = press(event.key);
  if (done) event.preventDefault();
});

for (const box of document.querySelectorAll('[data-keys-on]')) {
  box.closest('[data-keys]').hidden = false;
  box.checked = !keysOff();
  box.addEventListener('change', () => localStorage.setItem('curation-keys', box.checked ? 'on' : 'off'));
}

// Drafts. One is a person's, since others may sign in here, and the newest of their tabs' for a task. Which one a tab has
// written it remembers over a reload and over what is saved: another tab's is not its to remove.
const draftName = (task) => 'curation-draft-' + document.body.dataset.who + '-' + task;
function dropDraft(name, before) {
  const mine = sessionStorage.getItem(name);
  if (mine === null || mine !== localStorage.getItem(name)) return;
  sessionStorage.removeItem(name);
  if (before) localStorage.setItem(name, before);
  else localStorage.removeItem(name);
}

// The editor: a draft that survives, and what was changed as it is written.
for (const form of document.querySelectorAll('[data-draft]')) {
  const name = draftName(form.dataset.draft), text = form.elements.text, saved = text.defaultValue;
  const state = form.querySelector('[data-draft-state]'), note = form.querySelector('[data-draft-note]');
  const found = localStorage.getItem(name), draft = JSON.parse(found || 'null');
  const sent = form.hasAttribute('data-sent'); // what is in the editor is newer than the draft
  let before = null; // the draft of another tab that this one's has taken the place of
  const write = (value) => {
    const now = localStorage.getItem(name);
    if (now !== sessionStorage.getItem(name)) before = now;
    localStorage.setItem(name, value);
    sessionStorage.setItem(name, value);
  };
  if (draft && !sent && draft.text !== saved) {
    text.value = draft.text;
    form.elements.base.value = draft.base; // what it began from: somebody may have been faster
    sessionStorage.setItem(name, found); // it is this tab's now
    note.hidden = false;
  }
  form.querySelector('[data-draft-discard]').addEventListener('click', () => {
    dropDraft(name);
    text.value = saved;
    form.elements.base.value = form.dataset.base;
    note.hidden = true;
    compareSoon();
    text.focus();
  });
  const keep = () => {
    try {
      if (text.value === saved && !sent) dropDraft(name, before);
      else write(JSON.stringify({ text: text.value, base: form.elements.base.value }));
      state.textContent = text.value === saved ? '' : 'Draft kept in this browser';
    } catch { state.textContent = 'This browser cannot keep a draft of this length'; }
  };
  let timer = 0;
  const compareSoon = () => {
    clearTimeout(timer);
    if (text.value.length < 200000) timer = setTimeout(compareNow, 400); // else it takes the button
  };
  const compareNow = async () => {
    const data = new URLSearchParams(new FormData(form));
    const asked = text.value;
    data.set('do', 'compare');
    let away = true;
    try {
      const got = await ask('POST', form.action, data.toString());
      away = got.status >= 500;
      if (got.status === 200 && samePage(got.page) && asked === text.value) adopt(got.page); // an answer may come after that to a later text
    } catch { /* nobody answers */ }
    if (away && asked === text.value) timer = setTimeout(compareNow, 5000);
  };
  text.addEventListener('input', () => { keep(); compareSoon(); });
  if (!note.hidden) compareSoon();
  if (sent) keep();
  form.querySelector('[data-compare]').addEventListener('click', (event) => { event.preventDefault(); compareNow(); document.getElementById('changes').scrollIntoView({ block: 'nearest' }); });
}
// A text that was saved needs no draft: the page that says so comes from the editor.
if (document.body.dataset.page === 'conquest') for (const done of document.querySelectorAll('[data-saved]')) dropDraft(draftName(done.dataset.saved));

localTimes(document);
listen();
retry();
