import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { answerAdmin } from '../../functions/lib/admin/api.ts';
import { createTokenVerifier } from '../../functions/lib/auth/verify-token.ts';
import { routeOf, type World } from '../support/world.ts';
import { type AdminWorld, code, startAdmin, url } from './support.ts';

let world: World;
let admin: AdminWorld['admin'];
let publicKey: AdminWorld['publicKey'];
let ask: AdminWorld['ask'];
beforeAll(async () => {
  ({ world, admin, publicKey, ask } = await startAdmin());
});
afterAll(() => world?.close());

describe('API keys', () => {
  const wanted = { name: 'agent', scopes: ['notes:write', 'notes:read'], days: 30 };
  const keys = '/tenants/schema-a/keys';
  const verify = (token: string) =>
    createTokenVerifier({
      issuers: [],
      apiKeyJwks: { keys: [publicKey as never] },
      apiKeyIssuer: url,
      audience: url,
    })(token);

  it('are shown once, speak for their tenant, and are refused when revoked', async () => {
    const { status, body } = await ask('POST', keys, wanted);
    expect(status).toBe(201);
    expect(body.token).toMatch(/^tnt_/);
    const principal = await verify(body.token);
    const { a } = world.tenants.schema;
    expect(principal).toMatchObject({
      tenant: a.id,
      scopes: 'notes:read notes:write',
      auth: `key:${body.id}`,
    });
    expect(await world.access().resolve(principal)).toMatchObject({ homeId: routeOf(a).homeId });

    const { token: _, ...listed } = body;
    expect((await ask('GET', keys)).body.keys).toContainEqual(listed);
    const revoked = await ask('POST', `${keys}/${body.id}/revoke`);
    expect(revoked.body.revokedAt).not.toBeNull();
    expect((await ask('POST', `${keys}/${body.id}/revoke`)).body).toEqual(revoked.body);
    await expect(world.access().resolve(principal)).rejects.toMatchObject({ code: 'key_revoked' });
  });

  it('are one with the same idempotency key', async () => {
    const once = { 'idempotency-key': 'agent-1' };
    const first = await ask('POST', keys, wanted, once);
    const second = await ask('POST', keys, wanted, once);
    expect(await verify(second.body.token)).toEqual(await verify(first.body.token));
    expect(code(await ask('POST', keys, { ...wanted, days: 31 }, once))).toEqual([
      409,
      'idempotency_conflict',
    ]);
  });

  it('that were revoked are not handed out again for their idempotency key', async () => {
    const once = { 'idempotency-key': 'agent-2' };
    const { body } = await ask('POST', keys, wanted, once);
    await ask('POST', `${keys}/${body.id}/revoke`);
    const again = await ask('POST', keys, wanted, once);
    expect(code(again)).toEqual([409, 'idempotency_conflict']);
    expect(again.body.error.message).toMatch(/was revoked\. Use a new idempotency key/);
  });

  it('of another tenant are not there', async () => {
    const { body } = await ask('POST', keys, wanted);
    expect(code(await ask('POST', `/tenants/rls-a/keys/${body.id}/revoke`))).toEqual([404, 'unknown_key']);
    expect(code(await ask('POST', `${keys}/nonsense/revoke`))).toEqual([404, 'unknown_key']);
  });

  it.each([
    ['a scope that no tool asks for', { ...wanted, scopes: ['all'] }],
    ['no scope', { ...wanted, scopes: [] }],
    ['a name of two lines', { ...wanted, name: 'a\nb' }],
    ['no end', { ...wanted, days: 0 }],
  ])('with %s are refused', async (_, body) => {
    expect(code(await ask('POST', keys, body))).toEqual([400, 'invalid_request']);
  });
});

it('tells nothing of what fails inside, and hands it to the log', async () => {
  const faults: unknown[] = [];
  const broken = { ...admin, plane: { ...admin.plane, catalog: { ...admin.plane.catalog, port: 1 } } };
  const event = { httpMethod: 'GET', path: '/tenants', body: null, isBase64Encoded: false };
  const away = await answerAdmin(
    async () => broken,
    event,
    (fault) => faults.push(fault),
  );
  expect([away.statusCode, JSON.parse(away.body).error.code]).toEqual([503, 'unavailable']);
  const secret = new Error('password is hunter2');
  const internal = await answerAdmin(
    () => Promise.reject(secret),
    event,
    (fault) => faults.push(fault),
  );
  expect(internal.statusCode).toBe(500);
  expect(internal.body).not.toContain('hunter2');
  expect(faults).toContain(secret);
  expect(faults).toHaveLength(2);
});
