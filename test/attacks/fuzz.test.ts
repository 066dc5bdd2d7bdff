import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openSessions } from '../../infra/local/prove/attempt.ts';
import { closeTargets, prepareTargets, type Target } from '../../infra/local/prove/prove.ts';
import { strategies, type World } from '../support/world.ts';
import { partyOf, startAttackedWorld } from './support.ts';

let world: World;
let targets: Target[];
beforeAll(async () => {
  world = await startAttackedWorld();
  targets = await prepareTargets(
    world.plane.keys,
    await Promise.all(strategies.map((strategy) => partyOf(world, world.tenants[strategy].b))),
  );
});
afterAll(async () => {
  await closeTargets(targets ?? []);
  await world?.close();
});

/** Statements put together from what is dangerous, in depth and order that nobody would think of. */
function statements({ party, tables }: Target) {
  const { schema, tenant, login } = party;
  const relation = fc.constantFrom(
    ...tables.flatMap((name) => [name, `only ${schema}."${name}"`, `${schema}.${name}`]),
  );
  const claim = fc.constantFrom(
    `set_config('tenancy.tenant', '${tenant}', true)`,
    `set_config('tenancy.context', replace(current_setting('tenancy.context', true), current_setting('tenancy.tenant'), '${tenant}'), true)`,
    `set_config('search_path', '${schema}', true)`,
    `set_config('row_security', 'off', true)`,
    `set_config('role', '${login}', true)`,
    "set_config('tenancy.context', '', true)",
    "set_config('tenancy.pass', encode(sha256(timestamptz_send(now())), 'hex'), true)",
    "tenancy.pass(current_setting('tenancy.tenant'))",
    "pg_sequence_last_value('tenancy.pass_secret_1')::text",
    "current_setting('tenancy.tenant')",
    'pg_advisory_xact_lock_shared(1)::text',
  );
  const condition = fc.oneof(
    fc.constantFrom(
      'true',
      `tenant_id = '${tenant}'`,
      'tenant_id is not null',
      "v::text ~ 'secret'",
      'ctid is not null',
    ),
    claim.map((call) => `${call} is not null`),
  );
  const select = fc.letrec<{ query: string; source: string }>((tie) => ({
    source: fc.oneof(
      { maxDepth: 3 },
      relation,
      claim.map((call) => `(select ${call} as c offset 0)`),
      tie('query').map((query) => `(${query})`),
    ),
    query: fc.oneof(
      { maxDepth: 3 },
      fc.tuple(relation, condition).map(([from, where]) => `select v.* from ${from} v where ${where}`),
      fc
        .tuple(claim, relation)
        .map(([call, from]) => `select v.* from (select ${call} offset 0) s, ${from} v`),
      fc
        .tuple(claim, tie('query'))
        .map(
          ([call, inner]) => `with s as materialized (select ${call} as c) select q.* from s, (${inner}) q`,
        ),
      fc
        .tuple(tie('source'), relation)
        .map(
          ([from, other]) => `select x::text, y::text from ${from} x full join ${other} y on true limit 50`,
        ),
      tie('query').map((inner) => `select query_to_xml($q$${inner}$q$, true, false, '')`),
    ),
  })).query;
  const change = fc.oneof(
    fc.tuple(relation, condition).map(([from, where]) => `delete from ${from} v where ${where}`),
    fc
      .tuple(relation, condition)
      .map(([from, where]) => `update ${from} v set tenant_id = '${tenant}' where ${where}`),
    fc
      .tuple(claim, relation)
      .map(
        ([call, from]) =>
          `with s as (select ${call}) update ${from} v set tenant_id = tenant_id from s returning v.*`,
      ),
  );
  const setting = fc.constantFrom(
    `set tenancy.tenant = '${tenant}'`,
    `set local search_path = ${schema}`,
    'reset all',
    'commit',
    'rollback',
    'begin isolation level serializable',
    `set role ${login}`,
    `set constraints all deferred`,
    'savepoint s',
    'rollback to s',
  );
  return fc.array(
    fc.oneof(
      { weight: 3, arbitrary: select },
      { weight: 1, arbitrary: change },
      { weight: 2, arbitrary: setting },
    ),
    {
      minLength: 1,
      maxLength: 6,
    },
  );
}

describe.each(strategies)('%s', (strategy) => {
  it.each(strategies)(
    'never hears, changes or blocks a neighbour of %s, whatever it puts together',
    async (other) => {
      const target = targets.find(({ party }) => party.strategy === other)!;
      const attacker = await partyOf(world, world.tenants[strategy].a);
      await fc.assert(
        fc.asyncProperty(
          statements(target),
          fc.constantFrom('simple' as const, 'product' as const),
          async (list, way) => {
            const sessions = openSessions(world.plane.keys, attacker);
            const { heard, harm } = await sessions
              .attempt('call', list, way, target.victim)
              .finally(sessions.close);
            expect(target.sample.markers.filter((marker) => heard.includes(marker))).toEqual([]);
            expect(harm).toBeUndefined();
          },
        ),
        { numRuns: strategy === other ? 60 : 20 },
      );
    },
  );
});
