import { createServer, type IncomingMessage, request as send } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Context } from '../infra/iam.ts';

/** One call of AWS, as IAM sees it. */
export interface Call {
  /** The access key id that signed it: the function's name. */
  readonly caller: string;
  readonly action: string;
  /** What it is about, as the caller named it: a secret's name or ARN, a machine's ARN, a function's name. */
  readonly target: string;
  /** Marks that the call would give: `aws:RequestTag/…`. */
  readonly context: Context;
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
    const text = body.toString('utf8');
    const asked = { context: {}, ...callOf(incoming, text) };
    const all = [asked, ...dependents(asked, text)];
    calls.push(...all);
    const call = all.find((each) => !allowed(each));
    if (call !== undefined) {
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

/** What AWS asks of the caller besides, because the call does it too: the service authorization reference's "dependent actions". */
function dependents({ caller, action, target, context }: Call, body: string): Call[] {
  const form = new URLSearchParams(body);
  const snapshot = form.get('FinalDBSnapshotIdentifier');
  const none = {};
  if (action === 'rds:CreateDBInstance')
    return [
      { caller, action: 'rds:AddTagsToResource', target, context },
      ...['CreateSecret', 'TagResource'].map((name) => ({
        caller,
        action: `secretsmanager:${name}`,
        target: 'rds!db-new',
        context: none,
      })),
      ...['SecurityGroups', 'Subnets', 'Vpcs'].map((what) => ({
        caller,
        action: `ec2:Describe${what}`,
        target: '*',
        context: { 'aws:ViaAWSService': 'true', 'lambda:SourceFunctionArn': caller },
      })),
    ];
  if (action !== 'rds:DeleteDBInstance' || snapshot === null) return [];
  const kept = target.replace(/:db:.*/, `:snapshot:${snapshot}`);
  return [
    { caller, action: 'rds:CreateDBSnapshot', target, context: none },
    { caller, action: 'rds:CreateDBSnapshot', target: kept, context: none },
    // Instances copy their tags to it.
    { caller, action: 'rds:AddTagsToResource', target: kept, context: none },
  ];
}

const objectActions: Record<string, string> = { GET: 'GetObject', DELETE: 'AbortMultipartUpload' };

function callOf(
  { headers, url, method }: IncomingMessage,
  body: string,
): Omit<Call, 'context'> & Partial<Call> {
  const [, caller = '', service = ''] =
    /Credential=([^/]+)\/\d+\/[\w-]+\/([\w-]+)\//.exec(headers.authorization ?? '') ?? [];
  const invoked = /^\/2015-03-31\/functions\/([^/]+)\/invocations/.exec(url!);
  if (invoked) return { caller, action: 'lambda:InvokeFunction', target: decodeURIComponent(invoked[1]!) };
  if (service === 's3') {
    const { pathname } = new URL(url!, 'http://s3');
    return {
      caller,
      action: `s3:${objectActions[method!] ?? 'PutObject'}`,
      target: `arn:aws:s3::${pathname.replace('/', ':')}`,
    };
  }
  if (headers['content-type']?.startsWith('application/x-www-form-urlencoded')) {
    const form = new URLSearchParams(body);
    const name = form.get('DBInstanceIdentifier') ?? '*';
    const target = `arn:aws:rds:eu-west-1:111122223333:db:${name}`;
    const tags = Array.from(form, ([name, key]) => ({
      key,
      index: /^Tags\.\w+\.(\d+)\.Key$/.exec(name)?.[1],
    }));
    const marks = tags.filter(({ index }) => index !== undefined);
    const context: Context =
      marks.length === 0
        ? {}
        : {
            'aws:TagKeys': marks.map(({ key }) => key),
            ...Object.fromEntries(
              marks.map(({ key, index }) => [
                `aws:RequestTag/${key}`,
                form.get(`Tags.Tag.${index}.Value`) ?? form.get(`Tags.member.${index}.Value`) ?? '',
              ]),
            ),
          };
    return { caller, action: `${service}:${form.get('Action')}`, target, context };
  }
  const operation = String(headers['x-amz-target'] ?? '')
    .split('.')
    .at(-1)!;
  const input = JSON.parse(body || '{}') as Record<string, string>;
  const target = input.SecretId ?? input.Name ?? input.stateMachineArn ?? input.executionArn ?? '';
  return { caller, action: `${service}:${operation}`, target };
}
