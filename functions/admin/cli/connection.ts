import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { signedHeaders } from '../../lib/aws/signed-request.ts';
import type { CliSettings } from '../../lib/settings.ts';

/** Why a command did not do what it was told; each has an exit code of its own. */
export class CommandFailure extends Error {
  readonly exitCode: 1 | 2 | 3 | 4;
  /** As the admin API names it. */
  readonly code: string;
  constructor(exitCode: 1 | 2 | 3 | 4, code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.exitCode = exitCode;
    this.code = code;
  }
}

interface Found {
  readonly url: string;
  readonly headers: (method: string, url: URL, body: string) => Promise<Record<string, string>>;
  readonly remedy: string;
}

const project = join(import.meta.dirname, '../../..');
const startIt = 'Start the local cloud with `npm start`, or set TENANTRY_ADMIN_URL to a deployed admin API.';

/** A deployed admin API by its setting, else the local cloud by what `npm start` has written. */
function find({ adminUrl, folder, port }: CliSettings): Found {
  if (adminUrl !== undefined)
    return {
      url: adminUrl.replace(/\/+$/, ''),
      headers: signedHeaders,
      remedy: 'Check TENANTRY_ADMIN_URL and the network.',
    };
  const state = folder === undefined ? join(project, '.tenantry') : resolve(folder);
  let file: { url: string; token: string; endpoint: string };
  try {
    file = JSON.parse(readFileSync(join(state, 'admin.json'), 'utf8'));
  } catch (cause) {
    throw new CommandFailure(4, 'not_reachable', `Tenantry is not running here. ${startIt}`, { cause });
  }
  if (port !== undefined && new URL(file.endpoint).port !== String(port))
    throw new CommandFailure(
      4,
      'not_reachable',
      `The local cloud of this folder serves ${file.endpoint}, not port ${port}. Set PORT as it was started, or leave it out.`,
    );
  return { url: file.url, headers: async () => ({ authorization: `Bearer ${file.token}` }), remedy: startIt };
}

export interface Reply<T> {
  readonly status: number;
  readonly body: T;
}

export interface AdminClient {
  /** Whether it speaks to a deployed API, not to the local cloud. */
  readonly isDeployed: boolean;
  get<T>(path: string): Promise<Reply<T>>;
  /** @throws CommandFailure unless `accept` has the status */
  post<T>(path: string, body: object, idempotencyKey?: string, accept?: readonly number[]): Promise<Reply<T>>;
}

export function connect(settings: () => CliSettings): AdminClient {
  async function send<T>(
    method: string,
    path: string,
    text: string,
    headers: Record<string, string>,
    accept: readonly number[],
  ): Promise<Reply<T>> {
    const found = find(settings());
    const url = new URL(found.url + path);
    const authorization = await found.headers(method, url, text);
    const response = await fetch(url, {
      method,
      headers: { ...headers, ...authorization },
      ...(method === 'POST' && { body: text }),
      signal: AbortSignal.timeout(60_000),
    }).catch((cause: unknown) => {
      const message = `${found.url} does not answer. ${found.remedy}`;
      throw new CommandFailure(4, 'not_reachable', message, { cause });
    });
    const body = await response.json().catch(() => ({}));
    if (response.ok || accept.includes(response.status)) return { status: response.status, body: body as T };
    throw failure(response.status, body);
  }
  return {
    get isDeployed() {
      return settings().adminUrl !== undefined;
    },
    get: (path) => send('GET', path, '', {}, []),
    post: (path, body, idempotencyKey, accept = []) => {
      const key = idempotencyKey === undefined ? {} : { 'idempotency-key': idempotencyKey };
      const headers = { 'content-type': 'application/json', ...key };
      return send('POST', path, JSON.stringify(body), headers, accept);
    },
  };
}

/** Lambda takes the network of a function away that nobody has called for fourteen days, and gives it back from the next call on. */
const wakingUp =
  'The admin function did not answer. After two weeks without a call it takes some minutes until it does: try again then; if it goes on, look at its log.';

function failure(status: number, body: unknown): CommandFailure {
  // API Gateway's own refusals have a message only.
  const { error, message } = body as { error?: { code: string; message: string }; message?: string };
  const text = error?.message ?? message ?? `The admin API answered ${status}.`;
  const code = error?.code ?? `http_${status}`;
  // Not the function's word: API Gateway got none of it.
  if (status >= 500 && error === undefined) return new CommandFailure(4, code, `${text} ${wakingUp}`);
  if (status >= 502) return new CommandFailure(4, code, text);
  return new CommandFailure(status >= 500 ? 1 : 3, code, text);
}
