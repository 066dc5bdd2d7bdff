import pgUtils from 'pg/lib/utils.js';
import { TenantryError } from '../errors.ts';
import { Sql } from './sql.ts';
import type { QueryConfig } from './types.ts';

/** RDS Proxy pins a session to one connection when a statement's text is longer than 16 KB. */
const MAX_TEXT_BYTES = 16 * 1024;
/** The protocol counts parameters in 16 bits, and node-postgres would wrap around silently. */
const MAX_VALUES = 65_535;

/** A statement as it goes on the wire: nothing in it can fail to be written any more. */
export interface Statement {
  readonly text: string;
  readonly values: readonly (string | Buffer | null)[];
  readonly rowMode?: 'array' | undefined;
  readonly types?: QueryConfig['types'];
}

/** Reads what node-postgres' `query` accepts, and refuses what PostgreSQL or the proxy could not take. */
export function toStatement(given: string | Sql | QueryConfig, values?: readonly unknown[]): Statement {
  const config: QueryConfig = typeof given === 'string' ? { text: given } : given;
  // Read once: what was checked is what is sent.
  const text = config?.text;
  if (typeof text !== 'string' || typeof (given as { submit?: unknown }).submit === 'function') {
    throw refused(
      'A statement is a string, sql`…`, or an object {text, values}; cursors and streams are not.',
    );
  }
  checkText(text);
  const list = values ?? config.values ?? [];
  if (!Array.isArray(list)) throw refused('The values of a statement are an array.');
  if (list.length > MAX_VALUES) {
    throw refused(`A statement has at most ${MAX_VALUES} values; pass one array instead: = any($1).`);
  }
  return {
    text,
    values: list.map(prepare),
    rowMode: config.rowMode,
    types: given instanceof Sql ? undefined : config.types,
  };
}

function checkText(text: string): void {
  if (text.includes('\0')) throw refused('The statement contains a NUL character, which PostgreSQL has not.');
  if (!text.isWellFormed())
    throw refused('The statement contains half of a surrogate pair: it is not valid Unicode.');
  if (Buffer.byteLength(text) > MAX_TEXT_BYTES) {
    throw refused(
      'The statement is longer than 16 KB; pass data as parameters, many rows as arrays (unnest).',
    );
  }
}

function prepare(value: unknown, index: number): string | Buffer | null {
  let prepared: string | Buffer | null;
  try {
    prepared = pgUtils.prepareValue(value);
  } catch (cause) {
    throw refused(
      `Value $${index + 1} can't be sent to PostgreSQL; convert it to text or JSON first.`,
      cause,
    );
  }
  if (prepared === null || Buffer.isBuffer(prepared)) return prepared;
  // What is no text either would fail, or write what it likes, in the middle of our messages.
  if (typeof prepared !== 'string') {
    throw refused(`Value $${index + 1} can't be sent to PostgreSQL; convert it to text or JSON first.`);
  }
  if (prepared.includes('\0')) {
    throw refused(`Value $${index + 1} contains a NUL character, which PostgreSQL text can't hold.`);
  }
  if (!prepared.isWellFormed()) {
    throw refused(`Value $${index + 1} contains half of a surrogate pair: it is not valid Unicode.`);
  }
  return prepared;
}

function refused(message: string, cause?: unknown): TenantryError {
  return new TenantryError('statement_refused', message, cause === undefined ? undefined : { cause });
}
