import { flushCompileCache } from 'node:module';
import { Writable } from 'node:stream';
import { pathToFileURL } from 'node:url';
import type { ErrorReport, Invoke, Report } from './protocol.ts';

/**
 * The child's side: loads one handler as Lambda's Node runtime does and serves one invocation at a time. It runs with
 * the function's own environment variables and knows nothing else of the local cloud.
 */
const streaming = Symbol.for('aws.lambda.runtime.handler.streaming');
const prelude = Symbol('prelude');

type Handler = ((event: unknown, ...rest: unknown[]) => unknown) & { [streaming]?: string };
type ResponseStream = Writable & { [prelude]?: Buffer; setContentType(type: string): void };

Object.assign(globalThis, {
  awslambda: {
    streamifyResponse: (handler: Handler) => Object.assign(handler, { [streaming]: 'response' }),
    HttpResponseStream: {
      /** As in Lambda's runtime, status and headers leave with the first write: an end without a write sends neither. */
      from(stream: ResponseStream, metadata: unknown) {
        stream.setContentType('application/vnd.awslambda.http-integration-response');
        stream[prelude] = Buffer.concat([Buffer.from(JSON.stringify(metadata)), Buffer.alloc(8)]);
        return stream;
      },
    },
  },
});

const send = (report: Report, then?: () => void) => {
  // The host is gone, or has given this environment up.
  if (process.connected) process.send!(report, undefined, {}, () => then?.());
};

// Ctrl-C reaches the whole group of processes; the host ends its environments itself.
process.on('SIGINT', () => {});
process.on('disconnect', () => process.exit());

const entry = process.argv[2]!;
try {
  const { handler } = (await import(pathToFileURL(entry).href)) as { handler?: Handler };
  if (typeof handler !== 'function') throw new TypeError(`${entry} exports no function named handler.`);
  process.on('message', (message) => void serve(handler, message as Invoke));
  send({ type: 'ready', streaming: handler[streaming] === 'response' });
  // Later it may be too late: environments are killed, as Lambda's are.
  flushCompileCache();
} catch (error) {
  send({ type: 'init-error', error: report(error) }, () => process.exit(1));
}

async function serve(handler: Handler, { event, requestId, deadline }: Invoke): Promise<void> {
  const context = {
    awsRequestId: requestId,
    callbackWaitsForEmptyEventLoop: true,
    functionName: process.env.AWS_LAMBDA_FUNCTION_NAME,
    functionVersion: '$LATEST',
    invokedFunctionArn: `arn:aws:lambda:${process.env.AWS_REGION}:111122223333:function:${process.env.AWS_LAMBDA_FUNCTION_NAME}`,
    memoryLimitInMB: process.env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: `/aws/lambda/${process.env.AWS_LAMBDA_FUNCTION_NAME}`,
    logStreamName: String(process.pid),
    getRemainingTimeInMillis: () => deadline - Date.now(),
  };
  try {
    if (handler[streaming] === 'response') {
      const stream = responseStream();
      const finished = new Promise<void>((resolve, reject) =>
        stream.once('finish', resolve).once('error', reject),
      );
      await Promise.all([handler(JSON.parse(event), stream, context), finished]);
      send({ type: 'end' });
    } else {
      const value = JSON.stringify(await handler(JSON.parse(event), context));
      send({ type: 'result', value });
    }
  } catch (error) {
    send({ type: 'error', error: report(error) });
  }
}

function responseStream(): ResponseStream {
  let written = false;
  const stream = new Writable({
    write(chunk: Buffer, _encoding, done) {
      const first = written ? undefined : stream[prelude];
      written = true;
      send({ type: 'chunk', data: first ? Buffer.concat([first, chunk]) : chunk }, done);
    },
  }) as ResponseStream;
  stream.setContentType = () => {
    if (written) throw new Error('Cannot set content-type, too late.');
  };
  return stream;
}

function report(error: unknown): ErrorReport {
  if (!(error instanceof Error)) return { errorType: typeof error, errorMessage: String(error), trace: '' };
  return { errorType: error.name, errorMessage: error.message, trace: error.stack ?? '' };
}
