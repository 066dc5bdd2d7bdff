/** What a Lambda environment (a child process) and its host say to each other over the IPC channel. */

export interface Invoke {
  requestId: string;
  /** JSON, as Lambda hands it over. */
  event: string;
  /** Unix time, ms. */
  deadline: number;
}

export interface ErrorReport {
  errorType: string;
  errorMessage: string;
  trace: string;
}

export type Report =
  | { type: 'ready'; streaming: boolean }
  | { type: 'init-error'; error: ErrorReport }
  /** Of a handler that returns its answer: JSON; absent for `undefined`. */
  | { type: 'result'; value: string | undefined }
  | { type: 'chunk'; data: Uint8Array }
  /** The streamed answer is complete and the handler is through. */
  | { type: 'end' }
  | { type: 'error'; error: ErrorReport };
