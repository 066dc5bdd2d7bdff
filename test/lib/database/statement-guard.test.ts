import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { toStatement } from '../../../functions/lib/database/statement.ts';
import { assertStatement, transactionVerb } from '../../../functions/lib/database/statement-guard.ts';
import { TenantryError } from '../../../functions/lib/errors.ts';

/** What PostgreSQL ignores before a statement. */
const ignored = fc
  .array(
    fc.oneof(
      fc.constantFrom(
        ' ',
        '\t',
        '\n',
        '\r',
        '\f',
        '\v',
        '/**/',
        '/* select */',
        '/* /* nested */ */',
        '-- select\n',
        '--\r',
      ),
      fc.string().map((text) => `/*${text.replaceAll(/[*/]/g, '')}*/`),
      fc.string().map((text) => `--${text.replaceAll(/[\r\n]/g, '')}\n`),
    ),
    { maxLength: 6 },
  )
  .map((parts) => parts.join(''));
const anyCase = (word: string) =>
  fc
    .array(fc.boolean(), { minLength: word.length, maxLength: word.length })
    .map((upper) =>
      [...word].map((letter, index) => (upper[index] ? letter.toUpperCase() : letter)).join(''),
    );
const refusal = (work: () => unknown) => {
  try {
    work();
  } catch (error) {
    expect(error).toBeInstanceOf(TenantryError);
    expect((error as TenantryError).code).toBe('statement_refused');
    return (error as TenantryError).message;
  }
  return expect.fail('nothing was refused');
};

const allowed = ['select', 'insert', 'update', 'delete', 'merge', 'with', 'values', 'table'];
const verbs = [
  'begin',
  'start transaction',
  'commit',
  'end',
  'rollback',
  'abort',
  'savepoint a',
  'release a',
];
const others = [
  'set search_path = x',
  'reset all',
  'discard all',
  'do $$ begin end $$',
  'call p()',
  'copy items to stdout',
  'prepare x as select 1',
  'execute x',
  'deallocate all',
  'declare c cursor for select 1',
  'fetch c',
  'listen x',
  'notify x',
  'lock items',
  'create table x ()',
  'alter table items add x int',
  'drop table items',
  'truncate items',
  'grant all on items to public',
  'vacuum',
  'analyze',
  'explain select 1',
  'show all',
  "load 'x'",
  'security label',
  'selection',
  'select_ 1',
];

describe('a statement on its own', () => {
  test('may be any of the allowed, whatever stands before it', () => {
    const statement = fc.constantFrom(...allowed).chain(anyCase);
    fc.assert(fc.property(ignored, statement, (before, word) => assertStatement(`${before}${word} x`)));
    assertStatement('(select 1) union (select 2)');
    assertStatement(' ( /* a */ ( select 1 ) )');
  });

  test('may not end a transaction, and hears of db.transaction, whatever stands before it', () => {
    const statement = fc.constantFrom(...verbs).chain(anyCase);
    fc.assert(
      fc.property(ignored, statement, (before, text) => {
        expect(refusal(() => assertStatement(before + text))).toContain('db.transaction');
      }),
    );
  });

  test.each(others)('may not be: %s', (text) => {
    fc.assert(
      fc.property(ignored, (before) => {
        expect(refusal(() => assertStatement(before + text))).toMatch(/migrations/);
      }),
      { numRuns: 20 },
    );
  });

  test.each([
    '',
    '  ',
    '--',
    '/* a */',
    '; select 1',
    '\u00a0select 1',
    '\ufeffselect 1',
    '"select"',
    '$1',
    '/',
    '-',
    '(',
  ])('may not be empty or something else: %j', (text) =>
    expect(refusal(() => assertStatement(text))).toMatch(/empty|no SQL keyword/),
  );

  test.each(['/* select', '/* /* */ select 1', '/*/ select 1'])(
    'may not begin with an endless comment: %j',
    (text) => expect(refusal(() => assertStatement(text))).toMatch(/does not end/),
  );

  test('is read in one pass, however hostile', () => {
    for (const piece of ['/*', '(', ' ', '--\n', 'begin ', 'rollback to ', '/*/']) {
      const text = piece.repeat(16_384 / piece.length);
      expect(() => assertStatement(text)).toThrow(TenantryError);
      transactionVerbOrRefusal(text);
    }
  });
});

