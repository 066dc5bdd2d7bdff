import { randomUUID } from 'node:crypto';
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { AwsFault, type Caller, notEmulated, type Operation, type Service } from './service.ts';
import { readJson, readQuery, writeJson, writeXml } from './wire.ts';

/** Step Functions' inputs end at 256 KiB, escaped at twice that; nothing else the product sends is larger. */
const maxBodyBytes = 1 << 20;

/** An operation that is told by its path (restJson); the others come to `/`. */
export interface Route {
  /** In the signature's scope; absent: any. */
  readonly service?: string;
  readonly path: RegExp;
  readonly maxBodyBytes: number;
  answer(
    method: string,
    match: RegExpExecArray,
    headers: IncomingHttpHeaders,
    body: Buffer,
    query: URLSearchParams,
  ): Promise<Reply> | Reply;
}

export interface AwsServer {
  readonly url: string;
  close(): Promise<void>;
}

/**
 * Answers unchanged AWS SDK clients on 127.0.0.1. Signatures are not verified, but a caller has to know the
 * access key id when one is given: other users of the machine, and pages in a browser, do not.
 */
export async function serveAws(
  services: readonly Service[],
  port: number,
  accessKeyId?: string,
  routes: readonly Route[] = [],
): Promise<AwsServer> {
  const server = createServer((request, response) => {
    answer(services, routes, request, accessKeyId).then(
      (reply) => send(response, reply),
      (error) => send(response, failure(request, error)),
    );
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject).listen(port, '127.0.0.1', resolve);
  });
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

export interface Reply {
  status: number;
  type: string;
  body: string | Buffer;
  headers?: Record<string, string>;
}

async function answer(
  services: readonly Service[],
  routes: readonly Route[],
  request: IncomingMessage,
  accessKeyId?: string,
): Promise<Reply> {
  const scope = /^AWS4-HMAC-SHA256 Credential=([^/]+)\/\d{8}\/([\w-]+)\/([\w-]+)\/aws4_request/.exec(
    request.headers.authorization ?? '',
  );
  if (!scope)
    throw new AwsFault('MissingAuthenticationToken', 'The request has no AWS Signature Version 4.', 403);
  if (accessKeyId !== undefined && scope[1] !== accessKeyId) {
    throw new AwsFault('UnrecognizedClientException', 'This access key is not the local cloud’s.', 403);
  }
  const caller: Caller = { region: scope[2]! };
  for (const route of routes) {
    const match = route.path.exec(pathOf(request));
    if (!match || (route.service !== undefined && route.service !== scope[3])) continue;
    const body = await readBody(request, route.maxBodyBytes);
    const query = new URLSearchParams(request.url!.split('?', 2)[1]);
    return route.answer(request.method!, match, request.headers, body, query);
  }
  if (pathOf(request) !== '/') throw notEmulated(`${scope[3]}:${request.method} ${pathOf(request)}`);
  const body = (await readBody(request, maxBodyBytes)).toString('utf8');
  const target = request.headers['x-amz-target'];
  if (typeof target === 'string') {
    const [prefix, action] = target.split('.');
    const { operation } = find(services, 'awsJson', prefix, action);
    const input = modelled(operation, readJson(operation.input, body));
    return jsonReply(200, writeJson(operation.output, await operation.run(input, caller)));
  }
  const form = new URLSearchParams(body);
  const action = form.get('Action') ?? '';
  form.delete('Action');
  form.delete('Version');
  const { service, operation } = find(services, 'awsQuery', scope[3], action);
  const input = modelled(operation, readQuery(operation.input, form));
  const output = await operation.run(input, caller);
  return xmlReply(200, queryResponse(service, operation, output));
}

function find(services: readonly Service[], protocol: Service['protocol'], name?: string, action?: string) {
  const service = services.find((candidate) => candidate.protocol === protocol && candidate.name === name);
  const operation = service?.operations.find((candidate) => candidate.name === action);
  if (!service || !operation) throw notEmulated(`${name}:${action}`);
  return { service, operation };
}

function modelled(operation: Operation, input: Record<string, unknown>): Record<string, unknown> {
  const other = Object.keys(input).filter((name) => !operation.models.includes(name));
  if (other.length > 0) throw notEmulated(`${operation.name} with ${other.join(', ')}`);
  return input;
}

async function readBody(request: IncomingMessage, limit: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > limit) {
      throw new AwsFault('RequestEntityTooLarge', `The request is larger than ${limit} bytes.`, 413);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function failure(request: IncomingMessage, error: unknown): Reply {
  const fault =
    error instanceof AwsFault ? error : new AwsFault('InternalFailure', 'The emulator failed.', 500);
  if (fault !== error) console.error('AWS emulator:', error);
  if (request.headers['x-amz-target'] !== undefined) {
    return jsonReply(fault.status, JSON.stringify({ __type: fault.code, message: fault.message }));
  }
  if (/\/s3\/aws4_request/.test(request.headers.authorization ?? '')) {
    const error = `<Error><Code>${fault.code}</Code><Message>${escapeXml(fault.message)}</Message></Error>`;
    return { status: fault.status, type: 'application/xml', body: error };
  }
  if (pathOf(request) !== '/') {
    const body = JSON.stringify({ Message: fault.message });
    return { ...jsonReply(fault.status, body), headers: { 'x-amzn-errortype': fault.code } };
  }
  const type = fault.status < 500 ? 'Sender' : 'Receiver';
  const detail = `<Type>${type}</Type><Code>${fault.code}</Code><Message>${escapeXml(fault.message)}</Message>`;
  return xmlReply(
    fault.status,
    `<ErrorResponse><Error>${detail}</Error><RequestId>${randomUUID()}</RequestId></ErrorResponse>`,
  );
}

function queryResponse(service: Service, { name, output: shape }: Operation, output: unknown): string {
  const result = `<${name}Result>${writeXml(shape, output)}</${name}Result>`;
  const metadata = `<ResponseMetadata><RequestId>${randomUUID()}</RequestId></ResponseMetadata>`;
  return `<${name}Response xmlns="${service.xmlNamespace}">${result}${metadata}</${name}Response>`;
}

const jsonReply = (status: number, body: string): Reply => ({
  status,
  type: 'application/x-amz-json-1.1',
  body,
});
const xmlReply = (status: number, body: string): Reply => ({ status, type: 'text/xml', body });

function send(response: ServerResponse, reply: Reply): void {
  response
    .writeHead(reply.status, {
      ...reply.headers,
      'content-type': reply.type,
      'x-amzn-requestid': randomUUID(),
    })
    .end(reply.body);
}

const pathOf = (request: IncomingMessage) => request.url!.split('?', 1)[0]!;

const escapeXml = (text: string) =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
