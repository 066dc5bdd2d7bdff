import type { LambdaClient } from '@aws-sdk/client-lambda';
import { RetryableError, TenantryError } from '../errors.ts';

/** The function ran and failed, or Lambda ended it. */
export class FunctionFailed extends TenantryError {
  /** Lambda's `errorType`: the error's name, or for example `Sandbox.Timedout`. */
  readonly errorType: string;
  readonly errorMessage: string;
  constructor(functionName: string, errorType: string, errorMessage: string) {
    super('internal', `The function ${functionName} failed (${errorType}).`);
    this.errorType = errorType;
    this.errorMessage = errorMessage;
  }
}

/** What a function that streams has written for API Gateway. */
export interface StreamedAnswer {
  statusCode: number;
  headers: Record<string, string>;
  body: string;
}

let loaded: Promise<{ sdk: typeof import('@aws-sdk/client-lambda'); client: LambdaClient }> | undefined;

/**
 * Calls a function by its name or ARN and waits for its answer; a StreamedAnswer from one that streams.
 * @throws FunctionFailed, RetryableError `unavailable`
 */
export async function invokeFunction(name: string, payload: unknown): Promise<unknown> {
  loaded ??= import('@aws-sdk/client-lambda').then((sdk) => ({
    sdk,
    client: new sdk.LambdaClient({ maxAttempts: 3 }),
  }));
  const { sdk, client } = await loaded;
  const command = new sdk.InvokeCommand({ FunctionName: name, Payload: JSON.stringify(payload) });
  const answer = await client.send(command).catch((cause: unknown) => {
    if (cause instanceof sdk.ResourceNotFoundException) {
      throw new TenantryError('internal', `There is no function ${name}.`, { cause });
    }
    throw new RetryableError('unavailable', `The function ${name} could not be called.`, 2, { cause });
  });
  const text = Buffer.from(answer.Payload ?? []).toString('utf8');
  if (answer.FunctionError !== undefined) {
    const { errorType = 'Unknown', errorMessage = '' } = JSON.parse(text);
    throw new FunctionFailed(name, errorType, errorMessage);
  }
  return parse(name, text);
}

/** A streamed answer starts with status and headers as JSON and eight zero bytes. */
function parse(name: string, text: string): unknown {
  const end = text.indexOf('\0\0\0\0\0\0\0\0');
  try {
    if (end < 0) return JSON.parse(text);
    const { statusCode = 200, headers = {} } = JSON.parse(text.slice(0, end));
    return { statusCode, headers, body: text.slice(end + 8) } satisfies StreamedAnswer;
  } catch (cause) {
    throw new TenantryError('internal', `The function ${name} did not answer JSON.`, { cause });
  }
}
