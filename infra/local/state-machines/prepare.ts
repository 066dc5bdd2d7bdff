import type { State, States } from './definition.ts';

type Json = Record<string, unknown>;

/** One time that a Map or Parallel state ran its inner states. The machine itself is entry 0. */
export interface Entry {
  /** It has failed: what the library still starts of it must not reach a function. */
  over: boolean;
}

export interface Preparation {
  /** Waits and retry intervals last this part of their time: above 0, at most 1. */
  readonly clockFactor: number;
  /** All entries so far, by the number that their tasks carry. */
  readonly entries: Entry[];
  /** The same by the name of their Map or Parallel state, in order. */
  readonly entriesOf: Map<string, Entry[]>;
}

/** What the library hands to a task's handler, beside the file's own Parameters. */
export interface TaskInput {
  entry: number;
  /** Of a Wait, unscaled. */
  seconds?: number;
  FunctionName?: string;
  Payload?: unknown;
}

/**
 * The definition in the form in which the library runs it as Step Functions would; the file stays as it is.
 * - Waits become tasks: the library can override a wait with a constant only, and ends one of 25 days at once.
 * - Numbers are compared with numbers only: the library finds `null < 5` true, AWS false.
 * - Tasks carry the entry that they belong to: after a failed iteration the library starts those that were queued.
 */
export function prepare(machine: States, to: Preparation, entry = 0): States {
  const states = Object.entries(machine.States).map(([name, state]) => [
    name,
    prepareState(name, state, to, entry),
  ]);
  return { StartAt: machine.StartAt, States: Object.fromEntries(states) };
}

function prepareState(name: string, state: State, to: Preparation, entry: number): Json {
  const { Seconds, SecondsPath, Parameters, ...rest } = state;
  switch (state.Type) {
    case 'Wait': {
      const seconds = SecondsPath === undefined ? { seconds: Seconds } : { 'seconds.$': SecondsPath };
      const endless = { ResultPath: null, TimeoutSeconds: 2_147_483 };
      return { ...rest, ...endless, Type: 'Task', Parameters: { ...seconds, entry } };
    }
    case 'Task':
      return scaled({ ...state, Parameters: { ...(Parameters as Json), entry } }, to.clockFactor);
    case 'Choice':
      return { ...state, Choices: (state.Choices as Json[]).map(guarded) };
    case 'Map':
    case 'Parallel': {
      const inner = (machine: States) => prepare(machine, to, to.entries.length - 1);
      const field = state.Type === 'Map' ? 'ItemProcessor' : 'Branches';
      // The library reads the field once for each time that it runs the state.
      return Object.defineProperty(scaled({ ...state }, to.clockFactor), field, {
        get() {
          open(name, to);
          return state.Type === 'Map'
            ? inner(state.ItemProcessor as States)
            : (state.Branches as States[]).map(inner);
        },
      });
    }
    default:
      return state;
  }
}

function open(name: string, to: Preparation): void {
  const entry = { over: false };
  to.entries.push(entry);
  to.entriesOf.set(name, [...(to.entriesOf.get(name) ?? []), entry]);
}

function scaled(state: Json, factor: number): Json {
  if (!Array.isArray(state.Retry)) return state;
  const Retry = state.Retry.map((retrier: Json) => ({
    ...retrier,
    // Never 0: the library would retry before what it says about the failure is read.
    IntervalSeconds: Math.max(((retrier.IntervalSeconds as number) ?? 1) * factor, 0.001),
    ...(retrier.MaxDelaySeconds === undefined
      ? {}
      : { MaxDelaySeconds: Math.max((retrier.MaxDelaySeconds as number) * factor, 0.001) }),
  }));
  return { ...state, Retry };
}

function guarded(rule: Json): Json {
  const { Next, ...test } = rule;
  const next = Next === undefined ? {} : { Next };
  if (test.And) return { And: (test.And as Json[]).map(guarded), ...next };
  if (test.Or) return { Or: (test.Or as Json[]).map(guarded), ...next };
  if (test.Not) return { Not: guarded(test.Not as Json), ...next };
  if (!Object.keys(test).some((key) => key.startsWith('Numeric'))) return rule;
  return { And: [{ Variable: test.Variable, IsNumeric: true }, test], ...next };
}
