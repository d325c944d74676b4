// A signaling server as people write it, on the package ws of Node.js. docs/conformance.md lists its faults.
//
//     npm install ws && node examples/servers/ws_server.mjs [PORT]

import { createServer } from 'node:http';
import { createRequire } from 'node:module';

const { WebSocketServer } = createRequire(process.cwd() + '/')('ws');

const devices = new Map();

function onDevice(socket) {
  let deviceId = null;
  socket.on('message', (data) => {
    const message = JSON.parse(data);
    if (message.message_type === 'register') {
      deviceId = message.device_id;
      if (devices.has(deviceId)) {
        devices.get(deviceId).socket.close();
      }
      devices.set(deviceId, { socket, info: message.device_info, clients: new Map(), next: 0 });
      socket.send(JSON.stringify({ message_type: 'config', ice_servers: [] }));
    } else if (message.message_type === 'forward') {
      const client = devices.get(deviceId)?.clients.get(message.client_id);
      client?.send(JSON.stringify({ message_type: 'device_msg', payload: message.payload }));
    }
  });
  socket.on('close', () => {
    devices.get(deviceId)?.clients.forEach((client) => client.close());
    devices.delete(deviceId);
  });
}

function onClient(socket) {
  let device = null;
  let clientId = -1;
  socket.on('message', (data) => {
    const message = JSON.parse(data);
    if (message.message_type === 'connect') {
      socket.send(JSON.stringify({ message_type: 'config', ice_servers: [] }));
      device = devices.get(message.device_id);
      if (!device) {
        socket.send(JSON.stringify({ error: 'Device not found' }));
        return;
      }
      clientId = device.next++;
      device.clients.set(clientId, socket);
      socket.send(JSON.stringify({ message_type: 'device_info', device_info: device.info }));
    } else if (message.message_type === 'forward') {
      device.socket.send(JSON.stringify({ message_type: 'client_msg', client_id: clientId, payload: message.payload }));
    }
  });
  socket.on('close', () => {
    if (device) {
      device.clients.delete(clientId);
      device.socket.send(JSON.stringify({ message_type: 'client_disconnected', client_id: clientId }));
    }
  });
}

const http = createServer((_, response) => response.writeHead(404).end('not found'));
const server = new WebSocketServer({ server: http });
server.on('connection', (socket, request) => {
  socket.on('error', console.error);
  if (request.url.startsWith('/register_device')) onDevice(socket);
  else if (request.url.startsWith('/connect_client')) onClient(socket);
  else socket.close();
});
http.listen(Number(process.argv[2] ?? 8080), '127.0.0.1', () => console.log(`ws://127.0.0.1:${http.address().port}`));
