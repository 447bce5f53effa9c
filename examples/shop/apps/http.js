// What the shop's programs share: a JSON server and a JSON client on node:http. No mesh library, no TLS: that is the point.
import { createServer, request } from 'node:http';

/**
 * Serves JSON on PORT (8080). `routes` maps 'METHOD /path' to a function of the request's body; every answer tells who served it and which
 * address the caller had.
 */
export function serve(name, routes) {
  const server = createServer(async (incoming, outgoing) => {
    const caller = incoming.socket.remoteAddress.replace('::ffff:', '');
    const route = routes[`${incoming.method} ${incoming.url}`];
    try {
      const body = route === undefined ? { error: 'no such page' } : await route(await readJson(incoming));
      const trail = [{ service: name, caller }, ...(body.trail ?? [])];
      outgoing.writeHead(route === undefined ? 404 : 200, { 'content-type': 'application/json' });
      outgoing.end(`${JSON.stringify({ ...body, trail })}\n`);
    } catch (error) {
      outgoing.writeHead(502, { 'content-type': 'application/json' });
      outgoing.end(`${JSON.stringify({ error: `${name}: ${error.message}` })}\n`);
    }
  });
  const port = Number(process.env.PORT ?? 8080);
  server.listen(port, () => console.log(`${name} listening on ${port}`));
}

/** Calls another service of the shop by the variables that kubelet gives every container. */
export function call(service, method, path, body) {
  const prefix = service.toUpperCase();
  const [host, port] = [process.env[`${prefix}_SERVICE_HOST`], process.env[`${prefix}_SERVICE_PORT`]];
  return new Promise((resolve, reject) => {
    const outgoing = request({ host, port, path, method, agent: false, timeout: 10_000 }, (incoming) => {
      readJson(incoming).then((answer) => {
        if (incoming.statusCode === 200) resolve(answer);
        else reject(new Error(answer.error));
      }, reject);
    });
    outgoing.on('error', (error) => reject(new Error(`${service}: ${error.message}`)));
    outgoing.on('timeout', () => outgoing.destroy(new Error('timed out')));
    outgoing.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

async function readJson(stream) {
  let text = '';
  for await (const chunk of stream.setEncoding('utf8')) text += chunk;
  return text === '' ? {} : JSON.parse(text);
}
