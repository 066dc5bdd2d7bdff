import type { FunctionRow } from '../../functions.ts';
import { substitutionName } from '../../machines.ts';
import { FunctionError } from '../lambda/environment.ts';
import { type LambdaHost, PayloadTooLarge } from '../lambda/host.ts';
import type { Route } from './http.ts';
import { accountId } from './secret-store.ts';
import { AwsFault, notEmulated } from './service.ts';

/** Lambda's quota for a synchronous invocation. */
const maxPayloadBytes = 6 * 1024 * 1024;

/** The deployed functions by their names or ARNs, as callers of Lambda know them. */
export interface LocalFunctions {
  rows: readonly FunctionRow[];
  /** The host starts after the emulator, whose address its functions need. */
  host: () => Pick<LambdaHost, 'invoke' | 'stream'> | undefined;
}

const functionArn = (region: string, name: string) =>
  `arn:aws:lambda:${region}:${accountId}:function:tenantry-${name}`;

/** What fills the `${…}` of the machines' files: AWS's partition and the functions' ARNs. */
export const machineSubstitutions = (
  rows: readonly FunctionRow[],
  region: string,
): Record<string, string> => ({
  Partition: 'aws',
  ...Object.fromEntries(rows.map(({ name }) => [substitutionName(name), functionArn(region, name)])),
});

/** The way in which a state machine calls a function. @throws FunctionError */
export function invokeByName(functions: LocalFunctions, name: string, payload: unknown): Promise<unknown> {
  const row = find(functions, name);
  if (!row) {
    return Promise.reject(
      new FunctionError('Lambda.ResourceNotFoundException', `Function not found: ${name}`),
    );
  }
  if (row.streaming) {
    // What it writes is not JSON, and Step Functions takes nothing else.
    return Promise.reject(new FunctionError('Lambda.Unknown', `${name} streams its answer.`));
  }
  const host = functions.host();
  return host
    ? host.invoke(row.name, payload)
    : Promise.reject(new FunctionError('Lambda.ServiceException', 'The functions are starting.'));
}

/** Lambda's `Invoke`, for an answer that the caller waits for. */
export const lambdaInvoke = (functions: LocalFunctions): Route => ({
  path: /^\/2015-03-31\/functions\/([^/]+)\/invocations$/,
  maxBodyBytes: maxPayloadBytes,
  async answer(method, [, encoded], headers, body) {
    const name = decodeURIComponent(encoded!);
    const kind = headers['x-amz-invocation-type'] ?? 'RequestResponse';
    if (method !== 'POST') throw notEmulated(`lambda:${method}`);
    if (kind !== 'RequestResponse') throw notEmulated(`lambda:Invoke with InvocationType ${kind}`);
    if (headers['x-amz-log-type'] === 'Tail') throw notEmulated('lambda:Invoke with LogType Tail');
    const row = find(functions, name);
    const host = functions.host();
    if (!row) throw new AwsFault('ResourceNotFoundException', `Function not found: ${name}`, 404);
    if (!host) throw new AwsFault('ServiceException', 'The functions are starting.', 500);
    const event = parse(body.toString('utf8'));
    try {
      const answer = row.streaming
        ? await buffered(host, row.name, event)
        : JSON.stringify(await host.invoke(row.name, event));
      return reply(answer, {});
    } catch (error) {
      if (error instanceof PayloadTooLarge) {
        throw new AwsFault('RequestTooLargeException', error.message, 413);
      }
      if (!(error instanceof FunctionError)) throw error;
      const document = { errorType: error.type, errorMessage: error.message, trace: trace(error) };
      return reply(JSON.stringify(document), { 'x-amz-function-error': 'Unhandled' });
    }
  },
});

function find({ rows }: LocalFunctions, nameOrArn: string): FunctionRow | undefined {
  const name = nameOrArn.replace(/^arn:aws:lambda:[\w-]+:\d+:function:/, '').replace(/:\$LATEST$/, '');
  return rows.find((row) => name === row.name || name === `tenantry-${row.name}`);
}

function parse(body: string): unknown {
  try {
    return body === '' ? {} : JSON.parse(body);
  } catch {
    throw new AwsFault('InvalidRequestContentException', 'Could not parse request body into json.', 400);
  }
}

/** Lambda gives a caller who does not stream the same bytes in one piece: for an HTTP answer its prelude first. */
async function buffered(host: Pick<LambdaHost, 'stream'>, name: string, event: unknown): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  await host.stream(name, event, (data) => chunks.push(data));
  return Buffer.concat(chunks);
}

const reply = (body: string | Buffer, headers: Record<string, string>) => ({
  status: 200,
  type: 'application/json',
  body,
  headers: { ...headers, 'x-amz-executed-version': '$LATEST' },
});

const trace = (error: FunctionError) =>
  error.type === 'Sandbox.Timedout' ? undefined : (error.stack ?? '').split('\n');
