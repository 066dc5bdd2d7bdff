import { randomBytes, randomUUID } from 'node:crypto';
import type { ControlConnection } from '../../functions/lib/database/connect.ts';
import { isolations } from '../../functions/lib/isolation/isolation.ts';
import { parseMigration } from '../../functions/lib/migrations/migration-file.ts';
import type { Party } from '../../infra/local/prove/party.ts';
import { routeOf, startWorld, type TestTenant, type World } from '../support/world.ts';

/** A column of every kind that a tenant might keep a secret in. */
const canaryMigration = parseMigration(
  '9100-canaries.sql',
  `create table canaries (
     tenant_id uuid not null,
     canary_id uuid not null default gen_random_uuid(),
     words text not null,
     name varchar(80) not null,
     amount bigint not null,
     price numeric not null,
     ratio double precision not null,
     facts jsonb not null,
     tags text[] not null,
     bytes bytea not null,
     at timestamptz not null,
     stamped timestamp not null default localtimestamp,
     day date not null,
     address inet not null,
     search tsvector generated always as (to_tsvector('simple', words)) stored,
     primary key (tenant_id, canary_id)
   );
   create index on canaries (tenant_id, amount);
   create table narrow (tenant_id uuid not null, word text not null, primary key (tenant_id, word));
   create view canary_words as select tenant_id, words from canaries;`,
);

/** A world whose tenants each have secrets of every kind, and something in every other table. */
export async function startAttackedWorld(): Promise<World> {
  const world = await startWorld({ migrations: [canaryMigration] });
  const { rls, schema, database } = world.tenants;
  for (const tenant of [rls.a, rls.b, schema.a, schema.b, database.a, database.b])
    await plantSecrets(world, tenant);
  return world;
}

const secret = () => `secret-${randomBytes(9).toString('hex')}`;
const digits = (count: number) => `9${Array.from(randomBytes(count - 1), (byte) => byte % 10).join('')}`;

export async function plantSecrets(world: World, tenant: TestTenant): Promise<void> {
  await world.database(tenant).transaction(async (tx) => {
    for (let row = 0; row < 3; row += 1)
      await tx.query(
        `insert into canaries (words, name, amount, price, ratio, facts, tags, bytes, at, stamped, day, address)
         values ($1, $2, $3, $4, $5, $6, $7, decode($8, 'hex'), $9::timestamptz,
                 localtimestamp - random() * interval '30 years', current_date, $10)`,
        [
          secret(),
          secret(),
          digits(16),
          `${digits(12)}.25`,
          `0.${digits(14)}`,
          JSON.stringify({ [secret()]: secret() }),
          [secret(), secret()],
          randomBytes(12).toString('hex'),
          new Date(Number(digits(12))).toISOString(),
          `10.${[...randomBytes(3)].join('.')}/32`,
        ],
      );
    await tx.query('insert into notes (body, amount) values ($1, $2)', [secret(), digits(14)]);
    await tx.query('insert into narrow (word) values ($1)', [secret()]);
    const item = randomUUID();
    await tx.query(
      `insert into items (item_id, sku, name, category, location, unit, price_cents)
       values ($1, $2, $3, 'tools', 'A1', 'piece', 100)`,
      [item, secret(), secret()],
    );
    await tx.query(
      `insert into stock_movements (item_id, change, balance, reason, made_by, idempotency_key) values ($1, 1, 1, 'received', 'x', $2)`,
      [item, secret()],
    );
  });
}

export async function partyOf(world: World, tenant: TestTenant): Promise<Party> {
  const { slug, id, strategy, home } = tenant;
  const endpoint = await isolations[strategy].locate(routeOf(tenant), world.plane.credentials, 'off', false);
  const { homeId, schema, login, epoch, database, databaseId } = home;
  return { name: slug, tenant: id, strategy, homeId, schema, login, epoch, database, databaseId, endpoint };
}

/** Begins a transaction of the tenant's, on a connection with its login. */
export async function entered(
  world: World,
  connection: ControlConnection,
  tenant: TestTenant,
): Promise<void> {
  await connection.query('begin isolation level read committed');
  await connection.query('select tenancy.enter($1)', [world.context(tenant)]);
}
