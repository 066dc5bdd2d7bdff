import { createHash } from 'node:crypto';
import type { ControlConnection } from '../database/connect.ts';
import { keyPads, type MasterKeys } from '../isolation/context.ts';
import { asRole } from '../isolation/homes.ts';
import type { Strategy } from '../tenant/tenant.ts';
import { finding, type HealthFinding } from './findings.ts';

/** Digests of functions, and of what hangs on tables, by the migrations that made them: as they were first seen. */
export type Runtimes = Readonly<Record<string, Readonly<Record<string, string>>>>;

/** Digests of what passes are made with, by the database's id: as they were first seen. */
export type Passes = Readonly<Record<string, string>>;

interface Seen {
  readonly version: string;
  readonly functions: Readonly<Record<string, string>>;
}

interface Key {
  readonly id: string;
  readonly database: string;
  readonly digest: string;
}

/** The functions, triggers, rules and constraints that the product has in a database are those that its migrations made, here as elsewhere. */
export async function auditFunctions(
  connection: ControlConnection,
  schema: 'tenancy' | 'catalog',
  database: string,
  strategies: readonly Strategy[],
  runtimes: Runtimes,
): Promise<{ findings: HealthFinding[]; runtimes: Runtimes }> {
  const look = () => connection.query<Seen>(functionsOf(schema), [schema]);
  // The catalog's list of migrations is the provisioner's to read, and that connection has no transactions of its own.
  const { rows } = await (schema === 'catalog' ? look() : asRole(connection, 'tenancy_keeper', look));
  const seen = rows[0]!;
  const known = runtimes[seen.version] ?? seen.functions;
  const findings: HealthFinding[] = [];
  for (const name of new Set([...Object.keys(seen.functions), ...Object.keys(known)])) {
    if (known[name] === seen.functions[name]) continue;
    const how = !(name in seen.functions) ? 'is gone' : name in known ? 'was changed' : 'was added';
    const text = `${how} after its migration, in database ${database}`;
    findings.push(finding('runtime', strategies, name, text, 'write it again as its migration has it'));
  }
  return { findings, runtimes: { [seen.version]: known } };
}

/** It takes our signatures and nobody else's. `isShared`: without our key every tenant of it is refused, not one alone. */
export async function auditKeys(
  connection: ControlConnection,
  keys: MasterKeys,
  place: { readonly database: string; readonly databaseId: string; readonly isShared: boolean },
  strategies: readonly Strategy[],
): Promise<HealthFinding[]> {
  const { rows } = await asRole(connection, 'tenancy_keeper', () =>
    connection.query<Key>(
      `select key_id as id, database_id as database, encode(sha256(inner_pad || outer_pad), 'hex') as digest from tenancy.keys`,
    ),
  );
  return keyFindings(rows, keys, place, strategies);
}

/**
 * The secret of a database's passes is the one that it was made with: whoever has set it knows it, and can say in shared
 * tables which tenant he is. Neither half leaves the database: of 126 bits a digest gives nothing away.
 */
export async function auditPass(
  connection: ControlConnection,
  { database, databaseId }: { readonly database: string; readonly databaseId: string },
  strategies: readonly Strategy[],
  passes: Passes,
): Promise<{ findings: HealthFinding[]; passes: Passes }> {
  const { rows } = await asRole(connection, 'tenancy_keeper', () =>
    connection.query<{ digest: string | null }>(passDigest, [`the pass secret of ${databaseId}`]),
  );
  const seen = rows[0]!.digest ?? 'none';
  const known = passes[databaseId] ?? seen;
  const remedy = `make another, then let the canary take it for the database's own: RUNBOOK.md, isolation in doubt, for ${databaseId}`;
  const text = 'is not the one that was first seen: whoever set it can forge passes';
  const findings =
    known === seen
      ? []
      : [finding('unknown_keys', strategies, `pass secret of database ${database}`, text, remedy)];
  return { findings, passes: { [databaseId]: known } };
}

function keyFindings(
  there: readonly Key[],
  { current, keys }: MasterKeys,
  { database, databaseId, isShared }: { database: string; databaseId: string; isShared: boolean },
  strategies: readonly Strategy[],
): HealthFinding[] {
  const findings: HealthFinding[] = [];
  const wanted = new Map([...keys].map(([id, master]) => [id, digestOf(master, databaseId)]));
  const install = 'run `npm run tenants -- migrate run`: it brings the signing keys that there are now';
  const risk = isShared ? 'service' : 'none';
  const object = (id: string) => `signing key ${id} of database ${database}`;
  if (there.find(({ id }) => id === current)?.digest !== wanted.get(current))
    findings.push(
      finding(
        'signing_keys',
        strategies,
        object(current),
        'is not the one we sign with: calls are refused',
        install,
        risk,
      ),
    );
  for (const { id, digest } of there)
    if (wanted.get(id) !== digest)
      findings.push(
        finding('unknown_keys', strategies, object(id), 'is accepted, but it is not one of ours', install),
      );
  for (const other of new Set(there.map((key) => key.database)))
    if (other !== databaseId)
      findings.push(
        finding(
          'homes',
          strategies,
          `database ${database}`,
          `has the id ${other}; the catalog says ${databaseId}`,
          'find out which database this is',
        ),
      );
  return findings;
}

function digestOf(master: Buffer, databaseId: string): string {
  const { inner, outer } = keyPads(master, databaseId);
  return createHash('sha256').update(inner).update(outer).digest('hex');
}

/** A name of its own stands in front: no pass begins so. */
const passDigest = `
  select encode(sha256(convert_to($1, 'UTF8') || int8send(pg_sequence_last_value(to_regclass('tenancy.pass_secret_1')))
    || int8send(pg_sequence_last_value(to_regclass('tenancy.pass_secret_2')))), 'hex') as digest`;

/** Whose triggers, rules and constraints change what the functions find. Those of foreign keys are named after numbers that differ. */
const functionsOf = (schema: string) => `
  select (select md5(concat($1::text, ' with its tables', string_agg(concat(name, checksum), ',' order by name))) from ${schema}._migrations) as version,
         (select jsonb_object_agg(made.name, md5(made.definition)) from (
            select p.oid::pg_catalog.regprocedure::text as name, concat(pg_catalog.pg_get_functiondef(p.oid), pg_catalog.pg_get_userbyid(p.proowner)) as definition
              from pg_catalog.pg_proc p where p.pronamespace = $1::pg_catalog.regnamespace and p.prokind in ('f', 'p')
            union all
            select format('trigger %s on %s', t.tgname, c.oid::pg_catalog.regclass), concat(pg_catalog.pg_get_triggerdef(t.oid), t.tgenabled)
              from pg_catalog.pg_trigger t join pg_catalog.pg_class c on c.oid = t.tgrelid
             where c.relnamespace = $1::pg_catalog.regnamespace and not t.tgisinternal
            union all
            select format('rule %s on %s', r.rulename, c.oid::pg_catalog.regclass), concat(pg_catalog.pg_get_ruledef(r.oid), r.ev_enabled)
              from pg_catalog.pg_rewrite r join pg_catalog.pg_class c on c.oid = r.ev_class where c.relnamespace = $1::pg_catalog.regnamespace
            union all
            select format('constraint %s on %s', n.conname, n.conrelid::pg_catalog.regclass), pg_catalog.pg_get_constraintdef(n.oid)
              from pg_catalog.pg_constraint n where n.connamespace = $1::pg_catalog.regnamespace and n.conrelid <> 0) made) as functions`;
