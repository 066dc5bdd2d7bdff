import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { identifier, memberNames, normalizeScopes } from '../../../functions/lib/auth/claims.ts';

describe('memberNames', () => {
  it('finds an object’s own names and no nested ones, however they are written', () => {
    const dictionary = fc.dictionary(fc.string({ unit: 'binary' }), fc.jsonValue(), {
      noNullPrototype: true,
    });
    fc.assert(
      fc.property(dictionary, fc.boolean(), (object, spaced) => {
        expect(memberNames(JSON.stringify(object, null, spaced ? 2 : 0))).toEqual(Object.keys(object));
      }),
    );
  });

  it('repeats what is repeated', () => {
    expect(memberNames('{"a":{"a":"\\"a\\":"},"b":["a"],"\\u0061":1}')).toEqual(['a', 'b', 'a']);
  });
});

describe('identifier', () => {
  it('is what it was given or nothing', () => {
    fc.assert(fc.property(fc.anything(), (value) => [value, undefined].includes(identifier(value))));
    expect(identifier('Zoë & Søns 株式会社')).toBe('Zoë & Søns 株式会社');
  });
});

describe('normalizeScopes', () => {
  it('is one form, whatever the order and repetition', () => {
    const scope = fc.stringMatching(/^[a-z]{1,5}:[a-z]{1,5}$/);
    fc.assert(
      fc.property(fc.array(scope), (scopes) => {
        const once = normalizeScopes(scopes)!;
        expect(normalizeScopes([...scopes, ...scopes].reverse())).toBe(once);
        expect(normalizeScopes(once)).toBe(once);
        expect(once.split(' ').filter(Boolean)).toEqual([...new Set(scopes)].sort());
      }),
    );
  });
});
