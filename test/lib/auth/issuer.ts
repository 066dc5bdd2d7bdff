import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type CryptoKey, calculateJwkThumbprint, exportJWK, generateKeyPair, type JWK, SignJWT } from 'jose';

export const resource = 'https://mcp.example.com/mcp';
/** The tests' present: 2026-01-01. */
export const now = Date.UTC(2026, 0, 1);
export const seconds = now / 1000;

export interface TestKey {
  readonly privateKey: CryptoKey;
  readonly publicJwk: JWK & { kid: string };
}

export async function newKey(alg = 'ES256'): Promise<TestKey> {
  const pair = await generateKeyPair(alg, { extractable: true });
  const jwk = await exportJWK(pair.publicKey);
  return { privateKey: pair.privateKey, publicJwk: { ...jwk, alg, kid: await calculateJwkThumbprint(jwk) } };
}

/** Serves a key set over HTTP, counts the fetches, and can fail. */
export async function serveKeys(keys: JWK[]) {
  const state = { keys, fetches: 0, status: 200 };
  const server = createServer((_request, response) => {
    state.fetches += 1;
    response.writeHead(state.status, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ keys: state.keys }));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const jwksUri = `http://127.0.0.1:${(server.address() as AddressInfo).port}/jwks`;
  return { jwksUri, state, close: () => new Promise((resolve) => server.close(resolve)) };
}

export const goodClaims = {
  iss: 'https://login.example.com',
  aud: resource,
  sub: 'alice',
  tenant: 'acme',
  scope: 'inventory:read',
  exp: seconds + 600,
};

/** Signs any claims under any header; `undefined` leaves a claim out. */
export function sign(key: TestKey, claims: object = {}, header: object = {}): Promise<string> {
  return new SignJWT({ ...goodClaims, ...claims })
    .setProtectedHeader({ alg: key.publicJwk.alg!, kid: key.publicJwk.kid, ...header })
    .sign(key.privateKey);
}

/** A signature over exact payload text, for what no JSON serializer writes. */
export async function signText(key: TestKey, payload: string): Promise<string> {
  const header = { alg: 'ES256', kid: key.publicJwk.kid };
  const input = `${Buffer.from(JSON.stringify(header)).toString('base64url')}.${Buffer.from(payload).toString('base64url')}`;
  const algorithm = { name: 'ECDSA', hash: 'SHA-256' };
  const signature = await crypto.subtle.sign(algorithm, key.privateKey, new TextEncoder().encode(input));
  return `${input}.${Buffer.from(signature).toString('base64url')}`;
}
