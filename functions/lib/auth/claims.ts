/** OpenID Connect's bound for `sub`; tenant claims and key ids get the same. */
const maxCharacters = 255;

/**
 * A claim that ends up in a context, a log line or a query parameter: one non-empty line of text without control,
 * format or unpaired surrogate characters. Anything else, an array of one included, is no identity.
 */
export function identifier(value: unknown): string | undefined {
  if (typeof value !== 'string' || value.length > maxCharacters || value.trim() !== value) return undefined;
  return /^[^\p{C}\p{Zl}\p{Zp}]+$/u.test(value) ? value : undefined;
}

/** RFC 6749's scope-token. */
const scopeToken = /^[\x21\x23-\x5b\x5d-\x7e]+$/;

/**
 * Scopes as one sorted, space-separated string. Issuers send a string (OAuth) or an array (Entra's `roles`, Okta's
 * `scp`); an array's elements are taken whole, so that a role called `reader inventory:write` grants nothing.
 */
export function normalizeScopes(claim: unknown): string | undefined {
  if (claim === undefined) return '';
  const list = typeof claim === 'string' ? claim.split(' ') : claim;
  if (!Array.isArray(list) || !list.every((scope) => typeof scope === 'string')) return undefined;
  return [...new Set(list.filter((scope) => scopeToken.test(scope)))].sort().join(' ');
}

/**
 * The names of an object's own members, in order, repeated ones repeated: `JSON.parse` keeps the last of two
 * `tenant` claims and says nothing, RFC 7519 §4 lets us refuse them.
 */
export function memberNames(json: string): string[] {
  const names: string[] = [];
  let depth = 0;
  for (const [token, colon] of json.matchAll(/"(?:[^"\\]|\\.)*"(\s*:)?|[[\]{}]/g)) {
    if (token === '{' || token === '[') depth += 1;
    else if (token === '}' || token === ']') depth -= 1;
    else if (depth === 1 && colon) names.push(JSON.parse(token.slice(0, -colon.length)) as string);
  }
  return names;
}
