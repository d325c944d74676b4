// The list of devices. Each is a link, so that the keyboard, the history and new tabs work as usual.

import { ago, byId, element, setText, show } from './dom.js';

/** The link to the details of a device. */
export const addressOf = (id) => `#${encodeURIComponent(id)}`;

/**
 * @param {object[]} devices The devices that the server sent.
 * @param {number} matching The number of devices that match the search.
 * @param {string | null} chosen The id of the selected device.
 */
export function showDevices(devices, matching, chosen) {
  const many = matching === 1 ? '1 device' : `${matching} devices`;
  setText(byId('count'), matching > devices.length ? `${many}, the first ${devices.length} shown: search for others` : many);
  show(byId('devices'), devices, (device) => device.device_id, make, (item, device) => update(item, device, chosen));
}

function make(device) {
  const link = element('a', { href: addressOf(device.device_id) });
  link.append(element('strong', { textContent: device.device_id }), element('span'), element('small'));
  return element('li', {}, link);
}

function update(item, device, chosen) {
  const link = item.firstElementChild;
  const [, place, counts] = link.children;
  const words = [device.name, device.group_name, device.owner];
  setText(place, words.filter(Boolean).join(' · '));
  const clients = device.clients === 1 ? '1 client' : `${device.clients} clients`;
  setText(counts, `${clients} · ${device.to_device + device.to_client} messages · ${ago(device.since)}`);
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
    const link = element('a', { href: addressOf(device.device_id) });
    link.append(element('bdi', { textContent: device.device_id }));
    return element('li', {}, link, element('small'));
  };
  show(byId('waiting-devices'), devices, (device) => device.device_id, make, (item, device) => {
    const waiting = device.clients === 1 ? '1 client' : `${device.clients} clients`;
    setText(item.lastElementChild, `${waiting} · ${ago(device.since)}`);
  });
  const more = clients - devices.reduce((sum, device) => sum + device.clients, 0);
  setText(byId('more-waiting'), more > 0 ? `and ${more} more clients` : '');
}

/** Moves the focus within the list with the arrow keys. */
export function moveFocus(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  const links = [...byId('devices').querySelectorAll('a')];
  const next = links[links.indexOf(document.activeElement) + step];
  if (next) next.focus();
  else if (step < 0) byId('search').focus();
  event.preventDefault();
}
