// Bun as a peer: `bun run bun.js PORT MODE [CERT KEY]`, as its documentation builds a server.
//
// Settings: routes with a handler each (a route that is a finished Response would run no script), `perMessageDeflate` off, topics
// by `subscribe` and `publish`; the longest idle time that Bun takes, for a connection waits while other servers are measured.

const [port, mode, cert, key] = process.argv.slice(2);
const text = { headers: { "Content-Type": "text/plain" } };

const server = Bun.serve({
  port: Number(port),
  hostname: "127.0.0.1",
  idleTimeout: 255,
  tls: mode === "tls" ? { cert: Bun.file(cert), key: Bun.file(key) } : undefined,
  routes: {
    "/": () => new Response("Hello, World!", text),
    "/field": { POST: async (request) => new Response((await request.json()).message, text) },
    "/echo": (request, server) => (server.upgrade(request) ? undefined : new Response("", { status: 400 })),
  },
  fetch: () => new Response("", { status: 404 }),
  websocket: {
    perMessageDeflate: false,
    idleTimeout: 960,
    open: mode === "room" ? (socket) => socket.subscribe("room") : undefined,
    message:
      mode === "room"
        ? (_, message) => server.publish("room", message)
        : (socket, message) => socket.send(message),
  },
});

console.log(`listening ${server.port}`);
