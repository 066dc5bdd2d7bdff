import { type ChildProcess, fork } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import type { FunctionRow } from '../../functions.ts';
import type { ErrorReport, Invoke, Report } from './protocol.ts';

const runtime = fileURLToPath(new URL('runtime.ts', import.meta.url));
const preload = new URL('../preload.mjs', import.meta.url).href;

/** The function threw, ran out of time, or its process ended. `type` is Lambda's `errorType`. */
export class FunctionError extends Error {
  readonly type: string;
  constructor(type: string, message: string, trace?: string) {
    super(message);
    this.type = type;
    if (trace) this.stack = trace;
  }
}

/** Gets the bytes of a streamed answer as they come. */
export type OnChunk = (data: Uint8Array) => void;

/** One Lambda environment: a process with the function's own variables only, one invocation at a time. */
export class Environment {
  readonly pid: number | undefined;
  /** Rejects with a FunctionError when the function could not be loaded. */
  readonly ready: Promise<void>;
  readonly exited: Promise<void>;
  readonly #row: FunctionRow;
  readonly #child: ChildProcess;
  /** What is under way: loading, or the one invocation. */
  #current: { report(report: Report): void; reject(error: Error): void } | undefined;
  #spent = false;

  constructor(
    row: FunctionRow,
    variables: Readonly<Record<string, string>>,
    root: string,
    log: (text: string) => void,
  ) {
    this.#row = row;
    this.#child = fork(runtime, [`${root}/${row.entry}`], {
      env: {
        ...variables,
        AWS_LAMBDA_FUNCTION_NAME: `tenantry-${row.name}`,
        AWS_LAMBDA_FUNCTION_MEMORY_SIZE: String(row.memoryMb),
        AWS_LAMBDA_FUNCTION_VERSION: '$LATEST',
        TZ: ':UTC',
      },
      cwd: root,
      execArgv: ['--import', preload, `--max-old-space-size=${row.memoryMb}`],
      serialization: 'advanced',
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    });
    this.pid = this.#child.pid;
    this.#child.stdout!.setEncoding('utf8').on('data', log);
    this.#child.stderr!.setEncoding('utf8').on('data', log);
    this.#child.on('message', (report: Report) => this.#current?.report(report));
    this.exited = new Promise((resolve) => {
      this.#child.once('exit', () => resolve()).once('error', () => resolve());
    });
    void this.exited.then(() => {
      this.#spent = true;
      this.#current?.reject(ended());
    });
    this.ready = this.#until<void>((report, resolve, reject) => {
      if (report.type === 'init-error') reject(functionError(report.error));
      if (report.type !== 'ready') return;
      if (report.streaming === row.streaming) resolve();
      else reject(new FunctionError('Runtime.HandlerKind', mismatch(row)));
    });
  }

  /** Ended, or about to. */
  get spent(): boolean {
    return this.#spent;
  }

  /** @returns the answer's JSON, or undefined for a streamed one that has been passed on whole */
  async invoke(event: string, onChunk: OnChunk): Promise<string | undefined> {
    if (this.#spent) throw ended();
    const limit = this.#row.timeoutSeconds * 1000;
    const done = this.#until<string | undefined>((report, resolve, reject) => {
      if (report.type === 'result') resolve(report.value);
      else if (report.type === 'end') resolve(undefined);
      else if (report.type === 'chunk') onChunk(report.data);
      else if (report.type === 'error') reject(functionError(report.error));
    });
    const timer = setTimeout(() => {
      const message = `Task timed out after ${this.#row.timeoutSeconds}.00 seconds`;
      this.#current!.reject(new FunctionError('Sandbox.Timedout', message));
      this.kill();
    }, limit);
    const message: Invoke = { requestId: randomUUID(), event, deadline: Date.now() + limit };
    this.#child.send(message, () => {});
    return done.finally(() => clearTimeout(timer));
  }

  kill(): void {
    this.#spent = true;
    this.#child.kill('SIGKILL');
  }

  #until<T>(
    handle: (report: Report, resolve: (value: T) => void, reject: (error: Error) => void) => void,
  ): Promise<T> {
    const promise = new Promise<T>((resolve, reject) => {
      this.#current = { report: (report) => handle(report, resolve, reject), reject };
    });
    // It may fail before anybody waits for it.
    promise.catch(() => {});
    return promise;
  }
}

const ended = () => new FunctionError('Runtime.ExitError', 'The function’s process ended.');

const functionError = ({ errorType, errorMessage, trace }: ErrorReport) =>
  new FunctionError(errorType, errorMessage, trace);

const mismatch = ({ name, streaming }: FunctionRow) =>
  `infra/functions.ts says that ${name} ${streaming ? 'streams' : 'returns'} its answer, but its handler does not.`;
