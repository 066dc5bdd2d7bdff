import { randomBytes, randomUUID, timingSafeEqual } from 'node:crypto';
import { rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { join } from 'node:path';
import type { LambdaHost } from '../lambda/host.ts';
import { proxyEvent } from './event.ts';
import { buffered, type Gateway, IntegrationTimeout, isLoopback, readBody } from './gateway.ts';

export interface AdminGateway extends Gateway {
  /** In place of IAM: whoever can read this user's files may operate the tenants. */
  readonly token: string;
}

/** The admin API on a port of its own of 127.0.0.1, where it is IAM-authorised on AWS. */
export async function startAdminGateway(
  lambda: LambdaHost,
  mint: (tenant: string, scopes: readonly string[]) => Promise<string>,
): Promise<AdminGateway> {
  const token = randomBytes(32).toString('base64url');
  const server = createServer((message, response) => {
    serve(lambda, mint, token, message, response).catch((error: unknown) => {
      console.error('admin:', error instanceof Error ? error.message : error);
      const [status, why] =
        error instanceof IntegrationTimeout
          ? [504, 'has not answered in 29 seconds; what it has begun may go on']
          : [502, `failed: ${error instanceof Error ? error.message : error}`];
      const log = 'logs/admin.log and the terminal of `npm start` say more';
      refuse(message, response, status, 'internal', `The admin function ${why}. ${log}.`);
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject).listen(0, '127.0.0.1', resolve);
  });
  return {
    token,
    port: (server.address() as { port: number }).port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** Where the command line finds it. @returns what takes the file away again */
export function writeAdminFile(folder: string, publicUrl: string, { port, token }: AdminGateway): () => void {
  const file = join(folder, 'admin.json');
  // Removed first: the mode is that of a new file only.
  rmSync(file, { force: true });
  const text = JSON.stringify({ url: `http://127.0.0.1:${port}`, token, endpoint: publicUrl });
  writeFileSync(file, text, { mode: 0o600, flag: 'wx' });
  return () => rmSync(file, { force: true });
}

async function serve(
  lambda: LambdaHost,
  mint: (tenant: string, scopes: readonly string[]) => Promise<string>,
  token: string,
  message: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const { host, origin, authorization = '' } = message.headers;
  // A page in this machine's browser: by its own name, or one that it made point here.
  if (origin !== undefined || !isLoopback(host))
    return refuse(message, response, 403, 'forbidden', 'Not for browsers.');
  const wanted = Buffer.from(`Bearer ${token}`);
  const given = Buffer.from(authorization);
  if (given.length !== wanted.length || !timingSafeEqual(given, wanted))
    return refuse(message, response, 403, 'forbidden', 'The token of admin.json is missing.');
  const body = await readBody(message);
  if (body === undefined)
    return refuse(message, response, 413, 'too_large', 'The body is larger than 10 MB.');
  const [path, search = ''] = message.url!.split('?');
  // Not the admin API's: a deployment's identity provider makes its own tokens.
  if (path === '/local/token' && message.method === 'POST') {
    const { tenant, scopes } = JSON.parse(body.toString('utf8')) as { tenant: string; scopes: string[] };
    response.writeHead(200, { 'content-type': 'application/json', 'cache-control': 'no-store' });
    return void response.end(JSON.stringify({ token: await mint(tenant, scopes) }));
  }
  const route = { method: message.method!, path: '/{proxy+}', target: 'admin', authorized: false };
  const request = {
    requestId: randomUUID(),
    route,
    message,
    path: path!,
    query: new URLSearchParams(search),
  };
  const event = proxyEvent(request as never, body, undefined);
  // The gateway takes it for itself: a function has no use for it.
  for (const headers of [event.headers, event.multiValueHeaders])
    for (const name of Object.keys(headers)) if (name.toLowerCase() === 'authorization') delete headers[name];
  await buffered(lambda, 'admin', event, response);
}

function refuse(
  message: IncomingMessage,
  response: ServerResponse,
  status: number,
  code: string,
  text: string,
): void {
  message.resume();
  if (response.headersSent) return void response.destroy();
  const body = JSON.stringify({ error: { code, message: text } });
  response.writeHead(status, { 'content-type': 'application/json' }).end(body);
}
