import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Sql, sql } from '../../../functions/lib/database/sql.ts';
import { TenantryError } from '../../../functions/lib/errors.ts';

describe('sql', () => {
  test('makes every value a parameter, arrays too', () => {
    const statement = sql`select * from items where sku = any(${['a', 'b']}) and name = ${"'; drop table items; --"}`;
    expect(statement.text).toBe('select * from items where sku = any($1) and name = $2');
    expect(statement.values).toEqual([['a', 'b'], "'; drop table items; --"]);
  });

  test('splices fragments and numbers their parameters on', () => {
    const low = sql`quantity < ${5}`;
    const named = sql`(${low} or name = ${'bolt'})`;
    const statement = sql`select ${1}::int from items where ${named} and ${low} limit ${10}`;
    expect(statement.text).toBe(
      'select $1::int from items where (quantity < $2 or name = $3) and quantity < $4 limit $5',
    );
    expect(statement.values).toEqual([1, 5, 'bolt', 5, 10]);
    expect(sql`select 1 ${sql``}`.text).toBe('select 1 ');
  });

  test('is no way to pass text as a statement', () => {
    const asFunction = sql as unknown as (text: unknown) => Sql;
    expect(() => asFunction('select 1')).toThrow(TenantryError);
    expect(() => asFunction(['select 1'])).toThrow(/template tag/);
    const lookalike = { text: 'drop table items', values: [] };
    expect(sql`select ${lookalike}`.text).toBe('select $1');
  });

  test('keeps any nesting of values and fragments in order', () => {
    const { tree } = fc.letrec<{ tree: Tree }>((tie) => ({
      tree: fc.array(fc.oneof({ depthSize: 'small' }, fc.string(), fc.integer(), tie('tree')), {
        maxLength: 4,
      }),
    }));
    fc.assert(
      fc.property(tree, (parts) => {
        const statement = build(parts);
        expect(statement.values).toEqual(flatten(parts));
        const numbers = [...statement.text.matchAll(/\$(\d+)/g)].map(([, number]) => Number(number));
        expect(numbers).toEqual(statement.values.map((_, index) => index + 1));
        expect(statement.text.replace(/\$\d+/g, '').replace(/[()-]/g, '')).toBe('');
      }),
    );
  });
});

type Tree = (string | number | Tree)[];
const flatten = (parts: Tree): unknown[] =>
  parts.flatMap((part) => (Array.isArray(part) ? flatten(part) : [part]));

function build(parts: Tree): Sql {
  const strings = Object.assign(['(', ...parts.map(() => '-').slice(1), ...(parts.length ? [')'] : [])], {
    raw: [],
  });
  return sql(
    strings as unknown as TemplateStringsArray,
    ...parts.map((part) => (Array.isArray(part) ? build(part) : part)),
  );
}
