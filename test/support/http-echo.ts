// HTTP server for tests: `node http-echo.js PORT [HOST]`. Answers every request with what it saw of it, as JSON.
import { createServer } from 'node:http';

const [port = '8080', host] = process.argv.slice(2);

const server = createServer((request, response) => {
  let bytes = 0;
  request.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
  });
  request.on('end', () => {
    const { remoteAddress, remotePort, localAddress, localPort } = request.socket;
    response.setHeader('content-type', 'application/json');
    response.end(
      `${JSON.stringify({
        name: process.env['NAME'] ?? '',
        method: request.method,
        path: request.url,
        headers: request.headers,
        bodyBytes: bytes,
        peer: { address: remoteAddress?.replace('::ffff:', ''), port: remotePort },
        local: { address: localAddress?.replace('::ffff:', ''), port: localPort },
      })}\n`,
    );
  });
});
server.listen({ port: Number(port), host }, () => process.stdout.write(`listening on ${port}\n`));
