import { extractWWWAuthenticateParams } from '@modelcontextprotocol/sdk/client/auth.js';
import { expect, it } from 'vitest';
import { challenge, resourceMetadataUrl } from '../../../functions/lib/auth/challenge.ts';

it('is understood by the official client', () => {
  const header = challenge(
    'https://mcp.example.com/mcp',
    ['inventory:read', 'inventory:write'],
    'insufficient_scope',
  );
  const response = new Response(null, { status: 403, headers: { 'WWW-Authenticate': header } });
  expect(extractWWWAuthenticateParams(response)).toEqual({
    error: 'insufficient_scope',
    scope: 'inventory:read inventory:write',
    resourceMetadataUrl: new URL('https://mcp.example.com/.well-known/oauth-protected-resource/mcp'),
  });
});

it('says nothing about an error to somebody who sent no token', () => {
  expect(challenge('https://mcp.example.com/mcp', [])).toBe(
    'Bearer resource_metadata="https://mcp.example.com/.well-known/oauth-protected-resource/mcp"',
  );
});

it('puts the well-known path before the resource’s own', () => {
  expect(resourceMetadataUrl('http://127.0.0.1:8080/')).toBe(
    'http://127.0.0.1:8080/.well-known/oauth-protected-resource',
  );
});

it('stays inside the stage of an address that API Gateway gave', () => {
  expect(resourceMetadataUrl('https://abc.execute-api.eu-west-1.amazonaws.com/live/mcp')).toBe(
    'https://abc.execute-api.eu-west-1.amazonaws.com/live/.well-known/oauth-protected-resource/mcp',
  );
});

it('cannot be made to carry another header', () => {
  expect(() => challenge('https://mcp.example.com/mcp', ['a\r\nSet-Cookie: b'])).toThrow(TypeError);
  expect(challenge('https://mcp.example.com/mcp', ['a", error="x'])).toContain('scope="a\\", error=\\"x"');
});
