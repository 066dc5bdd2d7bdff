/**
 * A `WWW-Authenticate` value: where a client reads who issues tokens for `resource`, and which scopes to ask for.
 * `insufficient_scope` asks for a further scope (RFC 6750); without it a first login is asked for.
 */
export function challenge(resource: string, scopes: readonly string[], error?: 'insufficient_scope'): string {
  const parameters = { error, scope: scopes.join(' '), resource_metadata: resourceMetadataUrl(resource) };
  const written = Object.entries(parameters).flatMap(([name, value]) =>
    value ? [`${name}=${quoted(value)}`] : [],
  );
  return `Bearer ${written.join(', ')}`;
}

/**
 * RFC 9728 §3.1: the well-known path goes between the host and the resource's own path, `/mcp`. Before it may stand API
 * Gateway's stage, outside which it serves nothing. Text, not a URL: when CDK asks, the host is a token yet to be filled in.
 */
export function resourceMetadataUrl(resource: string): string {
  return resource.replace(
    /\/(mcp)?$/,
    (path) => `/.well-known/oauth-protected-resource${path === '/' ? '' : path}`,
  );
}

function quoted(value: string): string {
  if (!/^[\x20-\x7e]*$/.test(value)) throw new TypeError('A challenge holds printable ASCII only.');
  return `"${value.replace(/["\\]/g, '\\$&')}"`;
}
