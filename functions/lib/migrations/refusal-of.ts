import { isPathOfItsOwn, pathOfItsOwn, remedyOfFull } from '../database/failure.ts';
import { TenantryError } from '../errors.ts';
import type { MigrationFile } from './migration-file.ts';
import { atEnd, extensionsSetting, refused, temporary, unqualified } from './refused.ts';

const notPutOff =
  'begin the file with `set constraints all immediate`: foreign keys and triggers that are put off then act with each statement';
const owners =
  'leave owners and rights to the migrator: delete the line (pg_dump: `--no-owner --no-privileges`)';

const inParts = (file: MigrationFile | undefined) =>
  file?.concurrent === undefined
    ? 'do its work in several files, each a part of the rows'
    : 'give the server more while it runs, or make the index smaller';

/** The migration that a home could not take, where in it, and why. */
export function refusalOf(file: MigrationFile | undefined, error: unknown): Error {
  if (error instanceof TenantryError) return error;
  const failed = error as DatabaseError;
  const [what, remedy] = meaningOf(file, failed);
  return refused(
    file?.name ?? 'Completing the home',
    what + (failed.at ?? file?.concurrent?.at ?? ''),
    remedy,
    error,
  );
}

/** What PostgreSQL tells of an error, as far as it matters here, and where it was. */
interface DatabaseError {
  readonly message: string;
  readonly code?: string;
  readonly column?: string;
  readonly detail?: string;
  /** In which functions it was. */
  readonly where?: string;
  readonly at?: string | undefined;
}

function meaningOf(
  file: MigrationFile | undefined,
  error: DatabaseError,
): readonly [what: string, remedy: string] {
  switch (error.code) {
    case '55P03':
      return ['waited for a lock in vain', 'run it again when the tables are less busy'];
    case '57014':
      return ['has a statement that takes longer than a function has for it (8 minutes)', inParts(file)];
    case '25P04':
      return ['takes longer than a function has for it (9 minutes)', inParts(file)];
    case '42501':
      if (/parameter "(role|session_authorization)"/.test(error.message))
        return [
          'changes its role, in a function or DO block',
          'leave transactions and roles to the migrator: logins and their rights come with homes',
        ];
  }
  return [`failed: ${error.message} (SQLSTATE ${error.code})`, remedyFor(error)];
}

