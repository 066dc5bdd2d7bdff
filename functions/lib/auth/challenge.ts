/** Where RFC 9728 metadata of the resource `…/mcp` is served: beside it, so that a stage in the path works too. */
export function metadataUrl(publicUrl: string): string {
  return publicUrl.replace(/\/mcp$/, '/.well-known/oauth-protected-resource/mcp');
}

/**
 * The value of `WWW-Authenticate` (RFC 6750, RFC 9728): tells an MCP client where to log in and which scopes to ask for.
 * `error` is absent when the request simply had no usable token: RFC 6750 wants no reason then.
 */
export function challenge(
  publicUrl: string,
  scopes: readonly string[],
  error?: 'insufficient_scope',
): string {
  const parameters = {
    ...(error && { error }),
    resource_metadata: metadataUrl(publicUrl),
    // An empty scope would be a syntax error; a server whose tools need none names none.
    ...(scopes.length > 0 && { scope: scopes.join(' ') }),
  };
  return `Bearer ${Object.entries(parameters)
    .map(([name, value]) => `${name}="${value}"`)
    .join(', ')}`;
}
