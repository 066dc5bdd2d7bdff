import { literal } from '../database/connect.ts';
import { everyTenant, type MasterKeys, signContext } from '../isolation/context.ts';
import { type Home, isolations } from '../isolation/isolation.ts';
import type { MigrationFile } from './migration-file.ts';
import { type PlacedStatement, statementsOf } from './places.ts';

export interface MigrationTarget {
  readonly home: Home;
  /** For which the maintenance context is signed. */
  readonly databaseId: string;
  readonly keys: MasterKeys;
  /** All of it was completed and audited under the runtime of this release: what its migrations change is what is left to see to. */
  readonly isSound?: boolean;
}

export interface Pending {
  readonly target: MigrationTarget;
  readonly files: readonly MigrationFile[];
}

/** One statement of a script. */
export interface Step {
  readonly sql: string;
  /** It is tried, and what it has locked until then is given back when it fails. */
  readonly catches?: boolean;
  readonly file: string;
  /** Where it is in the file; undefined for what the migrator adds. */
  readonly at?: () => string;
}

/** The files of each home, statement by statement, between what the migrator sets and writes. */
export function scriptOf(pending: readonly Pending[], now: number): Step[] {
  const read = new Map<MigrationFile, PlacedStatement[]>();
  const statements = (file: MigrationFile) =>
    read.get(file) ?? read.set(file, statementsOf(file.sql)).get(file)!;
  return pending.flatMap(({ target, files }) =>
    files.flatMap((file): Step[] => {
      const own = (sql: string) => ({ sql, file: file.name });
      return [
        // Before each file: an earlier one may have changed them.
        ...settingsFor(target, file, now).map(own),
        // Constraints checked at the end are this file's too, and triggers that fire there.
        ...[...statements(file), atEnd].map((statement) => ({
          ...own(fencedIn(target, file, statement)),
          at: statement.at,
          catches: statement.runs === 'for each if needed',
        })),
        ...endOf(target.home, file).map(own),
      ];
    }),
  );
}

const atEnd: PlacedStatement = {
  sql: 'set constraints all immediate',
  runs: 'once',
  at: () => ', at its end',
};

/** Where it can leave neither role nor transaction, whatever it calls. */
const fenced = (sql: string) => `call tenancy.run_statement(${literal(sql)})`;
/**
 * In shared tables one statement would reach all tenants' rows: a join by key, a function or a trigger would give one tenant
 * what is another's.
 */
function fencedIn({ home }: MigrationTarget, file: MigrationFile, { sql, runs }: PlacedStatement): string {
  if (runs === 'once' || file.makesReferenceTables || isolations[home.strategy].ownsTables)
    return fenced(sql);
  if (runs === 'for all') return `call tenancy.run_for_all(${literal(sql)})`;
  const procedure = runs === 'for each' ? 'run_for_each' : 'run_for_each_if_needed';
  return `call tenancy.${procedure}(${literal(sql)}, ${literal(home.schema)})`;
}

function settingsFor(
  { home, databaseId, keys }: MigrationTarget,
  { makesReferenceTables }: MigrationFile,
  now: number,
): string[] {
  const tenant = isolations[home.strategy].ownsTables ? home.tenant : everyTenant;
  // Without one, row security shows no tenant's rows: a file with `-- shared` has nothing to do with them.
  const context = makesReferenceTables
    ? ''
    : signContext(
        keys,
        { databaseId, tenant, epoch: home.epoch, mode: 'w', purpose: 'migrate', statementMs: 0 },
        now,
      );
  // Rows that a migration inserts into shared tables must say whose they are.
  const own = tenant === everyTenant ? '' : tenant;
  return [
    `set local tenancy.context = '${context}'`,
    "set local tenancy.maintained = ''",
    `set local tenancy.tenant = '${own}'`,
    `set local search_path = "${home.schema}", extensions, pg_temp`,
  ];
}

/** Fenced too: a file may have put a trigger where the migrator writes. */
const endOf = (home: Home, { name, sets, checksum, makesReferenceTables }: MigrationFile): string[] => [
  fenced(`insert into "${home.schema}"._migrations (name, checksum) values ('${name}', '${checksum}')`),
  ...sets.map((setting) => `reset ${setting}`),
  ...(makesReferenceTables ? [`select tenancy.protect_reference('${home.schema}', '${home.login}')`] : []),
];