const makesIndex = /\(`(create (unique )?index|create materialized|refresh|reindex|alter table)\b/i;
const inserts = /\(`insert into\b(?!.*\bselect\b)/i;

function remedyFor(error: DatabaseError): string {
  const { message, code, column, detail, at } = error;
  if (makesIndex.test(at ?? '') && isPathOfItsOwn(error)) return `${pathOfItsOwn}, and run it again`;
  switch (code) {
    case '23502':
      if (column !== 'tenant_id') break;
      return 'rows belong to a tenant: write `insert into … select …` in place of `values`, which runs once for each tenant, or put what all may read into a file that begins with `-- shared`, in a table without tenant_id';
    case '42501':
      if (/temporary tables/.test(message)) return temporary;
      if (/SET ROLE/.test(message)) return owners;
      if (/schema/.test(message)) return unqualified;
      return 'leave it out: a file owns what its home consists of, and nothing else';
    case '3F000':
      return unqualified;
    case '42704':
    case '42883':
      if (/^role "/.test(message)) return owners;
      // What no extension brings along.
      if (/^(constraint|trigger|index|policy|rule|column|relation) "/.test(message)) break;
      return `correct it, or name the extension that has it in ${extensionsSetting}, and run it again`;
    case '42P07':
    case '42710':
    case '42701':
    case '42723': {
      const partition = /^trigger "tenancy_capture" for relation "(.*)" already exists$/.exec(message)?.[1];
      if (partition !== undefined)
        return `write \`drop trigger tenancy_capture on ${partition}\` before it: a partition gets its parent’s. One that is made and attached in the same file has none yet`;
      // What reaches rows runs once for each tenant where they share tables.
      const again = /\(`(do|call)\b/i.test(at ?? '')
        ? 'make it in a statement of its own: in tables that tenants share, a block that reaches rows runs once for each. Or '
        : '';
      return `${again}an earlier file or statement has made it: leave it out, drop the other first, or choose another name, and run it again`;
    }
    case '42803':
      if (!/GROUP BY/.test(message)) break;
      return 'group by each such column, or by the whole primary key of its table, which tenant_id is a part of, and run it again';
    case '42830':
      return 'write `foreign key (tenant_id, …) references … (tenant_id, …)`: the other table’s key begins with tenant_id, so this one does; and run it again';
    case '42P10':
      if (!/ON CONFLICT/.test(message)) break;
      return 'write `on conflict (tenant_id, …)`, as the key that it names, and run it again';
    case '42P01':
      if (/"[^"]+\.[^"]+"/.test(message)) return unqualified;
      break;
    case '2BP01':
    case '0A000':
      // Names of tables, views and functions alone: a detail that quotes rows has another code.
      if (!detail?.includes(' depends on ')) break;
      return `drop what depends on it before, make it again behind it, in the same file (${detail.replaceAll('\n', '; ')}), and run it again`;
    case 'TN001':
      return 'move whatever reads or changes tenants’ rows into a file of its own, without `-- shared`';
    case '55P04':
      return 'move `alter type … add value` into a file of its own before this one, and run it again';
    case '55006':
      if (/pending trigger events/.test(message)) return notPutOff;
      break;
    case 'TN011':
      // For whom a statement ran is not known any more.
      if (at === atEnd) return notPutOff;
      return 'write it as an `update`, `delete`, `merge` or `insert … select` of its own, or in a DO block: those run once for each tenant; rows that tenants to come shall have too are what `-- shared` is for, and a tenant’s own come by `npm run tenants -- import`';
    case 'TN012':
      if (/^set_config/.test(message))
        return 'keep a tenant’s value in a variable of one DO block, or in a table with tenant_id; set what is the same for all in a statement of its own';
      if (/^setval/.test(message))
        return 'leave it out: the numbers are all tenants’. To raise them, write `alter table … alter column … restart with` a number above everybody’s as a statement of its own';
      if (/^something that all share/.test(message))
        return 'write it as a statement of its own, outside of blocks and functions that reach rows: what one tenant’s rows say is not so for others; to take one’s rows away, write `delete`';
      if (/^a text that is put together/.test(message))
        return 'write the definition as a statement of its own, or behind `execute` as one constant: a value of one tenant’s rows would be everybody’s';
      if (/^policies are made/.test(message))
        return 'leave policies to the migrator: there a migration reaches one tenant’s rows after the other’s, as it is';
      if (/^an error that may quote/.test(message))
        return 'leave `sqlerrm` and the diagnostics out, or what makes or alters a table: write that as a statement of its own';
      if (/^rows are written while/.test(message))
        return 'let functions that it computes by write nothing, because they are given the rows of all, and insert constants in a statement of its own';
      if (/a key over all tenants$/.test(message))
        return 'add tenant_id to its keys and unique indexes, also when the file drops it at its end';
      return 'declare `tenant_id uuid not null` in it too, also when the file drops it at its end; leave its value to the default';
    case '25001':
    case '2D000':
      return 'leave it out: a file is one transaction, which is the migrator’s to begin and end';
  }
  const full = remedyOfFull(code);
  if (full !== undefined) return `the file is not at fault: ${full}, and run it again`;
  if (code === '23503' && inserts.test(at ?? ''))
    return 'insert what a row points at before it, or write the foreign key behind the rows, and run it again';
  // It has perhaps been applied elsewhere: then it can't be edited any more.
  if (code?.startsWith('23'))
    return 'change the rows that do not fit (by a tool, as their tenant), or write the file anew (RUNBOOK.md, "Homes quarantined"), and run it again';
  return 'correct it and run it again';
}
