import type { ServerResponse } from 'node:http';
import type { APIGatewayProxyResult } from 'aws-lambda';
import type { GatewayResponse } from '../../endpoint.ts';

/** API Gateway takes these headers from a function's answer under another name, and sets its own. */
const remapped = new Set([
  'authorization',
  'connection',
  'date',
  'host',
  'server',
  'user-agent',
  'www-authenticate',
]);
const dropped = new Set(['transfer-encoding', 'content-length']);

/** What a function's answer says before its body: payload 1.0, or a streamed answer's prelude. */
type Head = Pick<APIGatewayProxyResult, 'statusCode' | 'headers' | 'multiValueHeaders'> & {
  cookies?: string[];
};

export const isHead = (value: unknown): value is Head =>
  typeof value === 'object' && value !== null && Number.isInteger((value as Head).statusCode);

export function writeHead(
  response: ServerResponse,
  { statusCode, headers, multiValueHeaders, cookies }: Head,
): void {
  const all = Object.entries({ ...headers, ...multiValueHeaders, ...(cookies && { 'set-cookie': cookies }) });
  for (const [name, value] of all) {
    const lower = name.toLowerCase();
    if (dropped.has(lower)) continue;
    const values = [value].flat().map(String);
    response.setHeader(
      remapped.has(lower) ? `x-amzn-remapped-${lower}` : name,
      values.length === 1 ? values[0]! : values,
    );
  }
  response.writeHead(statusCode);
}

/** A gateway response of `infra/endpoint.ts`, with API Gateway's two ways to fill in a value. */
export function writeGatewayResponse(
  response: ServerResponse,
  answer: GatewayResponse,
  status: number,
  context: Readonly<Record<string, unknown>>,
): void {
  for (const [name, expression] of Object.entries(answer.headers)) {
    const quoted = /^'(.*)'$/s.exec(expression);
    const value = quoted ? quoted[1]! : lookUp(context, expression.replace(/^context\./, ''));
    if (value !== '') response.setHeader(name, value);
  }
  const body = answer.body.replace(/\$context\.([\w.]+)/g, (_whole, path: string) => lookUp(context, path));
  response.writeHead(answer.status ?? status, { 'content-type': 'application/json' }).end(body);
}

function lookUp(context: Readonly<Record<string, unknown>>, path: string): string {
  let value: unknown = context;
  for (const part of path.split('.')) value = (value as Record<string, unknown> | undefined)?.[part];
  return value === undefined ? '' : String(value);
}
