// The conversation between a device, its clients and the server, as arrows between three lanes.

import { report, save, fileName } from './actions.js';
import { byId, element, setText, show } from './dom.js';
import { ask } from './feed.js';
import { asMermaid, asText, errorOf } from './transcript.js';
import { clock, count, duration, escaped, setWords, size, words } from './words.js';

/** The most entries kept for filters and files. The journal of the server has more. */
const MOST_KEPT = 2_000;
/** The most lines shown. */
const MOST_LINES = 500;

/** The lanes and the direction of an arrow, by the direction of its message. */
const ARROWS = {
  'device->client': ['device', 'client', 'right'],
  'client->device': ['device', 'client', 'left'],
  'device->server': ['device', 'server', 'right'],
  'server->device': ['device', 'server', 'left'],
  'server->client': ['server', 'client', 'right'],
  'client->server': ['server', 'client', 'left'],
};

/** The entries, the oldest first. `{ skipped }` stands for those that the server has left out. */
let kept = [];
let left_out = 0;
let device = null;
let unseen = 0;
/** The ICE servers of the settings. A `config` with others names them. */
let usual_ice = '';

const list = byId('conversation');

/** Clears the conversation, for another device or when the events start again. */
export function clearConversation(id) {
  [kept, left_out, device, unseen] = [[], 0, id, 0];
  list.replaceChildren();
  byId('lanes').hidden = true;
  byId('conversation-tools').hidden = true;
  showLatestButton();
  describeShown();
}

/** Shows a text about the state of the conversation. */
export function noteConversation(hasJournal) {
  const off = 'The journal is off. With --journal, or SignalingServer(journal=True), this is where the messages are.';
  setText(byId('conversation-note'), hasJournal ? (kept.length ? '' : 'No message yet.') : off);
}

/** Adds entries of the journal. @param {{skipped: number, entries: object[]}} news */
export function addToConversation({ skipped, entries }) {
  const isAtEnd = atEnd();
  const before = kept.findLast((entry) => !entry.skipped);
  entries.forEach((entry, at) => {
    const previous = entries[at - 1] ?? before;
    entry.gap = previous && entry.at - previous.at;
  });
  const news = [...(skipped > 0 ? [{ skipped }] : []), ...entries];
  kept.push(...news);
  for (const entry of kept.splice(0, Math.max(0, kept.length - MOST_KEPT))) left_out += entry.skipped ?? 1;
  byId('lanes').hidden = false;
  byId('conversation-tools').hidden = false;
  offerClients();
  const lines = news.filter(matcher()).slice(-MOST_LINES);
  list.append(...lines.map(line));
  while (list.childElementCount > MOST_LINES) list.firstElementChild.remove();
  describeShown();
  // The first entries are read from the beginning.
  if (isAtEnd && before) scrollToEnd();
  else if (before) unseen += lines.length;
  showLatestButton();
}

// Filters -------------------------------------------------------------------------------------------------------------

function offerClients() {
  const ids = [...new Set(kept.map((entry) => entry.client).filter((id) => Number.isInteger(id)))].sort((a, b) => a - b);
  const offered = [['', 'All clients'], ...ids.map((id) => [String(id), `Client ${id}`])];
  const make = ([value, textContent]) => element('option', { value, textContent });
  const select = byId('filter-client');
  // A client whose entries were left out stays selected until the viewer selects another one.
  if (select.value && !ids.includes(Number(select.value))) offered.push([select.value, `Client ${select.value}`]);
  show(select, offered, ([value]) => value, make, () => {});
}

const isBad = (entry) => entry.outcome !== 'passed' || entry.message_type === 'error' || entry.faults.length > 0;

const KINDS = {
  all: () => true,
  forwards: (entry) => ['device->client', 'client->device'].includes(entry.direction),
  bad: isBad,
};

/** Returns a function that tells whether an entry is shown. */
function matcher() {
  const wanted = byId('filter-text').value.trim().toLowerCase();
  const client = byId('filter-client').value;
  const kind = KINDS[byId('filter-kind').value];
  return (entry) => {
    if (entry.skipped) return true;
    if (!kind(entry) || (client && String(entry.client) !== client)) return false;
    const said = [entry.message_type, entry.payload_type, entry.says, entry.outcome, ...entry.faults];
    return !wanted || said.some((text) => text?.toLowerCase().includes(wanted));
  };
}

function filter() {
  list.replaceChildren(...kept.filter(matcher()).slice(-MOST_LINES).map(line));
  describeShown();
}

function describeShown() {
  const real = kept.filter((entry) => !entry.skipped);
  const matching = real.filter(matcher()).length;
  const parts = [];
  if (matching < real.length) parts.push(`${matching.toLocaleString('en')} of ${count(real.length, 'message')}`);
  else if (real.length) parts.push(count(real.length, 'message'));
  if (matching > MOST_LINES) parts.push(`the last ${MOST_LINES} shown`);
  if (left_out) parts.push(`${left_out.toLocaleString('en')} earlier left out`);
  setText(byId('shown'), parts.join(', '));
}

