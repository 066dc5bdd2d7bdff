import type { HistoryEventType } from '@aws-sdk/client-sfn';
import type { State, States } from './definition.ts';
import { innerMachines } from './refusals.ts';

/** One event as Step Functions counts them; the data of the states is not kept. */
export interface HistoryEvent {
  type: HistoryEventType;
  /** Unix time, ms. */
  timestamp: number;
  state?: string;
  /** Of a Map's iteration. */
  index?: number;
  error?: string;
  cause?: string;
}

/** An event of the library, as far as it is read. */
export interface LibraryEvent {
  type: string;
  state?: { name: string; input: unknown; output?: unknown };
  parentState?: { name: string };
  index?: number;
  Error?: string;
}

export interface PlacedState {
  name: string;
  state: State;
  /** The Map or Parallel it is in. */
  parent: string | undefined;
}

/** Every state of the machine, inner ones too. */
export function allStates(machine: States, parent?: string): PlacedState[] {
  return Object.entries(machine.States).flatMap(([name, state]) => [
    { name, state, parent },
    ...innerMachines(state).flatMap((inner) => allStates(inner, name)),
  ]);
}

/**
 * The events that Step Functions would have written for one of the library, which knows fewer. Those of the functions'
 * calls (TaskScheduled, TaskStarted, TaskSucceeded, TaskFailed) are written where they are called.
 */
export function awsEvents(event: LibraryEvent, type: string, hasFailed: boolean): HistoryEventType[] {
  const inner = type === 'Map' || type === 'Parallel';
  switch (event.type) {
    case 'StateEntered':
      return inner ? [`${type}StateEntered`, `${type}StateStarted`] : named(`${type}StateEntered`);
    case 'StateExited':
      // Of a failure that was caught, too.
      return inner && !hasFailed
        ? [`${type}StateSucceeded`, `${type}StateExited`]
        : named(`${type}StateExited`);
    case 'StateRetried':
      return inner ? [`${type}StateStarted`] : [];
    case 'StateFailed':
      if (inner) return [`${type}StateFailed`];
      return type === 'Task' && event.Error === 'States.Timeout' ? ['TaskTimedOut'] : [];
    case 'MapIterationStarted':
    case 'MapIterationSucceeded':
    case 'MapIterationFailed':
      return [event.type];
    default:
      return [];
  }
}

const named = (type: string) => [type as HistoryEventType];
