// The details of one device: its address, its clients, and its device info as this viewer may see it.

import { askToDisconnect } from './actions.js';
import { iceInWords, setUsualIce } from './conversation.js';
import { byId, element, setText, show, showFacts } from './dom.js';
import { ask, FIRST_PAUSE, isPassing, LONGEST_PAUSE } from './feed.js';
import { Rates } from './rates.js';
import { ago, setWords, words } from './words.js';

/** Seconds after which a device that has sent nothing to its client is said not to have answered. */
export const PATIENCE = 5;

let opened = null;
let watched = null;
let mayManage = false;
/** The number of the newest request for device info. Answers to earlier ones are not shown. */
let newest = 0;
let isLoaded = false;
/** The time at which a client was first seen to have sent something, and received nothing, by client id. */
let asking = new Map();

const rates = new Rates(byId('device-rate'));

/** Shows the details of a device, or hides them. */
export function openDetails(id) {
  opened = id;
  watched = null;
  isLoaded = false;
  asking = new Map();
  byId('device').hidden = id === null;
  byId('welcome').hidden = id !== null;
  document.body.classList.toggle('has-device', id !== null);
  rates.clear();
  if (id === null) return;
  setWords(byId('device-id').firstElementChild, id);
  setText(byId('device-state'), '');
  setText(byId('info'), '');
  showFacts(byId('facts'), []);
  showClients({ clients: [], client_count: 0 });
}

/** Shows the fields that the list of devices has. `undefined`: the device is not in the list. */
export function showRow(row) {
  // Another node counts the messages of its devices.
  const of_row = row?.is_remote ? undefined : row;
  const facts = [
    ['group', row?.group_name || null],
    ['owner', row?.owner || null],
    ['name', row?.name || null],
    ['node', watched?.node ?? null],
    ['local id', watched?.local_id || null],
    ['address', watched?.since && !watched.is_remote ? (watched.address ?? 'a local socket') : null],
    ['adb port', row?.adb_port || null],
    ['registered', watched?.since ? `${ago(watched.since)} ago` : null],
    ['to the device', of_row?.to_device.toLocaleString('en') ?? null],
    ['to its clients', of_row?.to_client.toLocaleString('en') ?? null],
  ];
  showFacts(byId('facts'), facts, setWords);
  if (watched) showClients(watched);
}

/** Adds a second to the line of messages. */
export function countOfDevice(row) {
  const isCounted = Boolean(row && !row.is_remote);
  byId('device-rate').hidden = !isCounted;
  if (isCounted) rates.add(row.to_device + row.to_client);
}

/** Begins the line of messages anew, after a break. */
export const clearDeviceRates = () => rates.clear();

/** Shows the state of the device, and its clients. */
export function showWatched(device) {
  watched = device;
  const isHere = device.since !== null;
  setText(byId('device-state'), isHere ? `registered${device.node ? ` on ${device.node}` : ''}` : 'not registered');
  setText(byId('no-clients'), device.is_remote ? `They are shown on the page of ${device.node}.` : 'None.');
  byId('device-state').classList.toggle('bad', !isHere);
  byId('disconnect').hidden = !isHere || !mayManage;
  showClients(device);
}

function showClients({ clients, client_count }) {
  byId('clients').hidden = clients.length === 0;
  byId('no-clients').hidden = clients.length > 0;
  const more = client_count - clients.length;
  setText(byId('more-clients'), more > 0 ? `and ${more.toLocaleString('en')} more` : '');
  noteSilence(clients);
  show(byId('client-rows'), clients, (client) => String(client.client_id), makeClient, (row, client) => {
    const [id, address, toDevice, toClient, last] = row.children;
    setText(id, `#${client.client_id}`);
    setText(address.firstElementChild, client.address ?? 'a local socket');
    setText(address.lastElementChild, `for ${ago(client.since)}`);
    setText(toDevice, client.to_device.toLocaleString('en'));
    setText(toClient, client.to_client.toLocaleString('en'));
    last.hidden = !mayManage;
  });
  byId('client-actions').hidden = !mayManage;
}

