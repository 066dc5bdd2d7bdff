import { expect, it } from 'vitest';
import { answerAdmin } from '../../functions/lib/admin/api.ts';
import { ConnectFailure } from '../../functions/lib/database/failure.ts';

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

it.each([
  ['53300', 'A server has no connection left for the control plane (SQLSTATE 53300)'],
  ['28000', 'A database of the control plane can’t be reached (28000). Try again.'],
  ['ECONNREFUSED', 'A database of the control plane can’t be reached (ECONNREFUSED). Try again.'],
])('says which answer there was to a connection: %s', async (code, message) => {
  const failure = new ConnectFailure(Object.assign(new Error('detail'), { code }));
  const asked = { httpMethod: 'GET', path: '/operations', body: null, isBase64Encoded: false };
  const { statusCode, body } = await answerAdmin(
    () => Promise.reject(failure),
    asked,
    () => {},
  );
  expect(statusCode).toBe(503);
  expect(JSON.parse(body).error.message).toContain(message);
  expect(body).not.toContain('detail');
});
