import { describe, expect, it } from 'vitest';
import { connectionBudget } from '../../functions/lib/health/budget.ts';
import { budgetOf, overBudget } from '../../infra/budget.ts';
import { functions } from '../../infra/functions.ts';
import { databasesOf } from '../../infra/rights.ts';
import { readSettings } from '../../infra/settings.ts';
import { synthesize } from './synthesize.ts';

const budget = (changes: Record<string, unknown> = {}) => budgetOf(readSettings(changes));

describe('the connection budget', () => {
  it('holds with the defaults, with each control-plane function counted', () => {
    expect(overBudget(budget())).toBeUndefined();
    const cluster = budget().find(({ name }) => name === 'shared cluster')!;
    // Whoever logs in past the proxy.
    for (const { name } of functions.filter(({ may }) => databasesOf(may).includes('cluster')))
      expect(cluster.lines).toContainEqual({ what: name, connections: expect.any(Number) });
    for (const { lines } of budget())
      for (const { connections } of lines) expect(connections).toBeGreaterThan(0);
  });

  it.each([
    ['proxy clients', { concurrency: { reserved: 5_001 } }, '20004', 'concurrency.connections'],
    [
      'shared cluster',
      { cluster: { kind: 'aurora', maxConnections: 200, proxyPercent: 90 } },
      '180',
      'cluster.maxConnections',
    ],
    ['logins of their own', { concurrency: { activeSchemaTenants: 751 } }, '801', 'another cluster'],
    ['dedicated instance', { dedicated: { maxConnections: 29 } }, '30', 'dedicated.maxConnections'],
  ])('fails synthesis when %s are too many, with the sum and what to do', (name, changes, figure, remedy) => {
    expect(() => synthesize(changes)).toThrow(
      new RegExp(`\\(${name}\\):[\\s\\S]*${figure}[\\s\\S]*${remedy}`),
    );
  });

  it('holds at its limit and not one beyond', () => {
    const facts = {
      environments: 10,
      connectionsPerEnvironment: 4,
      shared: { maxConnections: 200, proxyPercent: 80, activeSchemaTenants: 110, control: { admin: 34 } },
      dedicated: { maxConnections: 30 },
    };
    expect(overBudget(connectionBudget(facts))).toBeUndefined();
    const more = { ...facts, shared: { ...facts.shared, control: { admin: 35 } } };
    expect(overBudget(connectionBudget(more))).toMatch(/201\s+together, of 200/);
    const tenants = { ...facts, shared: { ...facts.shared, activeSchemaTenants: 111 } };
    expect(overBudget(connectionBudget(tenants))).toMatch(/161\s+together, of 160/);
  });
});