function makeClient({ client_id }) {
  const row = element('tr', {}, element('th', { scope: 'row' }), ...Array.from({ length: 4 }, () => element('td')));
  row.children[1].append(element('span'), element('small'));
  const button = element('button', { type: 'button', className: 'quiet danger', textContent: 'Disconnect' });
  button.ariaLabel = `Disconnect client ${client_id}`;
  button.addEventListener('click', () => askToDisconnect(opened, client_id));
  row.lastElementChild.append(button);
  return row;
}

/** Tells which clients the device has not answered. A client that was answered once is not told of again. */
function noteSilence(clients) {
  const now = performance.now() / 1000;
  const unanswered = clients.filter((client) => client.to_device > 0 && client.to_client === 0).map((client) => client.client_id);
  asking = new Map(unanswered.map((id) => [id, asking.get(id) ?? now]));
  const late = [...asking].filter(([, since]) => now - since >= PATIENCE);
  const longest = Math.floor(now - Math.min(...late.map(([, since]) => since)));
  const names = late.slice(0, 5).map(([id]) => `#${id}`).join(', ');
  const rest = late.length > 5 ? ` and ${late.length - 5} more` : '';
  const whom = late.length === 1 ? `client ${names}` : `the clients ${names}${rest}`;
  setText(byId('silence'), late.length ? `The device has not answered ${whom} for ${longest} s.` : '');
}

/** Shows what the viewer may do, and the ICE servers that peers are told. */
export function showAbout({ may_manage, ice_source, ice_urls }) {
  mayManage = may_manage;
  byId('save-jsonl').hidden = !may_manage;
  const told = iceInWords(ice_urls);
  setUsualIce(ice_urls);
  setText(byId('ice'), {
    none: 'None. Device and client find each other on one network only.',
    settings: told,
    turn: `${told}. Each peer gets a password of its own, for a time.`,
    command: ice_urls.length ? `${told}. The command for ICE servers prints them.` : 'The command for ICE servers has not printed any yet.',
    hook: 'The hook ice_servers decides for each peer. With the journal, each config in the conversation names its servers.',
  }[ice_source] ?? told);
  if (watched) showWatched(watched);
}

/** Fetches the device info, and shows it. Tries again after a failure that may pass, until the page needs another one. */
export async function loadInfo(id) {
  const number = ++newest;
  isLoaded = false;
  const isWanted = () => number === newest && opened === id;
  for (let pause = FIRST_PAUSE; isWanted(); pause = Math.min(2 * pause, LONGEST_PAUSE)) {
    try {
      const answer = await (await ask(`devices/${encodeURIComponent(id)}`)).text();
      const text = JSON.stringify(JSON.parse(answer, asWritten).registration_info, null, 2);
      if (isWanted()) {
        isLoaded = true;
        showInfo(text);
      }
      return;
    } catch (error) {
      const isFinal = error.status && !isPassing(error.status);
      const next = isFinal ? '' : ', trying again';
      if (isWanted()) showInfo(`Could not load the device info: ${error.message}${next}`, true);
      if (isFinal) return;
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

/** Whether the page shows the device info of the newest registration that it knows. */
export const hasInfo = () => isLoaded;

/** Keeps a number as the device has written it: 1.10, 1e400. Browsers of before 2025 cannot. */
function asWritten(_, value, context) {
  return typeof value === 'number' && context && JSON.rawJSON ? JSON.rawJSON(context.source) : value;
}

/** Line breaks of the format are line breaks; all other invisible characters are marks. */
function showInfo(text, isFailure = false) {
  byId('info').classList.toggle('bad', isFailure);
  byId('info').replaceChildren(...text.split('\n').flatMap((part) => [words(part), '\n']));
}

byId('disconnect').addEventListener('click', () => askToDisconnect(opened, null));
