import { literal } from '../database/connect.ts';
import { everyTenant, type MasterKeys, signContext } from '../isolation/context.ts';
import { type Home, isolations } from '../isolation/isolation.ts';
import type { MigrationFile } from './migration-file.ts';
import { type PlacedStatement, statementsOf } from './places.ts';
import { atEnd, refused } from './refused.ts';

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
    files.flatMap((file, place): Step[] => {
      const own = (sql: string) => ({ sql, file: file.name });
      const areShared = !isolations[target.home.strategy].ownsTables && !file.makesReferenceTables;
      // Constraints checked at the end are this file's too, and triggers that fire there.
      const all = [...statements(file), last];
      const mayHaveMade = (before: PlacedStatement | undefined) =>
        before === undefined ? place > 0 : !before.writes;
      return [
        // Before each file: an earlier one may have changed them.
        ...settingsFor(target, file, now).map(own),
        // One with `-- shared`, before this one, runs as it is.
        ...(areShared ? [own(undoPolicies(target.home))] : []),
        ...all.flatMap((statement, index): Step[] => {
          const { sql, at, runs, writes } = statement;
          if (areShared && opensTables.test(sql))
            throw refused(
              file.name,
              `takes row security away in a block or function${at()}`,
              'leave it out: there a migration reaches one tenant’s rows after the other’s, as it is',
            );
          if (areShared)
            return [{ ...own(inTurns(sql, runs, target.home)), at, catches: runs === 'for each if needed' }];
          const mayWrite = writes || runs === 'for each if needed';
          return [
            // Rows that a file writes name no tenant: a table that it has made gets its default before.
            ...(mayWrite && mayHaveMade(all[index - 1]) ? [{ ...own(prepare(target.home)), at }] : []),
            { ...own(fenced(sql)), at },
          ];
        }),
        ...endOf(target.home, file).map(own),
      ];
    }),
  );
}

/** By a statement of its own it is put back before the next one; here the same block could reach all tenants’ rows. */
const opensTables = /^(?!alter\s+table\b)[\s\S]*\b(disable|no\s+force)\s+row\s+level\s+security\b/i;

const last: PlacedStatement = {
  sql: 'set constraints all immediate',
  runs: 'for nobody',
  writes: false,
  at: () => atEnd,
};

/** Where it can leave neither role nor transaction, whatever it calls. */
const fenced = (sql: string): string => `call tenancy.run_statement(${literal(sql)})`;

const procedures: Readonly<Record<PlacedStatement['runs'], string>> = {
  'for each': 'run_for_each',
  'for each if needed': 'run_for_each_if_needed',
  'for nobody': 'run_for_nobody',
};

/**
 * The same in shared tables, where one statement would reach all tenants' rows: a join by key, a function or a trigger would
 * give one tenant what is another's.
 */
const inTurns = (sql: string, runs: PlacedStatement['runs'], home: Home): string =>
  `call tenancy.${procedures[runs]}(${literal(sql)}, ${literal(home.schema)})`;

const prepare = (home: Home): string =>
  fenced(`select tenancy.prepare_tables(${literal(home.schema)}, false, false)`);

const undoPolicies = (home: Home): string => fenced(`select tenancy.undo_policies(${literal(home.schema)})`);

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
  // In shared tables, whose rows a statement inserts is set where it runs for a tenant.
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
