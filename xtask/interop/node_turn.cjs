// node-turn as a server: node node_turn.cjs FOLDER_OF_NODE_MODULES ADDRESS PORT USER PASSWORD REALM

const { createRequire } = require('node:module');

const [modules, address, port, user, password, realm] = process.argv.slice(2);
const Turn = createRequire(`${modules}/`)('node-turn');

new Turn({
  listeningPort: Number(port),
  listeningIps: [address],
  relayIps: [address],
  authMech: 'long-term',
  realm,
  credentials: { [user]: password },
}).start();
