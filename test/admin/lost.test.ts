import { expect, it } from 'vitest';
import { answerAdmin } from '../../functions/lib/admin/api.ts';

it.each([
  ['the server ended its connection', { code: '57P02' }],
  ['the socket broke', { code: 'EPIPE' }],
  ['the connection closed', { message: 'Connection terminated unexpectedly' }],
])('says that it may be tried again when %s', async (_, lost) => {
  const faults: unknown[] = [];
  const admin = () => Promise.reject(Object.assign(new Error(), lost));
  const answer = await answerAdmin(
    admin,
    { httpMethod: 'GET', path: '/operations', body: null, isBase64Encoded: false },
    (fault) => faults.push(fault),
  );
  expect([answer.statusCode, JSON.parse(answer.body).error.code]).toEqual([503, 'unavailable']);
  expect(faults).toHaveLength(1);
});
