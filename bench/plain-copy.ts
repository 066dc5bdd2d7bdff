import { openCopyConnection } from '../functions/lib/database/copy-between.ts';
import { homeOf } from '../test/lib/lifecycle/move.support.ts';
import type { TestTenant, World } from '../test/support/world.ts';
import { timed } from './measure.ts';
import { tables } from './moving-tenant.ts';

const keysAndIndexes = `
  alter table accounts add primary key (tenant_id, account_id), add unique (tenant_id, name);
  alter table documents add primary key (tenant_id, document_id), add foreign key (tenant_id, account_id) references accounts;
  create index on documents (tenant_id, account_id);
  alter table lines add primary key (tenant_id, line_id), add foreign key (tenant_id, document_id) references documents;
  create index on lines (tenant_id, document_id);
  alter table entries add primary key (tenant_id, entry_id), add foreign key (tenant_id, account_id) references accounts;
  create index on entries (tenant_id, account_id, noted_at);
  analyze accounts, documents, lines, entries`;

/** What the machine can do with the same rows, in the same database, on the same kind of tables. */
export interface Plain {
  /** Out of and into tables without keys, ms. */
  readonly bare: number;
  /** Then their keys and indexes: for so long a naive copy keeps writers out. */
  readonly whole: number;
  /** Into tables that have their keys and indexes already, as shared ones do. */
  readonly keyed: number;
}

export async function plainCopy(world: World, tenant: TestTenant): Promise<Plain> {
  const { database, schema } = await homeOf(world, tenant);
  const at = world.superuser(database);
  const [out, into] = [await openCopyConnection(at), await openCopyConnection(at)];
  const copy = () =>
    timed(async () => {
      for (const name of tables)
        await out.stream(
          `copy (select * from ${schema}.${name} where tenant_id = '${tenant.id}') to stdout`,
          into,
          `copy bench_plain.${name} from stdin`,
        );
    });
  await into.query(
    `create schema bench_plain; ${tables.map((name) => `create table bench_plain.${name} (like ${schema}.${name})`).join(';')}; set search_path = bench_plain`,
  );
  const bare = await copy();
  const keys = await timed(() => into.query(keysAndIndexes));
  await into.query(`truncate ${tables.join(', ')}`);
  const keyed = await copy();
  await into.query('drop schema bench_plain cascade');
  await Promise.all([out.close(), into.close()]);
  return { bare, whole: bare + keys, keyed };
}
