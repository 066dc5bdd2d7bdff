import { TenantryError } from '../errors.ts';

/**
 * What a tool's statement may be. This keeps honest code out of trouble (a proxy pinned to a session, a
 * transaction ended under our feet). The walls are the tenant's rights in the database, but for one thing that
 * PostgreSQL lets nobody forbid a login with DELETE on a shared table: LOCK TABLE, which is refused here alone.
 */
const allowed = new Set(['select', 'insert', 'update', 'delete', 'merge', 'with', 'values', 'table']);
const transactional = new Set([
  'begin',
  'start',
  'commit',
  'end',
  'rollback',
  'abort',
  'savepoint',
  'release',
]);

/** @throws TenantryError `statement_refused`, with what to do instead */
export function assertStatement(text: string): void {
  const keyword = firstKeyword(text);
  if (allowed.has(keyword)) return;
  if (keyword === '') throw refused('The statement is empty or begins with no SQL keyword.');
  if (transactional.has(keyword)) {
    throw refused(
      `"${keyword}" is refused: a statement runs in a transaction of its own. ` +
        'For several statements in one, use db.transaction(async (tx) => …) and give tx to the ORM.',
    );
  }
  throw refused(
    `"${keyword}" is refused: a tool may send ${[...allowed].join(', ')}. ` +
      'Tables, functions and indexes are made by migrations; settings are not for tools.',
  );
}

/** What ends or divides a transaction, as a `tx` of `db.transaction` understands it. */
export type TransactionVerb =
  | { readonly verb: 'begin' | 'commit' | 'rollback' }
  /** `savepoint x`, `release x`, `rollback to x`: they nest within the transaction and may pass as they are. */
  | { readonly verb: 'pass' };

const name = `(?:"(?:[^"]|"")+"|[a-z_][a-z0-9_$]*)`;
const ending = String.raw`(?:\s+(?:work|transaction))?\s*;?\s*$`;
const verbs: readonly (readonly [RegExp, TransactionVerb['verb']])[] = [
  [new RegExp(`^savepoint\\s+${name}\\s*;?\\s*$`, 'i'), 'pass'],
  [new RegExp(`^release\\s+(?:savepoint\\s+)?${name}\\s*;?\\s*$`, 'i'), 'pass'],
  [
    new RegExp(`^rollback\\s+(?:(?:work|transaction)\\s+)?to\\s+(?:savepoint\\s+)?${name}\\s*;?\\s*$`, 'i'),
    'pass',
  ],
  // With whatever isolation level or access mode: inside a transaction neither can change any more.
  [/^(?:begin|start\s+transaction)(?:\s+[a-z][a-z ,\t\r\n]*)?\s*;?\s*$/i, 'begin'],
  [new RegExp(`^(?:commit|end)${ending}`, 'i'), 'commit'],
  [new RegExp(`^(?:rollback|abort)${ending}`, 'i'), 'rollback'],
];

/** The transaction verb that `text` is, if it is one; anything else is for `assertStatement`. */
export function transactionVerb(text: string): TransactionVerb | undefined {
  const statement = text.slice(skipIgnored(text, 0));
  // No verb is as long, and the patterns must not be fed kilobytes of white space.
  if (statement.length > 300) return undefined;
  const match = verbs.find(([pattern]) => pattern.test(statement));
  return match && { verb: match[1] };
}

/** The first keyword in lower case, past white space, comments and the parentheses that a UNION's sides stand in. */
function firstKeyword(text: string): string {
  let at = skipIgnored(text, 0);
  while (text[at] === '(') at = skipIgnored(text, at + 1);
  return /^[a-z_]{1,20}/i.exec(text.slice(at, at + 20))?.[0].toLowerCase() ?? '';
}

/** PostgreSQL's own white space: more of it (a no-break space, a byte order mark) would be a syntax error there. */
const space = new Set([' ', '\t', '\n', '\r', '\f', '\v']);

function skipIgnored(text: string, from: number): number {
  let at = from;
  for (;;) {
    if (space.has(text[at]!)) at += 1;
    else if (text.startsWith('--', at)) at = skipLine(text, at);
    else if (text.startsWith('/*', at)) at = skipBlock(text, at);
    else return at;
  }
}

function skipLine(text: string, from: number): number {
  let at = from;
  while (at < text.length && text[at] !== '\n' && text[at] !== '\r') at += 1;
  return at;
}

/** PostgreSQL's block comments nest. */
function skipBlock(text: string, from: number): number {
  let depth = 0;
  for (let at = from; at < text.length; ) {
    if (text.startsWith('/*', at)) depth += 1;
    else if (text.startsWith('*/', at)) depth -= 1;
    else {
      at += 1;
      continue;
    }
    at += 2;
    if (depth === 0) return at;
  }
  throw refused('The statement begins with a comment that does not end.');
}

function refused(message: string): TenantryError {
  return new TenantryError('statement_refused', message);
}
