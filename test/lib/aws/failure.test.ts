import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createInstances, type InstanceSettings } from '../../../functions/lib/aws/rds.ts';
import { openBucket } from '../../../functions/lib/aws/s3.ts';
import { createSecrets } from '../../../functions/lib/aws/secrets.ts';
import { createWorkflows } from '../../../functions/lib/aws/step-functions.ts';
import type { TenantId } from '../../../functions/lib/tenant/tenant.ts';

/** An AWS that answers every call with one error, in the form of each service. */
let fault: { status: number; name: string };
const server = createServer((request, response) => {
  request.resume().on('end', () => {
    const { status, name } = fault;
    const isJson = request.headers['x-amz-target'] !== undefined;
    const isRds = /rds/.test(request.headers.authorization ?? '');
    const error = `<Error><Type>Sender</Type><Code>${name}</Code><Message>planned</Message></Error>`;
    const xml = isRds ? `<ErrorResponse>${error}</ErrorResponse>` : error;
    response.writeHead(status, { 'content-type': isJson ? 'application/x-amz-json-1.1' : 'text/xml' });
    response.end(isJson ? JSON.stringify({ __type: name, message: 'planned' }) : xml);
  });
});

beforeAll(async () => {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  Object.assign(process.env, {
    AWS_ENDPOINT_URL: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    AWS_REGION: 'eu-west-1',
    AWS_ACCESS_KEY_ID: 'test',
    AWS_SECRET_ACCESS_KEY: 'test',
  });
});
afterAll(() => server.close());

const secrets = createSecrets();
const instances = createInstances({ securityGroups: [] } as unknown as InstanceSettings);
const bucket = openBucket('exports-here', 'folder');
const arn = 'arn:aws:states:eu-west-1:111122223333:stateMachine:one';

const calls: [string, () => Promise<unknown>][] = [
  ['RDS: looking', () => instances.ready('tenantry-x')],
  ['RDS: creating', () => instances.create('tenantry-x', 't' as TenantId)],
  ['Secrets Manager: writing', () => secrets.write('one', 'x')],
  ['Secrets Manager: removing', () => secrets.remove('one')],
  ['S3: writing', () => bucket.write('one.csv', Readable.from(['x'], { objectMode: false }))],
  ['S3: reading', () => bucket.read('one.csv')],
  ['Step Functions: starting', () => createWorkflows().start(arn, 'one', {})],
];
/** What each of them says to the fault, all at once: the clients try again for seconds. */
const answersTo = async (status: number, name: string) => {
  fault = { status, name };
  const answers = calls.map(async ([what, call]) => [what, await call().catch((error) => error)]);
  return Object.fromEntries(await Promise.all(answers));
};
const all = (answer: object) => Object.fromEntries(calls.map(([what]) => [what, answer]));

it.each([
  [400, 'Throttling'],
  [503, 'ServiceUnavailable'],
])('%i %s may pass by itself', async (status, name) => {
  expect(await answersTo(status, name)).toMatchObject(all({ code: 'unavailable' }));
});

it('a refusal stays one, and says why', async () => {
  const message = expect.stringContaining('refused the call (AccessDenied: planned)');
  expect(await answersTo(400, 'AccessDenied')).toMatchObject(all({ code: 'internal', message }));
});

it('a secret may be written again once one of its name, which was removed, has gone', async () => {
  fault = { status: 400, name: 'InvalidRequestException' };
  const gone = { code: 'unavailable', message: expect.stringContaining('still being deleted') };
  await expect(secrets.create('one', 'x')).rejects.toMatchObject(gone);
  await expect(secrets.write('one', 'x')).rejects.toMatchObject(gone);
});

it('tells what could not be read as it is, and not as S3’s', async () => {
  fault = { status: 503, name: 'ServiceUnavailable' };
  const broken = Readable.from(
    (async function* () {
      yield 'x';
      throw new Error('the source broke');
    })(),
    { objectMode: false },
  );
  await expect(bucket.write('one.csv', broken)).rejects.toThrow('the source broke');
});
