// How devices and clients get here, with the addresses of this server as the browser reaches it.

import { copyButton } from './actions.js';
import { byId, element, setText, show } from './dom.js';

/** Returns the address of a WebSocket endpoint of this server. */
export function socketAddress(path) {
  const url = new URL(path, location.href);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  return url.href;
}

/** Returns the address at which clients of a device connect. */
export const clientAddress = (id) => socketAddress(`devices/${encodeURIComponent(id)}/connect`);

/** Returns the address of this page with a device selected. */
export const pageAddress = (id) => new URL(`#${encodeURIComponent(id)}`, location.href).href;

/** The flags with which a Cuttlefish device of Android 12 to 15 comes here (docs/cuttlefish.md). */
function launchCommand() {
  const { protocol, hostname, port, pathname } = new URL('register_device', location.href);
  const isSecure = protocol === 'https:';
  return [
    'launch_cvd --start_webrtc=true --start_webrtc_sig_server=false',
    `--webrtc_sig_server_addr=${hostname} --webrtc_sig_server_port=${port || (isSecure ? 443 : 80)}`,
    `--webrtc_sig_server_path=${pathname} --webrtc_sig_server_secure=${isSecure}`,
    '--verify_sig_server_certificate=false --webrtc_device_id=cvd-{num}',
  ].join(' ');
}

const testDevice = () => `FakeDevice("${new URL('.', location.href).href.slice(0, -1)}", "cvd-1")`;

/** @param {{device_socket: string | null}} about */
export function showWays({ device_socket }) {
  const isLoopback = /^(localhost|127\.|\[::1\])/.test(location.hostname);
  const others = `Other machines need the name or the address of this one in place of ${location.hostname}.`;
  setText(byId('loopback'), isLoopback ? others : '');
  show(byId('ways'), [
    ['A Cuttlefish device of Android 12 to 15', launchCommand()],
    ...(device_socket ? [['A Cuttlefish device of this machine, by cvd', device_socket]] : []),
    ['Any other device', socketAddress('register_device')],
    ['A client of the device cvd-1', clientAddress('cvd-1')],
    ['A client that names its device in a message', socketAddress('connect_client')],
    ['A fake device in a Python test', testDevice()],
  ], ([title]) => title, make, (item, [title, text]) => {
    setText(item.children[0], title);
    const code = item.children[1].firstElementChild;
    if (code.textContent === text) return;
    // A flag is broken only if it is longer than the line.
    code.replaceChildren(...text.split(/( )/).map((part) => (part === ' ' ? part : element('span', { textContent: part }))));
  });
}

function make([title]) {
  const code = element('code');
  return element('div', {}, element('dt'), element('dd', {}, code, copyButton(() => code.textContent, `“${title}”`)));
}

/** Shows the page without a selected device. @param {number} devices The number of registered devices. */
export function showWelcome(devices) {
  const none = devices === 0;
  byId('welcome').classList.toggle('first', none);
  setText(byId('welcome-title'), none ? 'No device is registered' : 'Choose a device');
  setText(byId('welcome-text'), none ? 'The first one appears here by itself. It comes by one of these ways.' : 'Its clients and its conversation are shown here.');
  const ways = byId('ways-box');
  // Opened once: the viewer may close it.
  if (none && !ways.dataset.opened) ways.open = ways.dataset.opened = true;
}
