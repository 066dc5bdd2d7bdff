import type { APIGatewayProxyEvent, APIGatewayProxyResult } from 'aws-lambda';
import { ConnectFailure, isLost, remedyOfFull } from '../database/failure.ts';
import { type ErrorCode, RetryableError, TenantryError } from '../errors.ts';
import type { Admin } from './admin.ts';
import { type AdminAnswer, adminRoutes } from './routes.ts';

/** What the caller's own doing is; everything else is our failure. */
const statusOf: Partial<Record<ErrorCode, number>> = {
  invalid_request: 400,
  slug_invalid: 400,
  unknown_tenant: 404,
  unknown_operation: 404,
  unknown_key: 404,
  slug_taken: 409,
  name_taken: 409,
  idempotency_conflict: 409,
  operation_running: 409,
  wrong_status: 409,
  wrong_strategy: 409,
  migration_refused: 409,
  move_refused: 409,
  move_differs: 409,
  move_cancelled: 409,
  move_paused: 409,
  busy: 503,
  unavailable: 503,
};

const refusal = (status: number, code: string, message: string): AdminAnswer => ({
  status,
  body: { error: { code, message } },
});

/**
 * Answers one request. Who may ask is the gateway's business: IAM on AWS, this machine's owner locally.
 * `onFault` gets what must not leave: an error that is not the caller's.
 */
export async function answerAdmin(
  admin: () => Promise<Admin>,
  event: Pick<APIGatewayProxyEvent, 'httpMethod' | 'path' | 'body' | 'isBase64Encoded'> &
    Partial<Pick<APIGatewayProxyEvent, 'headers' | 'queryStringParameters'>>,
  onFault: (error: unknown) => void,
): Promise<APIGatewayProxyResult> {
  const { status, body } = await answer(admin, event).catch((error: unknown) => failed(error, onFault));
  return {
    statusCode: status,
    headers: {
      'content-type': 'application/json',
      'cache-control': 'no-store',
      ...(status === 503 && { 'retry-after': '2' }),
    },
    body: JSON.stringify(body),
  };
}

async function answer(
  admin: () => Promise<Admin>,
  event: Parameters<typeof answerAdmin>[1],
): Promise<AdminAnswer> {
  // As it was sent: nothing here needs another spelling, and a policy that allows or denies a path sees only one.
  const parts = event.path.split('/').slice(1);
  const here = adminRoutes.flatMap((route) => {
    const params = match(route.path, parts);
    return params ? [{ route, params }] : [];
  });
  if (here.length === 0) return refusal(404, 'not_found', 'The admin API has no such path.');
  const found = here.find(({ route }) => route.method === event.httpMethod);
  if (!found)
    return refusal(405, 'method_not_allowed', `Use ${here.map(({ route }) => route.method).join(' or ')}.`);
  return found.route.run(await admin(), {
    params: found.params,
    query: event.queryStringParameters ?? {},
    body: json(event),
    idempotencyKey: idempotencyKey(event.headers ?? {}),
  });
}

function match(path: string, parts: readonly string[]): string[] | undefined {
  const pattern = path.split('/').slice(1);
  if (pattern.length !== parts.length) return undefined;
  if (!pattern.every((part, i) => part === '*' || part === parts[i])) return undefined;
  return parts.filter((_, i) => pattern[i] === '*');
}

function json({ body, isBase64Encoded }: Parameters<typeof answerAdmin>[1]): unknown {
  if (body === null || body === '') return {};
  try {
    return JSON.parse(isBase64Encoded ? Buffer.from(body, 'base64').toString('utf8') : body);
  } catch {
    throw new TenantryError('invalid_request', 'The body has to be JSON.');
  }
}

function idempotencyKey(headers: Readonly<Record<string, string | undefined>>): string | undefined {
  const key = Object.entries(headers).find(([name]) => name.toLowerCase() === 'idempotency-key')?.[1];
  if (key !== undefined && !/^[\x21-\x7e]{1,200}$/.test(key))
    throw new TenantryError('invalid_request', 'Idempotency-Key: 1 to 200 visible ASCII characters.');
  return key;
}

function failed(error: unknown, onFault: (error: unknown) => void): AdminAnswer {
  if ((error as { code?: unknown }).code === '22021')
    return refusal(400, 'invalid_request', 'A text of this request has a NUL in it.');
  const status = error instanceof TenantryError ? statusOf[error.code] : undefined;
  if (status === undefined || error instanceof RetryableError) onFault(error);
  const { code } = (error instanceof ConnectFailure ? error.cause : error) as { code?: unknown };
  if (code === '53300')
    return refusal(
      503,
      'unavailable',
      'A server has no connection left for the control plane (SQLSTATE 53300): see in RDS who holds them, and try again.',
    );
  if (isLost(error))
    return refusal(
      503,
      'unavailable',
      `A database of the control plane can’t be reached${code === undefined ? '' : ` (${code})`}. Try again.`,
    );
  const full = remedyOfFull(code);
  if (full !== undefined)
    return refusal(
      503,
      'unavailable',
      `A database of the control plane refuses this for now (SQLSTATE ${code}): ${full}, and try again.`,
    );
  if (!(error instanceof TenantryError) || status === undefined)
    return refusal(500, 'internal', 'This failed on our side. The log of the admin function says why.');
  return refusal(status, error.code, error.message);
}
