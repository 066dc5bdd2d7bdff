import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type CursorBinding, createCursors } from '../../../functions/lib/mcp/cursor.ts';

const key = Buffer.alloc(32, 1);
const mine: CursorBinding = { tenant: 'acme', auth: 'oidc:a', principal: 'ann', tool: 'stock_history' };
const invalid = expect.objectContaining({ code: 'invalid_cursor' });

test('what was sealed comes back, for any position', () => {
  const cursor = createCursors([key])(mine);
  fc.assert(
    fc.property(fc.jsonValue(), (position) => {
      expect(cursor.open(cursor.seal(position))).toEqual(JSON.parse(JSON.stringify(position)));
    }),
  );
});

test.each(['tenant', 'auth', 'principal', 'tool'] as const)('it is nothing to another %s', (part) => {
  const cursors = createCursors([key]);
  const sealed = cursors(mine).seal(['SKU-1', 7]);
  expect(() => cursors({ ...mine, [part]: 'another' }).open(sealed)).toThrow(invalid);
});

test('two names cannot be shifted into one another', () => {
  const cursors = createCursors([key]);
  const sealed = cursors({ ...mine, principal: 'a","b', tool: 'c' }).seal(1);
  expect(() => cursors({ ...mine, principal: 'a', tool: 'b","c' }).open(sealed)).toThrow(invalid);
});

test('no changed byte and no invented text opens', () => {
  const cursor = createCursors([key])(mine);
  const bytes = Buffer.from(cursor.seal({ after: 7 }), 'base64url');
  for (let index = 0; index < bytes.length; index++) {
    const changed = Buffer.from(bytes);
    changed[index]! ^= 1;
    expect(() => cursor.open(changed.toString('base64url'))).toThrow(invalid);
    expect(() => cursor.open(bytes.subarray(0, index).toString('base64url'))).toThrow(invalid);
  }
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      expect(() => cursor.open(text)).toThrow(invalid);
    }),
  );
  expect(() => cursor.open('A'.repeat(10_000_000))).toThrow(invalid);
});

test('it shows nothing of the position, and the same position twice looks different', () => {
  const cursor = createCursors([key])(mine);
  const position = { sku: 'SECRET-SKU' };
  expect(cursor.seal(position)).not.toBe(cursor.seal(position));
  expect(Buffer.from(cursor.seal(position), 'base64url').toString('latin1')).not.toContain('SECRET');
  expect(cursor.seal(position)).toMatch(/^[\w-]+$/);
});

test('during a rotation the old key still opens and the new one seals', () => {
  const next = Buffer.alloc(32, 2);
  const before = createCursors([key])(mine);
  const during = createCursors([next, key])(mine);
  const after = createCursors([next])(mine);
  expect(during.open(before.seal(1))).toBe(1);
  expect(after.open(during.seal(2))).toBe(2);
  expect(() => after.open(before.seal(3))).toThrow(invalid);
});

test('the nonce is what the source of randomness gave', () => {
  const nonces: Buffer[] = [];
  const random = (bytes: number) => {
    const nonce = Buffer.alloc(bytes, nonces.length);
    nonces.push(nonce);
    return nonce;
  };
  const cursor = createCursors([key], random)(mine);
  const sealed = [cursor.seal(1), cursor.seal(1)].map((text) =>
    Buffer.from(text, 'base64url').subarray(1, 13),
  );
  expect(sealed).toEqual(nonces);
});
