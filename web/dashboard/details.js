// The details of one device: its address, its clients, and its device info as this viewer may see it.

import { ago, byId, element, setText, show, showFacts } from './dom.js';
import { get } from './feed.js';

/** Shows the details of a device, or hides them. */
export function openDetails(id) {
  byId('device').hidden = id === null;
  byId('hint').hidden = id !== null;
  document.body.classList.toggle('has-device', id !== null);
  if (id === null) return;
  setText(byId('device-id'), id);
  setText(byId('device-state'), '');
  setText(byId('info'), '');
  showFacts(byId('facts'), []);
  showClients({ clients: [], client_count: 0 });
}

/** Shows the fields that the list of devices has. */
export function showRow(row) {
  showFacts(byId('facts'), [
    ['group', row.group_name || null],
    ['owner', row.owner || null],
    ['name', row.name || null],
    ['adb port', row.adb_port || null],
    ['since', `${ago(row.since)} ago`],
    ['to the device', row.to_device],
    ['to its clients', row.to_client],
  ]);
}

/** Shows the state of the device, and its clients. */
export function showWatched(device) {
  const isHere = device.since !== null;
  setText(byId('device-state'), isHere ? 'registered' : 'not registered');
  byId('device-state').classList.toggle('bad', !isHere);
  showClients(device);
}

function showClients({ clients, client_count }) {
  byId('clients').hidden = clients.length === 0;
  byId('no-clients').hidden = clients.length > 0;
  const more = client_count - clients.length;
  setText(byId('more-clients'), more > 0 ? `and ${more} more` : '');
  const make = () => element('tr', {}, ...Array.from({ length: 4 }, () => element('td')));
  show(byId('client-rows'), clients, (client) => String(client.client_id), make, (row, client) => {
    const cells = [`#${client.client_id}`, `${ago(client.since)} ago`, client.to_device, client.to_client];
    cells.forEach((text, at) => setText(row.children[at], String(text)));
  });
}

/** Fetches the device info, and shows it. */
export async function loadInfo(id) {
  let text;
  try {
    const answer = await (await get(`devices/${encodeURIComponent(id)}`)).json();
    text = JSON.stringify(answer.registration_info, null, 2);
  } catch (error) {
    text = error.message;
  }
  if (byId('device-id').textContent === id) setText(byId('info'), text);
}
