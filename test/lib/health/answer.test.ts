import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { type Ask, askCatalog, createHealthAnswer } from '../../../functions/lib/health/answer.ts';
import { createPoolTeller } from '../../../functions/lib/health/pool-teller.ts';
import { loginSecretName } from '../../../functions/lib/isolation/credentials.ts';
import { catalogEndpoint } from '../../../functions/lib/lifecycle/control-plane.ts';
import { startWorld, type World } from '../../support/world.ts';

const asked = async (ask: Ask) => {
  const { statusCode, body } = await createHealthAnswer(ask, () => {})();
  return [statusCode, JSON.parse(body)];
};

describe('GET /health', () => {
  it('says one word, and fails only when a tenant is at risk or nobody knows', async () => {
    const record = (state: 'ok' | 'degraded' | 'broken' | 'down', ageSeconds = 30) =>
      asked(async () => ({ state, ageSeconds }));
    expect(await record('ok')).toEqual([200, { status: 'ok' }]);
    expect(await record('degraded')).toEqual([200, { status: 'degraded' }]);
    expect(await record('broken')).toEqual([503, { status: 'broken' }]);
    expect(await record('down')).toEqual([503, { status: 'down' }]);
    expect(await record('ok', 180)).toEqual([200, { status: 'ok' }]);
    expect(await record('ok', 181)).toEqual([503, { status: 'down' }]);
    expect(await asked(async () => undefined)).toEqual([503, { status: 'down' }]);
    expect(await asked(() => Promise.reject(new Error('secret detail')))).toEqual([503, { status: 'down' }]);
  });

  it('asks once in ten seconds, however many ask it', async () => {
    let now = 0;
    const ask = vi.fn<Ask>(async () => ({ state: 'ok', ageSeconds: 1 }));
    const answer = createHealthAnswer(
      ask,
      () => {},
      () => now,
    );
    await Promise.all(Array.from({ length: 50 }, answer));
    now = 9_999;
    await answer();
    expect(ask).toHaveBeenCalledTimes(1);
    now = 10_000;
    await answer();
    expect(ask).toHaveBeenCalledTimes(2);
  });
});

describe('the catalog’s reader', () => {
  let world: World;
  beforeAll(async () => {
    world = await startWorld();
  });
  afterAll(() => world?.close());

  it('is told the last word and its age, and can read nothing of the record', async () => {
    const login = 'tenancy_catalog_reader';
    const { password } = JSON.parse(await world.secrets.read(loginSecretName('catalog', login)));
    const reader = { ...catalogEndpoint(world.plane), login, password: async () => password };
    expect(await askCatalog(reader)()).toBeUndefined();
    await world.asProvisioner('catalog', async (catalog) => {
      for (const [state, minutes] of [
        ['broken', 10],
        ['degraded', 4],
      ])
        await catalog.query(
          `insert into catalog.health_runs (started_at, finished_at, state, report, next)
           values (now() - make_interval(mins => $2), now() - make_interval(mins => $2), $1, '{}', '{}')`,
          [state, minutes],
        );
    });
    const told = await askCatalog(reader)();
    expect(told?.state).toBe('degraded');
    expect(told?.ageSeconds).toBeGreaterThanOrEqual(240);
    expect(told?.ageSeconds).toBeLessThan(300);
    expect(await asked(askCatalog(reader))).toEqual([503, { status: 'down' }]);
    await expect(
      world.asProvisioner('catalog', async (catalog) => {
        await catalog.query(`begin; set local role tenancy_keeper`);
        const { rows } = await catalog.query(
          `select has_table_privilege($1, 'catalog.health_runs', 'select') as may`,
          [login],
        );
        return rows[0]!.may;
      }),
    ).resolves.toBe(false);
  });
});

describe('pool figures', () => {
  it('are told once a minute of being called, with the waits since then', async () => {
    const lines: Record<string, unknown>[] = [];
    vi.stubEnv('POWERTOOLS_DEV', 'true');
    vi.stubEnv('POWERTOOLS_METRICS_DISABLED', 'false');
    vi.spyOn(console, 'log').mockImplementation((line: string) => void lines.push(JSON.parse(line)));
    try {
      let now = 0;
      let waits = 3;
      const gauges = () => ({ connections: 2, idle: 1, inUse: 1, waiting: 0, keys: 1, waits });
      const tell = createPoolTeller({ gauges }, () => now);
      await tell();
      now = 60_000;
      await tell();
      await tell();
      waits = 5;
      now = 120_000;
      await tell();
      expect(lines.map(({ PoolConnections, PoolWaits }) => [PoolConnections, PoolWaits])).toEqual([
        [2, 3],
        [2, 2],
      ]);
    } finally {
      vi.restoreAllMocks();
      vi.unstubAllEnvs();
    }
  });
});