// The place in the page -----------------------------------------------------------------------------------------------

/** The element that scrolls: the page on a narrow screen, else the half of it that has the device. */
function scroller() {
  const article = byId('device');
  return getComputedStyle(article).overflowY === 'auto' ? article : document.scrollingElement;
}

function atEnd() {
  const { scrollHeight, scrollTop, clientHeight } = scroller();
  return scrollHeight - scrollTop - clientHeight < 60;
}

function scrollToEnd() {
  const all = scroller();
  all.scrollTop = all.scrollHeight;
  unseen = 0;
  showLatestButton();
}

function showLatestButton() {
  byId('latest').hidden = unseen === 0;
  setText(byId('latest'), `↓ ${unseen.toLocaleString('en')} new`);
}

function onScroll() {
  if (unseen > 0 && atEnd()) {
    unseen = 0;
    showLatestButton();
  }
}

// Lines ---------------------------------------------------------------------------------------------------------------

function line(entry) {
  if (entry.skipped) return element('li', { className: 'skipped', textContent: `${count(entry.skipped, 'message')} left out` });
  const [from, to, way] = ARROWS[entry.direction];
  const time = new Date(entry.at * 1000);
  const when = element('div', { className: 'when' });
  when.append(element('time', { dateTime: time.toISOString(), title: time.toString(), textContent: clock(entry.at) }));
  when.append(element('small', { textContent: entry.gap === undefined ? '' : `+${duration(entry.gap)}` }));
  const way_in_words = element('span', { className: 'unseen', textContent: `${entry.direction.replace('->', ' to ')}: ` });
  const arrow = element('div', { className: `arrow ${way} from-${from} to-${to}` }, way_in_words, said(entry), ' ');
  // Each part stays on one line.
  const parts = details(entry).flatMap((part, at) => [at ? ' · ' : '', element('span', { textContent: part })]);
  arrow.append(element('small', {}, ...parts));
  const item = element('li', {}, when, arrow);
  if (isBad(entry)) item.className = 'bad';
  else if (entry.closed) item.className = 'end';
  const error = entry.message_type === 'error' && !entry.closed ? (errorOf(entry) ?? entry.says) : null;
  if (error) item.append(element('div', { className: 'more' }, words(String(error))));
  else if (entry.ice && iceInWords(entry.ice) !== usual_ice) item.append(element('div', { className: 'more soft', textContent: iceInWords(entry.ice) }));
  return item;
}

function said(entry) {
  const what = entry.closed ? `✕ ${entry.says}` : (entry.payload_type ?? entry.message_type) || 'not a message';
  const bold = element('b');
  bold.append(element('bdi'));
  setWords(bold.firstElementChild, what);
  return bold;
}

function details(entry) {
  const parts = [
    entry.client === null ? '' : `#${entry.client}`,
    entry.closed ? '' : size(entry.size),
    entry.ice ? (entry.ice.length ? count(entry.ice.length, 'ICE server') : 'no ICE servers') : '',
    { passed: '', gone: 'receiver gone' }[entry.outcome] ?? entry.outcome,
    ...entry.faults,
  ];
  return parts.filter(Boolean);
}

/** Sets the ICE servers that the settings have. */
export function setUsualIce(urls) {
  if (usual_ice === iceInWords(urls)) return;
  usual_ice = iceInWords(urls);
  filter();
}

/** Describes the ICE servers that a peer was told. */
export function iceInWords(urls) {
  if (urls.length === 0) return 'no ICE servers';
  return urls.map((url) => (/^turns?:/i.test(url) ? `${url} (credentials hidden)` : url)).join(', ');
}

// Files ---------------------------------------------------------------------------------------------------------------

const entriesOnly = () => kept.filter((entry) => !entry.skipped);

/** Saves the payloads as a cassette. They never pass this page: the server writes the file. */
async function saveCassette() {
  const id = device;
  try {
    const answer = await ask(`dashboard/cassette?${new URLSearchParams({ device: id })}`);
    save(fileName(id, 'jsonl'), await answer.blob(), 'application/x-ndjson');
  } catch (error) {
    report(`Could not export the payloads of ${escaped(id)}: ${error.message}`, true);
  }
}

byId('save-text').addEventListener('click', () => save(fileName(device, 'txt'), asText(device, entriesOnly()), 'text/plain'));
byId('save-mermaid').addEventListener('click', () => save(fileName(device, 'mmd'), asMermaid(device, entriesOnly()), 'text/plain'));
byId('save-jsonl').addEventListener('click', saveCassette);
byId('latest').addEventListener('click', scrollToEnd);
for (const id of ['filter-text', 'filter-client', 'filter-kind']) byId(id).addEventListener('input', filter);
byId('device').addEventListener('scroll', onScroll, { passive: true });
addEventListener('scroll', onScroll, { passive: true });
