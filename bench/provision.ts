import { randomBytes } from 'node:crypto';
import { openConnection } from '../functions/lib/database/connect.ts';
import { parseMigration } from '../functions/lib/migrations/migration-file.ts';
import { lifecycleOf, stepsOf } from '../test/lib/lifecycle/support.ts';
import { startWorld } from '../test/support/world.ts';
import { startDelayProxy } from './delay-proxy.ts';
import { delayMs } from './ground.ts';
import { asOwner, behind, fleetServer, plain, range, tables } from './homes.ts';
import { median, timed } from './measure.ts';
import { type Figure, table } from './report.ts';

const atMostOfScript = 1.3;
const rounds = 15;
const atOnce = 20;

/** What making a tenant with a schema of its own costs, against the bare statements of its migrations. */
export async function run(report: (line: string) => void): Promise<Figure[]> {
  const world = await startWorld({ parameters: fleetServer });
  const proxy = await startDelayProxy(world.cluster.server.port, delayMs);
  try {
    report(
      `A tenant with a schema of ten tables, +${2 * delayMs} ms, ${rounds} times in turn. "statements": the tables, sent as one text on an open`,
    );
    report(
      'connection. "all of it": the same with login, rights, defaults, constraints and triggers. "tenant": every step, on the connections that one environment keeps.',
    );
    // The product's own table, and ten more.
    const home = [world.release.home[0]!, parseMigration('9100-ten.sql', tables)];
    const far = await behind({ ...world, release: { ...world.release, home } }, proxy.port);
    // The MCP function tries tenants beside its calls.
    const lifecycle = lifecycleOf(far, far.access());
    const { connection, close } = await openConnection(far.shared.admin);
    const steps = stepsOf('schema', 'dedicated');
    const times = {
      statements: [] as number[],
      all: [] as number[],
      tenant: [] as number[],
      ...Object.fromEntries(steps.map((step) => [step, [] as number[]])),
    } as Record<string, number[]>;
    for (const round of range(rounds)) {
      times.statements!.push(
        await timed(() =>
          asOwner(
            connection,
            `create schema plain_${round}; set local search_path = plain_${round}; ${plain(tables)}`,
          ),
        ),
      );
      times.all!.push(await timed(() => connection.query(everything(`all_${round}`))));
      const { operation } = await lifecycle.begin('schema', 'dedicated', `made-x${round}`);
      const each: number[] = [];
      for (const step of steps) each.push(await timed(() => lifecycle.run(operation, step)));
      for (const [index, step] of steps.entries()) times[step]!.push(each[index]!);
      times.tenant!.push(each.reduce((sum, ms) => sum + ms));
    }
    await close();
    const failed = await together(lifecycle, steps);
    table(
      report,
      ['', 'ms'],
      Object.entries(times).map(([name, values]) => [
        steps.includes(name) ? `  ${name}` : name,
        median(values).toFixed(1),
      ]),
    );
    const ratio = (name: string) => median(times.tenant!) / median(times[name]!);
    return [
      {
        name: 'schema tenant / its statements as one text',
        value: ratio('statements'),
        atMost: atMostOfScript,
      },
      { name: 'schema tenant / all that it is made of as one text', value: ratio('all') },
      { name: `${atOnce} schema tenants at once, failed`, value: failed, atMost: 0 },
    ];
  } finally {
    proxy.close();
    await world.close();
  }
}

/** @returns how many of them did not come to be */
async function together(
  lifecycle: ReturnType<typeof lifecycleOf>,
  steps: readonly string[],
): Promise<number> {
  const ends = await Promise.allSettled(
    range(atOnce).map(async (number) => {
      const { operation } = await lifecycle.begin('schema', 'dedicated', `together-x${number}`);
      for (const step of steps) await lifecycle.run(operation, step);
    }),
  );
  return ends.filter(({ status }) => status === 'rejected').length;
}

/** As a tenant's home is in the end, by somebody who knows beforehand what it will be. */
function everything(name: string): string {
  const completed = range(10)
    .map(
      (
        n,
      ) => `alter table t${n} alter column tenant_id set default nullif(current_setting('tenancy.tenant', true), '')::uuid,
          add constraint tenancy_home check (sha256(uuid_send(tenant_id)) = '\\x${randomBytes(32).toString('hex')}'::bytea);
        create trigger tenancy_capture after insert or update or delete on t${n} for each row
          when (current_setting('tenancy.capture', true) = '1') execute function tenancy.capture('tenant_id', 'id');`,
    )
    .join('\n');
  return `begin;
    create role t_${name} login connection limit 20;
    grant tenancy_tenants, tenancy_schemas to t_${name} with inherit true, set false;
    alter role t_${name} password '${randomBytes(24).toString('base64url')}';
    set local role tenancy_owner;
    create schema ${name};
    set local search_path = ${name};
    create table _migrations (name text primary key, checksum text not null, applied_at timestamptz not null default now());
    ${tables}
    ${completed}
    grant usage on schema ${name} to t_${name};
    grant select, insert, update, delete on ${range(10)
      .map((n) => `t${n}`)
      .join(', ')} to t_${name};
    commit`;
}
