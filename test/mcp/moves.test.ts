import { afterAll, beforeAll, expect, it } from 'vitest';
import type { MoveRequest } from '../../functions/lib/lifecycle/move-begin.ts';
import type { Strategy } from '../../functions/lib/tenant/tenant.ts';
import { begin, homeOf, moveState, runMove, wish } from '../lib/lifecycle/move.support.ts';
import { startAgents } from '../support/agents.ts';
import { type McpEndpoint, startEndpoint } from '../support/endpoint.ts';
import { stockedTenant } from '../support/stocked-tenant.ts';
import { startWorld, type World } from '../support/world.ts';

/** What agents notice of a tenant's moves, through the endpoint that they have: nothing. */
let world: World;
let endpoint: McpEndpoint;
beforeAll(async () => {
  world = await startWorld({ rds: true });
  endpoint = await startEndpoint(world);
});
afterAll(async () => {
  await endpoint?.close();
  await world?.close();
});

/** Every direction once, an instance of its own and back, and a move that is reversed; the old home is gone at once. */
const way: readonly (readonly [Strategy, Partial<MoveRequest>, 'reverse'?])[] = [
  ['schema', {}],
  ['database', {}],
  ['rls', {}],
  ['database', {}],
  ['schema', {}],
  ['rls', {}, 'reverse'],
  ['rls', {}],
  ['database', { placement: 'dedicated' }],
  ['rls', {}],
];

it('agents of both protocol families go on while their tenant moves again and again: none sees an error, and every acknowledged write is there once', async () => {
  const tenant = await stockedTenant(world, 'rls');
  const agents = await startAgents(endpoint.url, await endpoint.keyOf(tenant.id));
  for (const [to, more, wanted] of way) {
    await agents.answered();
    const { homeId } = await homeOf(world, tenant);
    const operation = await begin(world, tenant.slug, to, { windowSeconds: 0, ...more });
    const { status } = await runMove(world, operation, async ({ step }) => {
      if (step === 'follow' && wanted !== undefined) await wish(world, operation, wanted);
    });
    expect([to, status]).toEqual([to, 'SUCCEEDED']);
    expect((await moveState(world, operation)).phase).toBe(wanted ? 'reversed' : 'completed');
    const home = await homeOf(world, tenant);
    if (wanted) expect(home.homeId).toBe(homeId);
    else expect(home.strategy).toBe(to);
    expect(agents.errors, `${to} ${JSON.stringify(more)}`).toEqual([]);
  }
  await agents.answered();
  expect(await agents.stop()).toEqual([]);
  expect(agents.errors).toEqual([]);
});
