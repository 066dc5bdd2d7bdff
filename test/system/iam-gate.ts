import { createServer, type IncomingMessage, request as send } from 'node:http';
import type { AddressInfo } from 'node:net';

/** One call of AWS, as IAM sees it. */
export interface Call {
  /** The access key id that signed it: the function's name. */
  readonly caller: string;
  readonly action: string;
  /** What it is about, as the caller named it: a secret's name or ARN, a machine's ARN, a function's name. */
  readonly target: string;
}

export interface Gate {
  readonly url: string;
  readonly calls: readonly Call[];
  close(): void;
}

/** In front of the emulator, which has no IAM: passes on what `allowed` says yes to, and answers 403 to the rest. */
export async function startGate(emulator: string, allowed: (call: Call) => boolean): Promise<Gate> {
  const calls: Call[] = [];
  const server = createServer(async (incoming, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of incoming) chunks.push(chunk);
    const body = Buffer.concat(chunks);
    const call = callOf(incoming, body.toString('utf8'));
    calls.push(call);
    if (!allowed(call)) {
      const message = `User ${call.caller} is not authorized to perform ${call.action} on ${call.target}`;
      response.writeHead(400, { 'content-type': 'application/x-amz-json-1.1' });
      return void response.end(JSON.stringify({ __type: 'AccessDeniedException', message }));
    }
    const { method, url, headers } = incoming;
    const passed = send(new URL(url!, emulator), { method, headers }, (answer) => {
      response.writeHead(answer.statusCode!, answer.headers);
      answer.pipe(response);
    });
    passed.on('error', () => response.destroy()).end(body);
  });
  await new Promise<void>((ready) => server.listen(0, '127.0.0.1', ready));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    calls,
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

function callOf({ headers, url }: IncomingMessage, body: string): Call {
  const [, caller = '', service = ''] =
    /Credential=([^/]+)\/\d+\/[\w-]+\/([\w-]+)\//.exec(headers.authorization ?? '') ?? [];
  const invoked = /^\/2015-03-31\/functions\/([^/]+)\/invocations/.exec(url!);
  if (invoked) return { caller, action: 'lambda:InvokeFunction', target: decodeURIComponent(invoked[1]!) };
  if (headers['content-type']?.startsWith('application/x-www-form-urlencoded')) {
    const form = new URLSearchParams(body);
    const name = form.get('DBInstanceIdentifier') ?? '*';
    const target = `arn:aws:rds:eu-west-1:111122223333:db:${name}`;
    return { caller, action: `${service}:${form.get('Action')}`, target };
  }
  const operation = String(headers['x-amz-target'] ?? '')
    .split('.')
    .at(-1)!;
  const input = JSON.parse(body || '{}') as Record<string, string>;
  const target = input.SecretId ?? input.Name ?? input.stateMachineArn ?? input.executionArn ?? '';
  return { caller, action: `${service}:${operation}`, target };
}
