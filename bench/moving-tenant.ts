import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { sql } from '../functions/lib/database/sql.ts';
import { parseMigration } from '../functions/lib/migrations/migration-file.ts';
import { limits, type TestTenant, type World } from '../test/support/world.ts';

/** Four tables as a tenant has them: foreign keys, an index each, text. */
export const ledger = parseMigration(
  '9200-ledger.sql',
  `create table accounts (
     tenant_id uuid not null, account_id uuid not null default gen_random_uuid(), name text not null, balance bigint not null default 0,
     primary key (tenant_id, account_id), unique (tenant_id, name)
   );
   create table documents (
     tenant_id uuid not null, document_id uuid not null default gen_random_uuid(), account_id uuid not null, title text not null, body text not null,
     primary key (tenant_id, document_id), foreign key (tenant_id, account_id) references accounts (tenant_id, account_id)
   );
   create index documents_account on documents (tenant_id, account_id);
   create table lines (
     tenant_id uuid not null, line_id uuid not null default gen_random_uuid(), document_id uuid not null, text text not null, amount bigint not null,
     primary key (tenant_id, line_id), foreign key (tenant_id, document_id) references documents (tenant_id, document_id)
   );
   create index lines_document on lines (tenant_id, document_id);
   create table entries (
     tenant_id uuid not null, entry_id uuid not null default gen_random_uuid(), account_id uuid not null, amount bigint not null,
     noted_at timestamptz not null default now(),
     primary key (tenant_id, entry_id), foreign key (tenant_id, account_id) references accounts (tenant_id, account_id)
   );
   create index entries_account on entries (tenant_id, account_id, noted_at);`,
);
export const tables = ['accounts', 'documents', 'lines', 'entries'] as const;

/** `rows` in the four tables together. */
export async function fillLedger(world: World, tenant: TestTenant, rows: number): Promise<void> {
  const db = world.database(tenant, { deadline: Date.now() + 120_000 });
  const [accounts, documents, lines, entries] = [0.05, 0.2, 0.6, 0.15].map((share) =>
    Math.round(rows * share),
  );
  await db.query(
    sql`insert into accounts (name) select 'account ' || g from generate_series(1, ${accounts}) g`,
  );
  await db.query(sql`
    insert into documents (account_id, title, body)
    select a.account_id, 'document ' || g, repeat(md5(g::text), 6)
      from generate_series(1, ${documents}) g join (select account_id, row_number() over () as n from accounts) a on a.n = g % ${accounts} + 1`);
  await db.query(sql`
    insert into lines (document_id, text, amount)
    select d.document_id, repeat(md5(g::text), 2), g
      from generate_series(1, ${lines}) g join (select document_id, row_number() over () as n from documents) d on d.n = g % ${documents} + 1`);
  await db.query(sql`
    insert into entries (account_id, amount)
    select a.account_id, 0 from generate_series(1, ${entries}) g join (select account_id, row_number() over () as n from accounts) a on a.n = g % ${accounts} + 1`);
}

/** Agents that write as fast as they are answered, or rest after each write, ms; each write under a key of its own, repeated until it is acknowledged. */
export interface LedgerWriters {
  readonly acknowledged: number;
  /** Answers that an agent had to come back for. */
  readonly errors: readonly unknown[];
  /** From now until each agent has had an answer again: the longest time in which not one write was acknowledged, ms, and the longest that one took. */
  watch(): () => Promise<{ silence: number; slowest: number }>;
  /** @returns acknowledged writes that are not there, and those that are there twice */
  stop(): Promise<{ lost: number; doubled: number }>;
}

export async function startLedgerWriters(
  world: World,
  tenant: TestTenant,
  count: number,
  rest = 0,
): Promise<LedgerWriters> {
  // Beside those in use one for the catalog, as each of the agents' environments has.
  const access = world.access({ maxConnections: count + 2 });
  const database = async (mode: 'r' | 'w') =>
    access.database(
      tenant.principal,
      await access.resolve(tenant.principal),
      limits(mode, { maxRows: 5_000_000, maxBytes: 1_000_000_000, deadline: Date.now() + 60_000 }),
    );
  const own = await (await database('w')).query<{ account_id: string }>(
    sql`insert into accounts (name) select 'writer ' || gen_random_uuid() from generate_series(1, ${count}) returning account_id`,
  );
  const keys = own.rows.map(() => [] as string[]);
  const errors: unknown[] = [];
  let [last, silence, slowest, stopped] = [performance.now(), 0, 0, false];

  const work = own.rows.map(async ({ account_id }, writer) => {
    while (!stopped) {
      const key = randomUUID();
      const begun = performance.now();
      for (;;) {
        try {
          // The balance grows with the entry and never without it: a write that was applied twice shows.
          await (await database('w')).query(sql`
            with entry as (insert into entries (entry_id, account_id, amount) values (${key}, ${account_id}, 1)
                             on conflict (tenant_id, entry_id) do nothing returning account_id)
            update accounts a set balance = balance + 1 from entry e where a.account_id = e.account_id`);
          break;
        } catch (error) {
          errors.push(error);
          if (errors.length > 10_000) throw error;
        }
      }
      const now = performance.now();
      silence = Math.max(silence, now - last);
      slowest = Math.max(slowest, now - begun);
      last = now;
      keys[writer]!.push(key);
      if (rest > 0) await sleep(rest);
    }
  });

  return {
    get acknowledged() {
      return keys.reduce((sum, { length }) => sum + length, 0);
    },
    errors,
    watch() {
      [last, silence, slowest] = [performance.now(), 0, 0];
      return async () => {
        const answered = keys.map(({ length }) => length);
        const until = performance.now() + 10_000;
        while (keys.some(({ length }, writer) => length === answered[writer]) && performance.now() < until)
          await sleep(5);
        return { silence, slowest };
      };
    },
    async stop() {
      stopped = true;
      await Promise.all(work);
      let [lost, doubled] = [0, 0];
      for (const [writer, { account_id }] of own.rows.entries()) {
        const db = await database('r');
        const found = await db.query<{ entry_id: string }>(
          sql`select entry_id from entries where account_id = ${account_id}`,
        );
        const there = new Set(found.rows.map(({ entry_id }) => entry_id));
        lost += keys[writer]!.filter((key) => !there.has(key)).length;
        const { rows } = await db.query<{ balance: string }>(
          sql`select balance from accounts where account_id = ${account_id}`,
        );
        doubled += Math.abs(Number(rows[0]!.balance) - there.size) + (found.rows.length - there.size);
      }
      await access.pools.close();
      return { lost, doubled };
    },
  };
}
