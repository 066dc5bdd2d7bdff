import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { resolve } from 'node:path';
import { FunctionError, type OnChunk } from '../../infra/local/lambda/environment.ts';

/** One deployed function, as the template describes it. */
export interface Deployed {
  readonly name: string;
  /** The unpacked asset: /var/task. */
  readonly folder: string;
  /** `path/file.export` */
  readonly handler: string;
  readonly environment: Readonly<Record<string, string>>;
  readonly timeoutSeconds: number;
}

interface Invocation {
  readonly id: string;
  readonly event: string;
  readonly onChunk: OnChunk;
  answered(text: string): void;
  failed(error: Error): void;
}

/** One Lambda environment: AWS's own runtime interface client over the bundle, and the API of Lambda that it speaks to. */
export class Runtime {
  readonly #deployed: Deployed;
  readonly #server = createServer((request, response) => void this.#serve(request, response));
  readonly #pending: Invocation[] = [];
  #waiting: ServerResponse | undefined;
  #current: Invocation | undefined;
  #child: ChildProcess | undefined;
  #log = '';

  constructor(deployed: Deployed) {
    this.#deployed = deployed;
  }

  get folder(): string {
    return this.#deployed.folder;
  }

  get log(): string {
    return this.#log;
  }

  /** @returns the answer's text: JSON, or what was streamed. @throws FunctionError */
  async invoke(event: unknown, onChunk: OnChunk = () => {}): Promise<string> {
    await this.#start();
    return new Promise((answered, failed) => {
      const timer = setTimeout(() => {
        failed(new FunctionError('Sandbox.Timedout', `${this.#deployed.name} timed out.\n${this.#log}`));
        this.#child?.kill('SIGKILL');
      }, this.#deployed.timeoutSeconds * 1_000);
      const done =
        <T>(settle: (value: T) => void) =>
        (value: T) => {
          clearTimeout(timer);
          settle(value);
        };
      this.#pending.push({
        id: randomUUID(),
        event: JSON.stringify(event),
        onChunk,
        answered: done(answered),
        failed: done(failed),
      });
      this.#next();
    });
  }

  close(): void {
    this.#child?.kill('SIGKILL');
    this.#server.close();
    this.#server.closeAllConnections();
  }

  async #start(): Promise<void> {
    if (this.#child && this.#child.exitCode === null) return;
    const { name, folder, handler, environment } = this.#deployed;
    if (!this.#server.listening)
      await new Promise<void>((ready) => this.#server.listen(0, '127.0.0.1', ready));
    const { port } = this.#server.address() as AddressInfo;
    this.#child = spawn(
      process.execPath,
      [
        '--import',
        resolve('test/system/ric-client.mjs'),
        resolve('node_modules/aws-lambda-ric/index.mjs'),
        handler,
      ],
      {
        cwd: folder,
        // What Lambda itself sets, and the template's: nothing of ours.
        env: {
          ...environment,
          AWS_LAMBDA_RUNTIME_API: `127.0.0.1:${port}`,
          AWS_LAMBDA_FUNCTION_NAME: name,
          AWS_LAMBDA_FUNCTION_VERSION: '$LATEST',
          AWS_LAMBDA_FUNCTION_MEMORY_SIZE: '512',
          AWS_LAMBDA_LOG_GROUP_NAME: `/aws/lambda/${name}`,
          AWS_LAMBDA_LOG_STREAM_NAME: 'test',
          AWS_LAMBDA_LOG_FORMAT: 'JSON',
          AWS_EXECUTION_ENV: 'AWS_Lambda_nodejs24.x',
          LAMBDA_TASK_ROOT: folder,
          _HANDLER: handler,
          TZ: ':UTC',
        },
        stdio: ['ignore', 'pipe', 'pipe'],
      },
    );
    for (const stream of [this.#child.stdout!, this.#child.stderr!])
      stream.setEncoding('utf8').on('data', (text: string) => {
        this.#log += text;
      });
    this.#child.once('exit', () => {
      this.#waiting = undefined;
      this.#current?.failed(new FunctionError('Runtime.ExitError', `${name} ended.\n${this.#log}`));
      this.#current = undefined;
    });
  }

  #next(): void {
    if (!this.#waiting || this.#current) return;
    const invocation = this.#pending.shift();
    if (!invocation) return;
    this.#current = invocation;
    const response = this.#waiting;
    this.#waiting = undefined;
    response.writeHead(200, {
      'content-type': 'application/json',
      'lambda-runtime-aws-request-id': invocation.id,
      'lambda-runtime-deadline-ms': String(Date.now() + this.#deployed.timeoutSeconds * 1_000),
      'lambda-runtime-invoked-function-arn': `arn:aws:lambda:eu-west-1:111122223333:function:${this.#deployed.name}`,
    });
    response.end(invocation.event);
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = request.url!;
    if (url.endsWith('/invocation/next')) {
      this.#waiting = response;
      return this.#next();
    }
    const invocation = this.#current;
    const isStream = request.headers['lambda-runtime-function-response-mode'] === 'streaming';
    const chunks: Buffer[] = [];
    for await (const chunk of request) {
      chunks.push(chunk);
      if (isStream) invocation?.onChunk(chunk);
    }
    const text = Buffer.concat(chunks).toString('utf8');
    response.writeHead(202).end();
    if (url.endsWith('/init/error')) {
      const { errorType, errorMessage } = JSON.parse(text);
      const fault = new FunctionError(errorType, errorMessage);
      for (const { failed } of [...(invocation ? [invocation] : []), ...this.#pending.splice(0)])
        failed(fault);
      this.#current = undefined;
      return;
    }
    this.#current = undefined;
    if (url.endsWith('/error')) {
      const { errorType, errorMessage } = JSON.parse(text);
      invocation?.failed(new FunctionError(errorType, errorMessage));
    } else invocation?.answered(text);
    this.#next();
  }
}
