import { setTimeout as sleep } from 'node:timers/promises';
import { openCopyConnection } from '../functions/lib/database/copy-between.ts';
import { sql } from '../functions/lib/database/sql.ts';
import { limits, type TestTenant, type World } from '../test/support/world.ts';
import { median, timed } from './measure.ts';
import type { Figure } from './report.ts';

/** A tenant that does not move, on the same shared tables. */
export function watchNeighbour(world: World, tenant: TestTenant) {
  const access = world.access({ maxConnections: 1 });
  const times = {
    read: { with: [] as number[], without: [] as number[] },
    write: { with: [] as number[], without: [] as number[] },
  };
  const watch = { phase: undefined as 'with' | 'without' | undefined, stop };
  let stopped = false;
  const work = (async () => {
    while (!stopped) {
      for (const kind of ['read', 'write'] as const) {
        const route = await access.resolve(tenant.principal);
        const db = access.database(tenant.principal, route, limits(kind === 'read' ? 'r' : 'w'));
        const { phase } = watch;
        const ms = await timed(() =>
          kind === 'read'
            ? db.query(sql`select note_id, body from notes order by note_id limit 20`)
            : db.query(sql`insert into notes (body) values (gen_random_uuid()::text)`),
        );
        if (phase !== undefined && phase === watch.phase) times[kind][phase].push(ms);
        await sleep(3);
      }
    }
  })();
  async function stop() {
    stopped = true;
    await work;
    await access.pools.close();
    const medians = (kind: 'read' | 'write') => ({
      with: median(times[kind].with),
      without: median(times[kind].without),
    });
    return { read: medians('read'), write: medians('write') };
  }
  return watch;
}

/** What the triggers cost those who don't move: the same inserts with them and with them taken out, in turn. */
export async function dormantCapture(report: (line: string) => void, world: World): Promise<Figure[]> {
  const tenant = world.tenants.rls.b;
  const owner = await openCopyConnection(world.superuser(tenant.home.database));
  const times = {
    single: { on: [] as number[], off: [] as number[] },
    bulk: { on: [] as number[], off: [] as number[] },
  };
  const db = world.database(tenant, { deadline: Date.now() + 600_000 });
  for (let round = 0; round < 12; round += 1)
    for (const state of round % 2 === 0 ? (['on', 'off'] as const) : (['off', 'on'] as const)) {
      await owner.query(
        `alter table shared.notes ${state === 'on' ? 'enable' : 'disable'} trigger tenancy_capture`,
      );
      for (let call = 0; call < 100; call += 1) {
        const ms = await timed(() =>
          db.query(sql`insert into notes (body) values (gen_random_uuid()::text)`),
        );
        if (round > 0) times.single[state].push(ms);
      }
      const ms = await timed(() =>
        db.query(sql`insert into notes (body) select gen_random_uuid()::text from generate_series(1, 5000)`),
      );
      if (round > 0) times.bulk[state].push(ms);
    }
  await owner.query('alter table shared.notes enable trigger tenancy_capture');
  await owner.close();
  const ratio = ({ on, off }: { on: number[]; off: number[] }) => median(on) / median(off);
  report(
    `Dormant capture triggers: a write of one row takes ${ratio(times.single).toFixed(3)} of its time without them, of 5,000 rows ${ratio(times.bulk).toFixed(3)}`,
  );
  return [
    { name: 'dormant capture: write of one row, with / without', value: ratio(times.single) },
    { name: 'dormant capture: write of 5,000 rows, with / without', value: ratio(times.bulk) },
  ];
}
