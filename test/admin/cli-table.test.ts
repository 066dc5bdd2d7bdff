import { describe, expect, it } from 'vitest';
import { card, table } from '../../functions/admin/cli/output.ts';

const longest = (text: string) => Math.max(...text.split('\n').map(({ length }) => length));
/** The cells of a column, put together again. */
const column = (text: string, at: number) =>
  text
    .split('\n')
    .filter((line) => line.startsWith('│'))
    .map((line) => line.split('│')[at]!.trim())
    .join('');

describe('a table', () => {
  const reason =
    '0002-tags.sql failed: check constraint "items_not_this" is violated by some row (SQLSTATE 23514): change the rows that do not fit';
  const name = 'x'.repeat(200);

  it('is as wide as its terminal, and loses nothing', () => {
    const text = table(['tenant', 'reason', 'object'], [['globex', reason, name]], 80);
    expect(longest(text)).toBeLessThanOrEqual(80);
    expect(column(text, 2).replace(/ /g, '')).toBe(`reason${reason}`.replace(/ /g, ''));
    expect(column(text, 3)).toBe(`object${name}`);
  });

  it('is as wide as its text where nothing is narrower', () => {
    for (const columns of [undefined, 0, 500]) {
      const text = table(['tenant', 'reason'], [['globex', reason]], columns);
      expect(text.split('\n')).toHaveLength(4);
      expect(text).toContain(reason);
    }
  });

  it('goes past a terminal that is too narrow for anything', () => {
    expect(longest(table(['a', 'b'], [['globex', reason]], 10))).toBeGreaterThan(10);
  });

  it('of one thing has its properties’ names whole', () => {
    const text = card({ status: 'failed', 'way back until': null, reason }, 60);
    expect(longest(text)).toBeLessThanOrEqual(60);
    expect(text).toContain('│ status │ failed');
    expect(column(text, 2).replace(/ /g, '')).toBe(`failed${reason}`.replace(/ /g, ''));
    expect(card({})).toBe('');
  });
});

it('shows a column without a name in which nothing stands', () => {
  expect(table(['tenant', ''], [['acme', '']], 80)).toContain('acme');
  expect(card({ reason: '' })).toContain('reason');
});
