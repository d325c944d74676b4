// The page: tracks the selected device, and passes the server's events to the parts of the page.

import { addToConversation, clearConversation, noteConversation } from './conversation.js';
import { loadInfo, openDetails, showRow, showWatched } from './details.js';
import { moveFocus, showDevices, showWaiting } from './devices.js';
import { byId, setText } from './dom.js';
import { Feed, setToken } from './feed.js';
import { showHealth } from './health.js';
import { connect, disconnect, isConnected, say } from './viewer.js';

/** Returns the id of the selected device: the fragment of the address. */
let chosen = null;
let registeredAt = null;
let overview;

const feed = new Feed(onEvent, onState);

function onEvent(name, data) {
  if (name === 'overview') {
    overview = data;
    showOverview();
    noteConversation(data.server.journal);
  } else if (name === 'device' && data.device_id === chosen) {
    showWatched(data);
    // A new registration may have other device info.
    if (data.since !== null && data.since !== registeredAt) loadInfo(chosen);
    registeredAt = data.since;
  } else if (name === 'entries') {
    addToConversation(data);
  }
}

function showOverview() {
  if (!overview) return;
  showHealth(overview.server);
  showDevices(overview.devices, overview.matching, chosen);
  showWaiting(overview.waiting, overview.server.waiting);
  const row = overview.devices.find((device) => device.device_id === chosen);
  if (row) showRow(row);
}

function onState(state, reason) {
  byId('link').dataset.state = state;
  setText(byId('link'), reason ? `${state}: ${reason}` : state);
  // A reopened stream sends all events from the start.
  if (state === 'live') clearConversation();
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
  clearConversation();
  chosen = id;
  registeredAt = null;
  openDetails(id);
  document.title = id === null ? 'Cuttlefish signaling' : `${id} · Cuttlefish signaling`;
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
// Relative times change even without events.
setInterval(showOverview, 1_000);

let typing;
byId('search').addEventListener('input', () => {
  clearTimeout(typing);
  typing = setTimeout(watch, 150);
});
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
byId('console').addEventListener('submit', (event) => {
  event.preventDefault();
  say(byId('line').value);
  byId('line').value = '';
});

choose();
if (chosen === null) watch();
