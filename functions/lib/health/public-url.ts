import { setTimeout } from 'node:timers/promises';
import { z } from 'zod';
import { strategies } from '../tenant/tenant.ts';

/** A canary's own API key, as the secret of such keys holds it. */
export const canaryKeys = z.array(
  z.strictObject({
    slug: z.string(),
    strategy: z.enum(strategies),
    tenant: z.uuid(),
    /** Its row in the catalog. */
    keyId: z.uuid(),
    /** What it was made for: it is nothing at another address. */
    url: z.string(),
    expiresAt: z.iso.datetime(),
    token: z.string(),
  }),
);
export type CanaryKey = z.output<typeof canaryKeys>[number];

/** What the public URL says to strangers and to canaries. */
export const publicAnswer = z.strictObject({
  /** Slugs of the canaries that called. */
  asked: z.array(z.string()),
  faults: z.array(
    z.strictObject({
      /** `public_tokens`: somebody was let in, or taken for somebody else. */
      check: z.enum(['public_url', 'public_tokens']),
      strategies: z.array(z.enum(strategies)),
      object: z.string(),
      text: z.string(),
    }),
  ),
});
export type PublicAnswer = z.output<typeof publicAnswer>;
type Fault = PublicAnswer['faults'][number];

/** All together, ms; the function that asks has a few seconds more. */
const allMs = 12_000;
/** One request, ms: twice what a cold start takes. */
const requestMs = 5_000;
const pauseMs = 300;
const mostBytes = 64 * 1024;

interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
}

/**
 * Calls the endpoint where agents call it, name, certificate, firewall, API Gateway and authorizer included: without a
 * token and with a forged one, which have to be refused, and as each canary with its own API key. In bounded time.
 */
export async function askPublicUrl(
  url: string,
  keys: readonly CanaryKey[],
  fetch: typeof globalThis.fetch = globalThis.fetch,
): Promise<PublicAnswer> {
  const end = AbortSignal.timeout(allMs);
  const send = async (token: string | undefined, method: string, params: object): Promise<Answer> => {
    const answer = await fetch(url, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        accept: 'application/json, text/event-stream',
        'mcp-protocol-version': '2025-11-25',
        ...(token !== undefined && { authorization: `Bearer ${token}` }),
      },
      body: JSON.stringify({ jsonrpc: '2.0', id: 1, method, params }),
      // A key goes to this address and no other.
      redirect: 'error',
      signal: AbortSignal.any([end, AbortSignal.timeout(requestMs)]),
    });
    return { status: answer.status, headers: answer.headers, text: await bounded(answer) };
  };
  /** What is over in a moment is no news. */
  const post = async (token: string | undefined, method: string, params: object = {}): Promise<Answer> => {
    const answer = await send(token, method, params).catch((error: unknown) => error as Error);
    if (!(answer instanceof Error) && answer.status < 500 && answer.status !== 429) return answer;
    await setTimeout(pauseMs, undefined, { signal: end }).catch(() => {});
    return send(token, method, params);
  };
  const [first] = keys;
  const faults = await Promise.all([
    part(url, () => refused(post, undefined, 'a call without a token')),
    ...(first === undefined ? [] : [part(url, () => refused(post, forged(first.token), 'a forged token'))]),
    ...keys.map((key) => part(`${key.slug} at ${url}`, () => served(post, key), [key.strategy])),
  ]);
  return { asked: keys.map(({ slug }) => slug), faults: faults.flat() };
}

type Post = (token: string | undefined, method: string, params?: object) => Promise<Answer>;
type Found = Pick<Fault, 'check' | 'text'>;
const failing = (text: string): Found => ({ check: 'public_url', text });

async function part(
  object: string,
  look: () => Promise<Found | undefined>,
  of: Fault['strategies'] = [],
): Promise<Fault[]> {
  const found = await look().catch((error: Error & { cause?: Error }) =>
    failing(`does not answer: ${error.cause?.message ?? error.message}`),
  );
  return found === undefined ? [] : [{ ...found, object, strategies: of }];
}

/** As an agent begins: a 401 that says where to log in. */
async function refused(post: Post, token: string | undefined, what: string): Promise<Found | undefined> {
  const { status, headers, text } = await post(token, 'tools/list');
  if (status >= 200 && status < 300)
    return { check: 'public_tokens', text: `lets ${what} in, with status ${status}` };
  if (status !== 401) return failing(`answers ${what} with ${said(status, text)}, where 401 is right`);
  return /resource_metadata="/.test(headers.get('www-authenticate') ?? '')
    ? undefined
    : failing(`answers ${what} without the header by which a client finds the login`);
}

/** As an agent goes on. */
async function served(post: Post, { token, tenant, keyId }: CanaryKey): Promise<Found | undefined> {
  const hello = await post(token, 'initialize', {
    protocolVersion: '2025-11-25',
    capabilities: {},
    clientInfo: { name: 'tenantry-canary', version: '1' },
  });
  if (typeof resultOf(hello)?.protocolVersion !== 'string') return unanswered('initialize', hello);
  const listed = await post(token, 'tools/list');
  if (!Array.isArray(resultOf(listed)?.tools)) return unanswered('tools/list', listed);
  const called = await post(token, 'tools/call', { name: 'tenancy_probe', arguments: { marker: keyId } });
  const result = resultOf(called);
  const { tenant: whose } = (result?.structuredContent ?? {}) as { tenant?: unknown };
  if (whose === tenant) return undefined;
  return typeof whose === 'string'
    ? { check: 'public_tokens', text: 'takes the key for another tenant’s' }
    : unanswered('tools/call', called);
}

const unanswered = (method: string, { status, text }: Answer): Found =>
  failing(`answers ${method} with ${said(status, text)}`);
const said = (status: number, text: string) => `${status}, ${text.replaceAll(/\s+/g, ' ').slice(0, 120)}`;

function resultOf({ status, text }: Answer): Record<string, unknown> | undefined {
  if (status !== 200) return undefined;
  try {
    return JSON.parse(messageOf(text)).result;
  } catch {
    return undefined;
  }
}

/** The one message of an answer, as JSON text or as the data of a stream's event. */
export const messageOf = (text: string): string =>
  text.startsWith('{') ? text : (/^data: (\{.*)$/m.exec(text)?.[1] ?? '{}');

/** The same claims under a signature that nobody made. */
function forged(token: string): string {
  const [signature = ''] = /[^.]*$/.exec(token) ?? [];
  const other = [...signature.slice(0, 20)].map((letter) => (letter === 'A' ? 'B' : 'A')).join('');
  return token.slice(0, -signature.length) + other + signature.slice(20);
}

async function bounded({ body }: Response): Promise<string> {
  const decoder = new TextDecoder();
  let text = '';
  let bytes = 0;
  for await (const chunk of body ?? []) {
    bytes += chunk.length;
    if (bytes > mostBytes) break;
    text += decoder.decode(chunk, { stream: true });
  }
  return text;
}
