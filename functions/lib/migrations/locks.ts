import type { MigrationFile } from './migration-file.ts';
import { beginningOf } from './places.ts';
import { splitList, splitStatements } from './split-statements.ts';

/** What a statement keeps others from, by PostgreSQL's own table of lock modes. */
export interface StatementLock {
  /** Its first words. */
  readonly statement: string;
  readonly lock: string;
  readonly blocks: 'reads and writes' | 'writes' | 'nobody' | 'unknown';
  /** What to know before it runs on a large table. */
  readonly note?: string;
}

interface Rule extends Omit<StatementLock, 'statement'> {
  readonly form: RegExp;
}

const type = String.raw`(?:set\s+data\s+)?type`;

/** The first that fits. Sources: PostgreSQL 17's manual, "Explicit Locking" and each command's page. */
const rules: readonly Rule[] = [
  {
    form: /^create\s+(unique\s+)?index\s+concurrently|^reindex\s+\w+\s+concurrently|^drop\s+index\s+concurrently/i,
    lock: 'SHARE UPDATE EXCLUSIVE',
    blocks: 'nobody',
  },
  {
    form: /^create\s+(unique\s+)?index/i,
    lock: 'SHARE',
    blocks: 'writes',
    note: 'for as long as the index is built: `-- no-transaction` and `concurrently` block nobody',
  },
  {
    form: /^reindex/i,
    lock: 'SHARE, and ACCESS EXCLUSIVE on the indexes',
    blocks: 'reads and writes',
    note: 'for as long as the index is built: `-- no-transaction` and `concurrently` block nobody',
  },
  {
    form: /^create\s+(unlogged\s+)?table[\s\S]*\bpartition\s+of\b/i,
    lock: 'ACCESS EXCLUSIVE, on the parent',
    blocks: 'reads and writes',
    note: 'make the table first and attach it: that keeps nobody from the parent',
  },
  {
    form: /^create\s+(?:unlogged\s+)?table\s+(?:if\s+not\s+exists\s+)?(?!if\s)([^\s(]+)[\s\S]*\breferences\s+(?!\1[\s(])/i,
    lock: 'SHARE ROW EXCLUSIVE, on the tables that it points at',
    blocks: 'writes',
    note: 'for a moment, and whoever comes while it waits for writers waits too',
  },
  {
    form: /^alter\s+table[\s\S]*\battach\s+partition/i,
    lock: 'SHARE UPDATE EXCLUSIVE on the parent, ACCESS EXCLUSIVE on what is attached and on a default partition',
    blocks: 'reads and writes',
    note: 'reads what is attached, unless a valid check constraint says the same',
  },
  {
    form: /^alter\s+table[\s\S]*\b(enable|disable)\s+(replica\s+|always\s+)?trigger\b/i,
    lock: 'SHARE ROW EXCLUSIVE',
    blocks: 'writes',
  },
  { form: /^create\s+(or\s+replace\s+)?trigger/i, lock: 'SHARE ROW EXCLUSIVE', blocks: 'writes' },
  { form: /^alter\s+table[\s\S]*\bvalidate\s+constraint/i, lock: 'SHARE UPDATE EXCLUSIVE', blocks: 'nobody' },
  {
    form: /^alter\s+table[\s\S]*\badd\s+(constraint\s+\S+\s+)?foreign\s+key/i,
    lock: 'SHARE ROW EXCLUSIVE, on both tables',
    blocks: 'writes',
    note: 'reads the whole table: add it `not valid`, validate it in the next file',
  },
  {
    form: new RegExp(String.raw`^alter\s+table[\s\S]*\balter\s+(column\s+)?\S+\s+${type}`, 'i'),
    lock: 'ACCESS EXCLUSIVE',
    blocks: 'reads and writes',
    note: 'most changes of a type write the table and its indexes anew',
  },
  {
    form: /^alter\s+table[\s\S]*\bset\s+not\s+null/i,
    lock: 'ACCESS EXCLUSIVE',
    blocks: 'reads and writes',
    note: 'reads the whole table, unless a valid check constraint says the same',
  },
  {
    form: /^alter\s+table[\s\S]*\badd\s+(constraint\s+\S+\s+)?check(?![\s\S]*not\s+valid)/i,
    lock: 'ACCESS EXCLUSIVE',
    blocks: 'reads and writes',
    note: 'reads the whole table: add it `not valid`, validate it in the next file',
  },
  {
    form: /^alter\s+table[\s\S]*\badd\s+(constraint\s+\S+\s+)?(unique|primary\s+key|exclude)(?![\s\S]*using\s+index)/i,
    lock: 'ACCESS EXCLUSIVE',
    blocks: 'reads and writes',
    note: 'builds an index meanwhile: build it concurrently, then add the constraint `using index`',
  },
  {
    form: /^alter\s+table[\s\S]*\badd\s+(column\s+)?[\s\S]*\bdefault\s+[^,;]*\b(gen_random_uuid|random|clock_timestamp|nextval|uuid_generate)\w*\s*\(/i,
    lock: 'ACCESS EXCLUSIVE',
    blocks: 'reads and writes',
    note: 'a default that differs by row writes the whole table anew',
  },
  {
    form: /^alter\s+table[\s\S]*\b(add\s+(column\s+)?(?!generated\b)[\s\S]*\bgenerated\s+(always|by\s+default)|set\s+expression)\s+as\b/i,
    lock: 'ACCESS EXCLUSIVE',
    blocks: 'reads and writes',
    note: 'a column that is computed or numbered writes the whole table anew',
  },
  {
    form: /^refresh\s+materialized\s+view\s+concurrently/i,
    lock: 'EXCLUSIVE, on the view',
    blocks: 'writes',
  },
  {
    form: /^(create\s+or\s+replace\s+(recursive\s+)?view|alter\s+view|refresh)/i,
    lock: 'ACCESS EXCLUSIVE, on the view',
    blocks: 'reads and writes',
    note: 'for a moment, or as long as a materialized one takes',
  },
  {
    form: /^alter\s+table[\s\S]*\breferences\b/i,
    lock: 'ACCESS EXCLUSIVE, and SHARE ROW EXCLUSIVE on the table that it points at',
    blocks: 'reads and writes',
    note: 'for a moment, and whoever comes while it waits for readers waits too',
  },
  {
    form: /^(alter\s+table|drop\s+|truncate|lock\s+table|alter\s+index|create\s+policy|alter\s+policy|create\s+(or\s+replace\s+)?rule|cluster)/i,
    lock: 'ACCESS EXCLUSIVE',
    blocks: 'reads and writes',
    note: 'for a moment, and whoever comes while it waits for readers waits too',
  },
  {
    form: /^(update|delete|insert|merge|with)\b/i,
    lock: 'ROW EXCLUSIVE',
    blocks: 'nobody',
    note: 'but the rows that it changes stay locked to the end of the transaction',
  },
  { form: /^(comment|create\s+statistics|analyze)/i, lock: 'SHARE UPDATE EXCLUSIVE', blocks: 'nobody' },
  {
    form: /^(do|select|call|values|table|execute)\b/i,
    lock: 'can’t be told from the text',
    blocks: 'unknown',
    note: 'what it runs takes its own locks',
  },
];

const other: Omit<StatementLock, 'statement'> = { lock: 'no lock on a table', blocks: 'nobody' };

const severity: readonly StatementLock['blocks'][] = ['nobody', 'unknown', 'writes', 'reads and writes'];

function lockOf(text: string): Omit<StatementLock, 'statement'> {
  const { form: _, ...lock } = rules.find(({ form }) => form.test(text)) ?? { form: /./, ...other };
  return lock;
}

const makes = /^create\s+(?:unlogged\s+)?table\s+(?!if\s)([^\s(]+)(?![\s\S]*\bpartition\s+of\b)/i;
/** Of a statement that locks this table, and no other but those that it points at. */
const changes =
  /^(?:create\s+(?:unique\s+)?index\b[\s\S]*?\bon|alter\s+table)\s+(?:only\s+)?([^\s(]+)(?![\s\S]*\b(?:attach|inherit)\b)/i;
const pointsAt = /\breferences\s+([^\s(,;)]+)/gi;

/** `alter table t a, b` as `alter table t a` and `alter table t b`. */
function actionsOf(text: string): string[] {
  const subject = /^alter\s+table\s+(if\s+exists\s+)?(only\s+)?\S+\s+/i.exec(text)?.[0];
  if (subject === undefined) return [text];
  return splitList(text.slice(subject.length)).map((action) => subject + action);
}

/** For people who are about to run it: told from the text alone. The tables of new homes are empty, and nobody waits there. */
export function statementLocks({ sql }: MigrationFile): StatementLock[] {
  // Nobody else sees a table before the file is done.
  const made = new Set<string>();
  return splitStatements(sql).statements.map((text) => {
    const makesTable = makes.exec(text)?.[1];
    if (makesTable !== undefined) made.add(makesTable);
    const changed = makesTable ?? changes.exec(text)?.[1];
    const touched = [changed, ...[...text.matchAll(pointsAt)].map(([, table]) => table)];
    if (touched.every((table) => table !== undefined && made.has(table)))
      return { statement: beginningOf(text), ...other };
    // Of all that one ALTER TABLE does, what keeps most people out.
    const locks = actionsOf(text).map(lockOf);
    const lock = locks.toSorted((a, b) => severity.indexOf(b.blocks) - severity.indexOf(a.blocks))[0]!;
    return { statement: beginningOf(text), ...lock };
  });
}
