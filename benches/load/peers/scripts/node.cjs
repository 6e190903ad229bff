// Node with ws as a peer: `node node.cjs PORT MODE [CERT KEY]`, as the documentation of both builds a server.
//
// Settings: node:http, `perMessageDeflate` off (the default of ws), no native add-ons for ws; no idle time, for a connection waits
// while other servers are measured. Everything on the one thread.

const fs = require("node:fs");
const { WebSocketServer, WebSocket } = require("ws");

const [port, mode, cert, key] = process.argv.slice(2);

function text(response, status, body) {
  response.writeHead(status, { "Content-Type": "text/plain", "Content-Length": Buffer.byteLength(body) });
  response.end(body);
}

function answer(request, response) {
  if (request.url === "/") {
    text(response, 200, "Hello, World!");
  } else if (request.url === "/field" && request.method === "POST") {
    const pieces = [];
    request.on("data", (piece) => pieces.push(piece));
    request.on("end", () => text(response, 200, JSON.parse(Buffer.concat(pieces)).message));
  } else {
    text(response, 404, "");
  }
}

const server =
  mode === "tls"
    ? require("node:https").createServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key) }, answer)
    : require("node:http").createServer(answer);
server.keepAliveTimeout = 0;

const sockets = new WebSocketServer({ server, perMessageDeflate: false });
sockets.on("connection", (socket) => {
  // The harness cuts its connections when it is done with them.
  socket.on("error", () => {});
  if (mode === "room") {
    socket.on("message", (message, binary) => {
      for (const other of sockets.clients) {
        if (other.readyState === WebSocket.OPEN) {
          other.send(message, { binary });
        }
      }
    });
  } else {
    socket.on("message", (message, binary) => socket.send(message, { binary }));
  }
});

server.listen(Number(port), "127.0.0.1", 4096, () => console.log(`listening ${server.address().port}`));
