import { createHash } from 'node:crypto';
import type { ControlConnection } from '../database/connect.ts';
import { keyPads, type MasterKeys } from '../isolation/context.ts';
import { asRole } from '../isolation/homes.ts';
import type { Strategy } from '../tenant/tenant.ts';
import { finding, type HealthFinding } from './findings.ts';

/** Digests of the functions of schema `tenancy`, by the migrations that made them: as they were first seen. */
export type Runtimes = Readonly<Record<string, Readonly<Record<string, string>>>>;

/** How many versions of the runtime are remembered: databases follow one another, and nobody keeps ten. */
const remembered = 10;

interface Seen {
  readonly version: string;
  readonly functions: Readonly<Record<string, string>>;
  readonly keys: readonly { readonly id: string; readonly database: string; readonly digest: string }[];
}

/**
 * The runtime of one database: that its functions are what its migrations made, here as elsewhere, and that it takes
 * our signatures and nobody else's. `isShared`: without our key every tenant of it is refused, not one alone.
 */
export async function auditRuntime(
  connection: ControlConnection,
  keys: MasterKeys | undefined,
  place: { readonly database: string; readonly databaseId: string; readonly isShared: boolean },
  strategies: readonly Strategy[],
  runtimes: Runtimes,
): Promise<{ findings: HealthFinding[]; runtimes: Runtimes }> {
  const seen = await asRole(connection, 'tenancy_keeper', async () => {
    const { rows } = await connection.query<Seen>(look);
    return rows[0]!;
  });
  const findings: HealthFinding[] = [];
  const known = runtimes[seen.version];
  for (const name of new Set([...Object.keys(seen.functions), ...Object.keys(known ?? seen.functions)])) {
    if ((known ?? seen.functions)[name] === seen.functions[name]) continue;
    const how = !(name in seen.functions) ? 'is gone' : known![name] ? 'was changed' : 'was added';
    const text = `${how} after its migration, in database ${place.database}`;
    findings.push(finding('runtime', strategies, name, text, 'write it again as migrations/runtime has it'));
  }
  const others = Object.entries(runtimes).filter(([version]) => version !== seen.version);
  return {
    findings: [...findings, ...(keys ? keyFindings(seen, keys, place, strategies) : [])],
    runtimes: Object.fromEntries([...others, [seen.version, known ?? seen.functions]].slice(-remembered)),
  };
}

function keyFindings(
  { keys: there }: Seen,
  { current, keys }: MasterKeys,
  { database, databaseId, isShared }: { database: string; databaseId: string; isShared: boolean },
  strategies: readonly Strategy[],
): HealthFinding[] {
  const findings: HealthFinding[] = [];
  const wanted = new Map([...keys].map(([id, master]) => [id, digestOf(master, databaseId)]));
  const install = 'deploy again: it installs the keys of the secret tenancy/context-key';
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

const look = `
  select (select md5(string_agg(concat(name, checksum), ',' order by name)) from tenancy._migrations) as version,
         (select jsonb_object_agg(p.oid::pg_catalog.regprocedure, md5(concat(pg_catalog.pg_get_functiondef(p.oid), pg_catalog.pg_get_userbyid(p.proowner))))
            from pg_catalog.pg_proc p where p.pronamespace = 'tenancy'::pg_catalog.regnamespace and p.prokind in ('f', 'p')) as functions,
         (select coalesce(jsonb_agg(jsonb_build_object('id', key_id, 'database', database_id, 'digest', encode(sha256(inner_pad || outer_pad), 'hex'))), '[]')
            from tenancy.keys) as keys`;
