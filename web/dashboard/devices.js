// The list of devices. Each is a link, so that the history and new tabs work as usual. One link of the list takes part in
// the order of Tab: the arrow keys move among them.

import { byId, element, setText, show } from './dom.js';
import { age, ago, clock, count, setWords, words } from './words.js';

/** The link to the details of a device. */
export const addressOf = (id) => `#${encodeURIComponent(id)}`;

/** `cvd-2` comes before `cvd-10`. */
const { compare } = new Intl.Collator('en', { numeric: true });

const messages = (device) => device.to_device + device.to_client;

/** The orders of the list. Equal devices stay in the order of ids. */
const ORDERS = {
  id: () => 0,
  newest: (a, b) => b.since - a.since,
  clients: (a, b) => b.clients - a.clients,
  messages: (a, b) => messages(b) - messages(a),
};

let byIds = { ids: [], ranks: new Map() };

/** The rank of each id. It is computed anew when a device has come or gone. */
function ranksOf(devices) {
  const ids = devices.map((device) => device.device_id);
  if (ids.length !== byIds.ids.length || ids.some((id, at) => id !== byIds.ids[at])) {
    byIds = { ids, ranks: new Map([...ids].sort(compare).map((id, at) => [id, at])) };
  }
  return byIds.ranks;
}

/**
 * @param {object[]} devices The devices that the server sent.
 * @param {number} matching The number of devices that match the search.
 * @param {string | null} chosen The id of the selected device.
 */
export function showDevices(devices, matching, chosen) {
  const many = count(matching, 'device');
  const some = `${many}, the first ${devices.length.toLocaleString('en')} by id shown: search for others`;
  setText(byId('count'), matching > devices.length ? some : many);
  const ranks = ranksOf(devices);
  const order = ORDERS[byId('sort').value];
  const sorted = [...devices].sort((a, b) => order(a, b) || ranks.get(a.device_id) - ranks.get(b.device_id));
  show(byId('devices'), groupsOf(sorted), ([name]) => name, makeGroup, (section, [name, members]) => {
    const [title, list] = section.children;
    title.hidden = name === '*';
    setWords(title.firstElementChild, name.slice(1) || 'no group');
    setText(title.lastElementChild, String(members.length));
    show(list, members, (device) => device.device_id, make, (item, device) => update(item, device, chosen));
  });
  keepOneStop(chosen);
}

/** The devices by group, each under a key: `*` for all, or the name behind a colon. */
function groupsOf(devices) {
  if (!byId('grouped').checked) return devices.length ? [['*', devices]] : [];
  const groups = new Map();
  for (const device of devices) {
    const key = `:${device.group_name}`;
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(device);
  }
  // Devices without a group come last.
  return [...groups].sort(([a], [b]) => (a === ':') - (b === ':') || compare(a, b));
}

function makeGroup() {
  return element('section', {}, element('h3', {}, element('bdi'), ' ', element('small')), element('ul'));
}

function make(device) {
  const link = element('a', { href: addressOf(device.device_id), tabIndex: -1 });
  const line = (...parts) => element('span', { className: 'line' }, ...parts);
  link.append(line(words(device.device_id, 'name'), element('span', { className: 'pill' })));
  link.append(line(element('small'), element('small')));
  return element('li', {}, link);
}

const rows = new WeakMap();

function update(item, device, chosen) {
  const { name, group_name, owner, clients, since, node, local_id, unclaimed, is_remote } = device;
  const home = node && `on ${node}${unclaimed ? ' only' : ''}`;
  const place = [name, group_name, owner, local_id, home].filter(Boolean).join(' · ');
  // The clients and the messages of a device of another node are known there.
  const numbers = [!is_remote && count(messages(device), 'message'), age(since)].filter(Boolean).join(' · ');
  const row = [place, clients, numbers, device.device_id === chosen].join('\0');
  if (rows.get(item) === row) return;
  rows.set(item, row);
  const link = item.firstElementChild;
  const [pill, [where, counts]] = [link.firstElementChild.lastElementChild, link.lastElementChild.children];
  setText(pill, clients ? count(clients, 'client') : '');
  setWords(where, place);
  setText(counts, numbers);
  if (device.device_id === chosen) link.setAttribute('aria-current', 'true');
  else link.removeAttribute('aria-current');
}

/**
 * Shows the devices that clients wait for.
 *
 * @param {object[]} devices The devices that the server sent.
 * @param {number} clients The number of clients that wait, those for other devices included.
 */
export function showWaiting(devices, clients) {
  byId('waiting').hidden = clients === 0;
  const make = (device) => {
    const link = element('a', { href: addressOf(device.device_id) }, words(device.device_id, 'name'));
    return element('li', {}, link, element('small'), element('ul'));
  };
  show(byId('waiting-devices'), devices, (device) => device.device_id, make, (item, device) => {
    const [, sum, list] = item.children;
    setText(sum, `${count(device.clients, 'client')}, the first for ${ago(device.since)}`);
    const rest = device.clients - device.first.length;
    const lines = device.first.map(({ address, since }) => `${address ?? 'a local socket'} since ${clock(since).slice(0, 8)}`);
    if (rest > 0) lines.push(`and ${count(rest, 'more client')}`);
    show(list, lines.map((line, at) => [at, line]), ([at]) => String(at), () => element('li'), (row, [, line]) => setText(row, line));
  });
  const more = clients - devices.reduce((sum, device) => sum + device.clients, 0);
  setText(byId('more-waiting'), more > 0 ? `and ${count(more, 'client')} of other devices` : '');
}

const links = () => [...byId('devices').querySelectorAll('a')];

let stop;

/** Keeps one link in the order of Tab: the last one with the focus, else the selected one, else the first. */
function keepOneStop(chosen) {
  const all = byId('devices');
  const current = all.querySelector('a[aria-current]');
  const wanted = all.contains(document.activeElement) ? document.activeElement : (chosen !== null && current) || all.querySelector('a');
  if (stop === wanted) return;
  if (stop) stop.tabIndex = -1;
  stop = wanted;
  if (stop) stop.tabIndex = 0;
}

/** Moves the focus within the list with the arrow keys, Home and End. */
export function moveFocus(event) {
  const isInList = byId('devices').contains(document.activeElement);
  if (event.ctrlKey || event.metaKey || event.altKey || !(isInList || event.target.id === 'search')) return;
  const all = links();
  const at = all.indexOf(document.activeElement);
  const places = { ArrowDown: at + 1, ArrowUp: at - 1, ...(isInList && { Home: 0, End: all.length - 1 }) };
  if (!(event.key in places)) return;
  const next = all[places[event.key]];
  if (next) next.focus();
  else if (event.key === 'ArrowUp') byId('search').focus();
  event.preventDefault();
}

byId('devices').addEventListener('focusin', () => keepOneStop(null));
