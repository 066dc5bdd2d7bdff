import { answersOf, type ControlConnection, withConnection } from '../database/connect.ts';
import { isLost, remedyOfFull } from '../database/failure.ts';
import { RetryableError, TenantryError } from '../errors.ts';
import { beginAttempt, recorded } from './attempts.ts';
import { catalogEndpoint } from './control-plane.ts';
import { type Operation, type OperationKind, operationOf } from './operations.ts';

/** What a state machine hands to a step. */
export interface StepEvent {
  readonly operation: string;
  readonly step: string;
  readonly input: Readonly<Record<string, unknown>>;
}

/** An error as Step Functions passes it on to a Catch: the error's name, and a JSON text. */
interface Caught {
  readonly Error?: string;
  readonly Cause?: string;
}

/** Steps that end an operation that is not done: when it has ended so, there is nothing left to do for them. */
const takesBack: ReadonlySet<string> = new Set([
  'compensate',
  'abandon',
  'halt',
  'recordFailure',
  'recordRefusal',
  'cancel',
  'removeLeftInstance',
  'giveUp',
]);

/** What a machine reads when its step's answer was lost and the repetition finds the operation ended: nothing is left to do. */
const nothingLeft = (state: 'done' | 'failed' | 'cancelled') => ({
  more: false,
  instance: false,
  switched: state === 'done',
  cancelled: state === 'cancelled',
  next: 'complete',
});

/** What one state does, and what it tells the machine; `context` is what all steps of one machine work with. */
export type Step<Context, Kind extends OperationKind> = (
  context: Context,
  catalog: ControlConnection,
  operation: Operation<Kind>,
  input: StepEvent['input'],
) => Promise<unknown>;

/** What an invocation of a step holds, on its connection to the catalog, as long as it lives. */
export const operationLock = (operationId: string, turn = '') => ({
  sql: "hashtext('tenancy.operation'), hashtext($1)",
  values: [`${operationId}${turn}`],
});

/**
 * One invocation of one step: reads the operation, keeps a record of the attempt, and names what it throws as the state
 * machine knows it. After the operation's end a step changes nothing: it may come from a process that was thought dead.
 */
export async function runStep<
  Context extends { readonly plane: Parameters<typeof catalogEndpoint>[0] },
  Kind extends OperationKind,
>(
  /** While it is still being made, what keeps it from it is named too. */
  context: Context | Promise<Context>,
  event: StepEvent,
  /** Whose steps these are. */
  kinds: readonly Kind[],
  steps: Readonly<Record<string, Step<Context, Kind>>>,
  /** Within its operation, what a step takes turns with: itself and every other one, unless it is a worker of its own. */
  turnOf: (event: StepEvent) => string = () => '',
): Promise<unknown> {
  try {
    const made = await context;
    const step = Object.hasOwn(steps, event.step) ? steps[event.step] : undefined;
    if (step === undefined) throw new TenantryError('internal', `There is no step ${event.step}.`);
    return await withConnection(catalogEndpoint(made.plane), async (catalog) => {
      // A step that runs in parallel with itself takes turns: the lock goes with the connection, whatever becomes of us.
      // Sent together, and done one after the other.
      const lock = operationLock(event.operation, turnOf(event));
      const [, attempt, operation] = await answersOf([
        catalog.query(`select pg_advisory_lock(${lock.sql})`, lock.values),
        beginAttempt(catalog, event.operation, event.step),
        operationOf(catalog, event.operation, ...kinds),
      ]);
      if (operation.state === 'done') return nothingLeft('done');
      if (operation.state !== 'running' && takesBack.has(event.step)) return nothingLeft(operation.state);
      if (operation.state === 'failed')
        throw new TenantryError('operation_ended', 'This operation has failed already. Start a new one.');
      if (operation.state === 'cancelled')
        throw new TenantryError('operation_cancelled', 'This operation has been undone.');
      const work = () => step(made, catalog, operation, event.input);
      return recorded(catalog, operation.operationId, event.step, attempt!, work);
    });
  } catch (error) {
    throw namedForStates(error);
  }
}

/**
 * The error under the name that a state machine's Retry and Catch know it by: `instance_pending` is `InstancePending`.
 * Lambda tells Step Functions an error's `name`. A database that went away is `Unavailable`, and what may pass is `Busy`,
 * wherever it happened.
 */
function namedForStates(cause: unknown): unknown {
  const error = isLost(cause)
    ? new RetryableError('unavailable', 'A database went away during this step.', 2, { cause })
    : mayPass(cause)
      ? new RetryableError(
          'busy',
          [`A database refused this step for now (SQLSTATE ${cause.code})`, remedyOfFull(cause.code)]
            .filter(Boolean)
            .join(': ')
            .concat('.'),
          5,
          { cause },
        )
      : shortened(cause);
  if (error instanceof TenantryError)
    error.name = error.code.replace(/(^|_)([a-z])/g, (_, _underscore, letter: string) =>
      letter.toUpperCase(),
    );
  return error;
}

/** A state machine passes on no error of megabytes: a manifest or a hundred migrations have room for as much that is wrong. */
const longestMessage = 8_000;

/** Made anew: Lambda hands on the stack too, which begins with the message. */
const shortened = (error: unknown): unknown =>
  error instanceof TenantryError && error.message.length > longestMessage
    ? new TenantryError(error.code, `${error.message.slice(0, longestMessage).toWellFormed()} …`, {
        cause: error,
      })
    : error;

/** It lies with what others do at the moment: a lock, a deadlock, a change that came between, a resource that is used up. */
function mayPass(error: unknown): error is { code: string } {
  const { code, message } = error as { code?: string; message?: string };
  if (error instanceof TenantryError) return false;
  // Two rehearsals in one database, or two grants: an internal error to PostgreSQL.
  if (code === 'XX000') return /^tuple concurrently (updated|deleted)$/.test(message ?? '');
  return /^(55P03|40P01|40001|53\w{3})$/.test(code ?? '');
}

/** The step that failed and what the operator should read about it. */
export function failureOf(input: StepEvent['input']): { step: string; reason: string } {
  const caught = (input.failure ?? {}) as Caught;
  return { step: String(input.failedStep ?? 'unknown'), reason: reasonOf(caught) };
}

function reasonOf({ Error: name = 'Unknown', Cause: cause = '' }: Caught): string {
  try {
    const { errorMessage } = JSON.parse(cause) as { errorMessage?: unknown };
    if (typeof errorMessage === 'string' && errorMessage !== '') return errorMessage;
  } catch {
    // A timeout's cause is plain text, or nothing.
  }
  return cause === '' ? name : `${name}: ${cause}`;
}
