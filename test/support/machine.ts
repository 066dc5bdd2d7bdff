import { readFileSync } from 'node:fs';
import { functions } from '../../infra/functions.ts';
import { machineSubstitutions } from '../../infra/local/emulator/lambda-invoke.ts';
import { loadMachine } from '../../infra/local/state-machines/definition.ts';
import { type Outcome, type Run, runMachine } from '../../infra/local/state-machines/engine.ts';

/** Runs one of the product's state machines, from its own file, as the local cloud does. */
export function runProductMachine(
  name: string,
  run: Pick<Run, 'clockFactor' | 'invoke'> & { input: { operation: string } } & Partial<Run>,
): Promise<Outcome> {
  const file = `${name}.asl.json`;
  const text = readFileSync(new URL(`../../stepfunctions/${file}`, import.meta.url), 'utf8');
  const { operation } = run.input;
  return runMachine(loadMachine(file, text, machineSubstitutions(functions, 'eu-west-1')), {
    execution: {
      id: `arn:aws:states:eu-west-1:111122223333:execution:${name}:${operation}`,
      name: operation,
    },
    machineId: `arn:aws:states:eu-west-1:111122223333:stateMachine:${name}`,
    signal: new AbortController().signal,
    record: () => {},
    ...run,
  });
}
