// The page: tracks the selected device, and passes the server's events to the parts of the page.

import { copy } from './actions.js';
import { addToConversation, clearConversation, noteConversation } from './conversation.js';
import { clearDeviceRates, countOfDevice, hasInfo, loadInfo, openDetails, showAbout, showRow, showWatched } from './details.js';
import { moveFocus, showDevices, showWaiting } from './devices.js';
import { byId, setText } from './dom.js';
import { Feed, setToken } from './feed.js';
import { clearRates, countMessages, showHealth } from './health.js';
import { connect, disconnect, isConnected, say } from './viewer.js';
import { clientAddress, pageAddress, showWays, showWelcome } from './welcome.js';
import { clock, escaped } from './words.js';

/** The id of the selected device: the fragment of the address. */
let chosen = null;
let registeredAt = null;
let overview;
/** Whether the numbers on the page are of now. */
let isLive = false;

const feed = new Feed(onEvent, onState);

function onEvent(name, data) {
  if (name === 'overview') {
    overview = data;
    showOverview();
    noteConversation(data.server.journal);
  } else if (name === 'device' && data.device_id === chosen) {
    showWatched(data);
    showOverview();
    // A new registration may have other device info.
    if (data.since !== null && data.since !== registeredAt) loadInfo(chosen);
    registeredAt = data.since;
  } else if (name === 'entries') {
    addToConversation(data);
    noteConversation(true);
  } else if (name === 'about') {
    showAbout(data);
    showWays(data);
  }
}

const chosenRow = () => overview.devices.find((device) => device.device_id === chosen);

function showOverview() {
  if (!overview) return;
  showHealth(overview.server);
  showDevices(overview.devices, overview.matching, chosen);
  showWaiting(overview.waiting, overview.server.waiting);
  if (chosen === null) showWelcome(overview.server.devices);
  else showRow(chosenRow());
}

function onState(state, reason) {
  isLive = state === 'live';
  document.body.dataset.state = state;
  byId('link').dataset.state = state;
  const lost = `server unreachable, trying again${reason ? ` (${reason})` : ''}`;
  setText(byId('link'), { live: 'live', lost, refused: 'not admitted' }[state]);
  const isStale = !isLive && overview !== undefined;
  document.body.classList.toggle('stale', isStale);
  if (isStale && !byId('as-of').textContent) setText(byId('as-of'), `As of ${clock(Date.now() / 1000).slice(0, 8)}`);
  if (isLive) {
    setText(byId('as-of'), '');
    // A reopened stream sends all events from the start.
    clearConversation(chosen);
    clearRates();
    clearDeviceRates();
    if (!hasInfo()) registeredAt = null;
  }
  byId('login').hidden = state !== 'refused';
  if (state === 'refused') {
    setText(byId('login-reason'), reason);
    byId('token').focus();
  }
}

function watch() {
  feed.watch({ search: byId('search').value, ...(chosen !== null && { device: chosen }) });
}

function choose() {
  const id = location.hash.length > 1 ? decoded(location.hash.slice(1)) : null;
  if (id === chosen) return;
  disconnect();
  clearConversation(id);
  chosen = id;
  registeredAt = null;
  openDetails(id);
  document.title = id === null ? 'Cuttlefish signaling' : `${escaped(id)} · Cuttlefish signaling`;
  if (id !== null) byId('device-id').focus();
  showOverview();
  watch();
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

addEventListener('hashchange', choose);
addEventListener('pagehide', disconnect);
// Relative times change even without events. Those of a server that cannot be reached are as it told them last.
setInterval(() => {
  if (!isLive || !overview || document.hidden) return;
  showOverview();
  countMessages(overview.server);
  countOfDevice(chosen === null ? undefined : chosenRow());
}, 1_000);

let typing;
byId('search').addEventListener('input', () => {
  clearTimeout(typing);
  typing = setTimeout(watch, 150);
});
for (const [id, key, property] of [['sort', 'sort', 'value'], ['grouped', 'grouped', 'checked']]) {
  const stored = localStorage.getItem(`cuttlefish-signaling-${key}`);
  if (stored !== null) byId(id)[property] = property === 'checked' ? stored === 'true' : stored;
  byId(id).addEventListener('change', () => {
    localStorage.setItem(`cuttlefish-signaling-${key}`, byId(id)[property]);
    showOverview();
  });
}
if (!byId('sort').value) byId('sort').value = 'id';
document.querySelector('nav').addEventListener('keydown', moveFocus);
document.addEventListener('keydown', (event) => {
  if (event.key !== '/' || event.ctrlKey || event.metaKey || event.target.matches('input, select')) return;
  byId('search').focus();
  event.preventDefault();
});
byId('login').addEventListener('submit', (event) => {
  event.preventDefault();
  setToken(byId('token').value);
  byId('token').value = '';
  watch();
});
byId('connect').addEventListener('click', () => (isConnected() ? disconnect() : connect(chosen)));
byId('copy-client').addEventListener('click', () => copy(clientAddress(chosen), 'the address for clients'));
byId('copy-page').addEventListener('click', () => copy(pageAddress(chosen), 'the link to this device'));
byId('console').addEventListener('submit', (event) => {
  event.preventDefault();
  say(byId('line').value);
  byId('line').value = '';
});

choose();
if (chosen === null) watch();
