import { expect, it } from 'vitest';
import { answerAdmin } from '../../functions/lib/admin/api.ts';

it.each([
  ['the server ended its connection', { code: '57P02' }],
  ['the socket broke', { code: 'EPIPE' }],
  ['the connection closed', { message: 'Connection terminated unexpectedly' }],
  ['its disk is full', { code: '53100', message: 'could not extend file' }],
])('says that it may be tried again when %s', async (_, lost) => {
  const faults: unknown[] = [];
  const admin = () => Promise.reject(Object.assign(new Error(), lost));
  const answer = await answerAdmin(
    admin,
    { httpMethod: 'GET', path: '/operations', body: null, isBase64Encoded: false },
    (fault) => faults.push(fault),
  );
  expect([answer.statusCode, JSON.parse(answer.body).error.code]).toEqual([503, 'unavailable']);
  if ('code' in lost && lost.code === '53100')
    expect(answer.body).toContain('make room on that server’s disk');
  expect(faults).toHaveLength(1);
});