function transactionVerbOrRefusal(text: string): void {
  try {
    expect(transactionVerb(text)).toBeUndefined();
  } catch (error) {
    expect(error).toBeInstanceOf(TenantryError);
  }
}

describe('a verb inside db.transaction', () => {
  test.each([
    ['begin', 'begin'],
    ['BEGIN', 'begin'],
    ['begin isolation level serializable', 'begin'],
    ['begin isolation level repeatable read, read only, deferrable', 'begin'],
    ['start transaction isolation level read committed read write', 'begin'],
    ['/* orm */ begin;', 'begin'],
    ['commit', 'commit'],
    ['commit work', 'commit'],
    ['end', 'commit'],
    ['rollback', 'rollback'],
    ['ROLLBACK TRANSACTION;', 'rollback'],
    ['abort', 'rollback'],
    ['savepoint sp1', 'pass'],
    ['savepoint "a "" b"', 'pass'],
    ['release sp1', 'pass'],
    ['release savepoint sp1', 'pass'],
    ['rollback to sp1', 'pass'],
    ['rollback to savepoint "sp 1"', 'pass'],
  ])('%s is %s', (text, verb) => expect(transactionVerb(text)).toEqual({ verb }));

  test.each([
    "commit prepared 'x'",
    "rollback prepared 'x'",
    'commit and chain',
    'savepoint a; drop table b',
    'begin; select 1',
    'select 1',
    'release a b',
  ])('%s is none', (text) => expect(transactionVerb(text)).toBeUndefined());
});

describe('text and values', () => {
  test('over 16 KB are refused, because they would pin a proxy to the session', () => {
    const longest = `select '${'ü'.repeat((16_384 - 9) / 2)}'`;
    expect(Buffer.byteLength(longest)).toBe(16_384 - 1);
    expect(toStatement(longest).text).toBe(longest);
    expect(refusal(() => toStatement(`${longest}  `))).toMatch(/16 KB/);
  });

  test('with NUL or half a surrogate are refused by name of the place', () => {
    expect(refusal(() => toStatement("select '\0'"))).toMatch(/NUL/);
    expect(refusal(() => toStatement("select '\ud800'"))).toMatch(/surrogate/);
    expect(refusal(() => toStatement('select $1, $2', ['a', 'b\0']))).toMatch(/\$2.*NUL/);
    expect(refusal(() => toStatement('select $1', ['\udc00']))).toMatch(/\$1.*surrogate/);
    expect(refusal(() => toStatement('select $1', [['a', '\0']]))).toMatch(/\$1.*NUL/);
    expect(toStatement('select $1', ['😀']).values).toEqual(['😀']);
  });

  test('are read once: what was checked is what is sent', () => {
    let reads = 0;
    const changing = {
      get text() {
        reads += 1;
        return reads === 1 ? 'select 1' : "select '\0'";
      },
    };
    expect(toStatement(changing).text).toBe('select 1');
  });

  test('are prepared as node-postgres does', () => {
    const values = [null, undefined, 1, 2n, true, { a: 1 }, ['x', null], Buffer.from('b')];
    expect(toStatement('select', values).values).toEqual([
      null,
      null,
      '1',
      '2',
      'true',
      '{"a":1}',
      '{"x",NULL}',
      Buffer.from('b'),
    ]);
  });

  test('that can not be sent are refused', () => {
    const circular: Record<string, unknown> = {};
    circular.self = circular;
    const writer = Object.assign(() => {}, { toString: () => ({ length: 1, copy: () => 1 }) });
    for (const value of [circular, { toJSON: () => undefined }, writer])
      expect(refusal(() => toStatement('select $1', [value]))).toMatch(/\$1 can't be sent/);
    expect(refusal(() => toStatement('select 1', new Array(65_536).fill(1)))).toMatch(/65535/);
    expect(refusal(() => toStatement({ text: 'select 1', submit() {} } as never))).toMatch(/cursors/);
    expect(refusal(() => toStatement(undefined as never))).toMatch(/A statement is/);
    expect(refusal(() => toStatement('select 1', (() => {}) as never))).toMatch(/array/);
  });
});
