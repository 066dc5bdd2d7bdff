import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { mayConnect } from '../../../functions/lib/lifecycle/place.ts';
import { startCluster, type TestCluster } from '../../support/cluster.ts';

/** RDS's answers to a token, which this machine's PostgreSQL has no PAM for, before a real server. */
let cluster: TestCluster;
let door: Server;
let refusals = 0;
let asked = 0;

beforeAll(async () => {
  cluster = await startCluster();
  door = createServer((client: Socket) => {
    client.on('error', () => {});
    asked += 1;
    if (refusals-- > 0) return client.once('data', () => client.end(refusal('PAM authentication failed')));
    const server = connect(cluster.server.port, '127.0.0.1').on('error', () => {});
    client.on('close', () => server.destroy());
    server.on('close', () => client.destroy());
    return client.pipe(server).pipe(client);
  });
  await new Promise<void>((resolve) => door.listen(0, '127.0.0.1', resolve));
});
afterAll(async () => {
  door?.close();
  await cluster?.close();
});

/** PostgreSQL's ErrorResponse. */
function refusal(reason: string): Buffer {
  const fields = Buffer.from(`SFATAL\0VFATAL\0C28000\0M${reason} for user "master"\0\0`);
  const head = Buffer.from('E    ');
  head.writeInt32BE(fields.length + 4, 1);
  return Buffer.concat([head, fields]);
}

const through = () => ({ ...cluster.master, port: (door.address() as AddressInfo).port });
const soon = [1, 1, 1];

it('tries a token again that RDS has refused', async () => {
  // One attempt is two: the second with another token.
  [refusals, asked] = [5, 0];
  expect(await mayConnect(through(), soon)).toBe(true);
  expect(asked).toBe(6);
});

it('never takes a refused token for a login that is missing', async () => {
  refusals = 100;
  await expect(mayConnect(through(), soon)).rejects.toMatchObject({ meaning: 'credential' });
});

it('sees at once that a login is missing', async () => {
  [refusals, asked] = [0, 0];
  expect(await mayConnect({ ...through(), login: 'nobody' }, soon)).toBe(false);
  expect(asked).toBe(2);
});
