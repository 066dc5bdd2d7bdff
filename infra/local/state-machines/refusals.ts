import type { State, States } from './definition.ts';

/**
 * What Step Functions runs in one way and aws-local-stepfunctions 3.0.0 in another, or not at all. A machine with any
 * of it is refused when it is loaded: a machine that works here has to work there. The lists name what was read in
 * the library's source and is known to agree; all else is refused, whether it agrees or not.
 */
const common = ['Type', 'Comment', 'QueryLanguage'];
const paths = ['InputPath', 'OutputPath'];
const next = ['Next', 'End'];
const result = ['ResultSelector', 'ResultPath', 'Retry', 'Catch'];
const fieldsOf: Record<State['Type'], string[]> = {
  Task: [...common, ...paths, ...next, ...result, 'Resource', 'Parameters', 'TimeoutSeconds'],
  Pass: [...common, ...paths, ...next, 'Parameters', 'Result', 'ResultPath'],
  Choice: [...common, ...paths, 'Choices', 'Default'],
  Wait: [...common, ...next, 'Seconds', 'SecondsPath'],
  Map: [
    ...[...common, ...paths, ...next, ...result],
    ...['ItemsPath', 'ItemSelector', 'ItemProcessor', 'MaxConcurrency', 'MaxConcurrencyPath'],
  ],
  Parallel: [...common, ...paths, ...next, ...result, 'Parameters', 'Branches'],
  Succeed: [...common, ...paths],
  Fail: [...common, 'Error', 'Cause', 'ErrorPath', 'CausePath'],
};

const why: Record<string, string> = {
  Assign: 'variables are not kept',
  Arguments: 'JSONata is not evaluated',
  Output: 'JSONata is not evaluated',
  Items: 'JSONata is not evaluated',
  Condition: 'JSONata is not evaluated',
  HeartbeatSeconds: 'heartbeats are ignored',
  Credentials: 'no role is assumed',
  ItemReader: 'items are read from the input only',
  ItemBatcher: 'items are not batched',
  ResultWriter: 'results are not exported',
  ToleratedFailurePercentage: 'one failed iteration fails the Map',
  ToleratedFailurePercentagePath: 'one failed iteration fails the Map',
  ToleratedFailureCount: 'one failed iteration fails the Map',
  ToleratedFailureCountPath: 'one failed iteration fails the Map',
  Iterator: 'it is the old name of ItemProcessor: use that',
  Timestamp: 'an instant cannot be scaled by the clock factor: use Seconds or SecondsPath',
  TimestampPath: 'an instant cannot be scaled by the clock factor: use Seconds or SecondsPath',
  TimeoutSecondsPath: 'timeouts are constants here: use TimeoutSeconds',
};

/** The intrinsic functions that agree. Those over free text do not: the library drops every backslash. */
const intrinsics = [
  ...['Array', 'ArrayContains', 'ArrayGetItem', 'ArrayLength', 'ArrayPartition', 'ArrayRange'],
  ...['ArrayUnique', 'MathAdd', 'UUID'],
].map((name) => `States.${name}`);

const operators = [
  ...['StringEquals', 'StringEqualsPath', 'BooleanEquals', 'BooleanEqualsPath', 'NumericEquals'],
  ...['NumericEqualsPath', 'NumericLessThan', 'NumericLessThanPath', 'NumericLessThanEquals'],
  ...['NumericLessThanEqualsPath', 'NumericGreaterThan', 'NumericGreaterThanPath'],
  ...['NumericGreaterThanEquals', 'NumericGreaterThanEqualsPath', 'IsNull', 'IsPresent', 'IsNumeric'],
  ...['IsString', 'IsBoolean'],
];

const errorNames = ['States.ALL', 'States.TaskFailed', 'States.Timeout', 'States.NoChoiceMatched'];

/** Paths to one value: for more than one the library and AWS wrap results differently. */
const onePath = /^\$\$?(\.[A-Za-z_]\w*|\['[^']+'\]|\[\d+\])*$/;
const contextPath = /^\$\$\.(Execution\.(Id|Name)|StateMachine\.(Id|Name))$/;
const executionInput = /^\$\$\.Execution\.Input($|[.[])/;
const mapItem = /^\$\$\.Map\.Item\.(Index|Value($|[.[]))/;

/** The library's timer; a longer one ends at once. 24.8 days. */
const maxTimerSeconds = 2_147_483;

/** Every reason against the definition, each with the state's name; none: it is run as on AWS. */
export function faultsOf(definition: unknown): string[] {
  const faults: string[] = [];
  const names = new Set<string>();
  if (!isObject(definition) || !isObject(definition.States)) return ['it has no States'];
  only(definition, ['Comment', 'StartAt', 'States', 'TimeoutSeconds', 'Version', 'QueryLanguage'], (reason) =>
    faults.push(reason),
  );
  walk(definition as States, undefined);
  return faults;

  function walk(machine: States, within: string | undefined): void {
    const targets = Object.keys(machine.States ?? {});
    if (!targets.includes(machine.StartAt)) faults.push(`StartAt names no state: ${machine.StartAt}`);
    for (const [name, state] of Object.entries(machine.States ?? {})) {
      const refuse = (reason: string) => faults.push(`state ${name}: ${reason}`);
      if (names.has(name)) refuse('two states of the machine have this name');
      names.add(name);
      if (!Object.hasOwn(fieldsOf, state.Type)) {
        refuse(`Type ${state.Type} is not known`);
        continue;
      }
      checkState(state, within, targets, refuse);
      for (const inner of innerMachines(state)) {
        if (within) refuse(`a ${state.Type} within ${within} is not told apart from its siblings`);
        const fields = ['Comment', 'StartAt', 'States', ...(state.Type === 'Map' ? ['ProcessorConfig'] : [])];
        only(inner, fields, refuse);
        walk(inner, name);
      }
    }
  }
}

type Refuse = (reason: string) => void;
type Json = Record<string, unknown>;

function checkState(state: State, within: string | undefined, targets: string[], refuse: Refuse): void {
  only(state, fieldsOf[state.Type], refuse);
  const path = (value: unknown, place = 'state') => checkPath(value, within, place, refuse);
  for (const [field, value] of Object.entries(state)) {
    if (field.endsWith('Path') && field !== 'ResultPath' && value !== null) path(value);
    if (['Parameters', 'ResultSelector', 'ItemSelector'].includes(field)) {
      checkTemplate(value, (given) => checkExpression(given, (one) => path(one, field), refuse), refuse);
    }
  }
  checkResultPath(state.ResultPath, refuse);
  for (const target of [state.Next, state.Default, ...list(state.Choices).map((rule) => rule.Next)]) {
    if (target !== undefined && !targets.includes(String(target))) refuse(`there is no state ${target} here`);
  }
  for (const rule of list(state.Choices)) checkRule(rule, path, refuse);
  for (const catcher of list(state.Catch)) {
    only(catcher, ['ErrorEquals', 'Next', 'ResultPath', 'Comment'], refuse);
    checkErrors(state, catcher.ErrorEquals, refuse);
    checkResultPath(catcher.ResultPath, refuse);
    if (!targets.includes(String(catcher.Next))) refuse(`there is no state ${catcher.Next} here`);
  }
  for (const retrier of list(state.Retry)) {
    const times = ['IntervalSeconds', 'MaxAttempts', 'BackoffRate', 'MaxDelaySeconds', 'JitterStrategy'];
    only(retrier, ['ErrorEquals', 'Comment', ...times], refuse);
    checkErrors(state, retrier.ErrorEquals, refuse);
  }
  if (state.Type === 'Task') checkTask(state, refuse);
  if (state.Type === 'Pass' && 'Result' in state && !state.Result) {
    refuse('a Result of null, false, 0 or "" is passed over');
  }
  if (state.Type === 'Fail' && !('Error' in state || 'ErrorPath' in state)) refuse('a Fail needs an Error');
  if (state.Type === 'Map') {
    const mode = ((state.ItemProcessor as Json | undefined)?.ProcessorConfig as Json | undefined)?.Mode;
    if (!isObject(state.ItemProcessor)) refuse('a Map needs an ItemProcessor');
    if (mode !== undefined && mode !== 'INLINE') refuse('a Distributed Map runs as an inline one');
  }
}

function checkTask(state: State, refuse: Refuse): void {
  if (state.Resource !== 'arn:aws:states:::lambda:invoke') {
    refuse(`Resource ${state.Resource} is not emulated: only arn:aws:states:::lambda:invoke is`);
  }
  const { FunctionName, ...others } = (state.Parameters ?? {}) as Json;
  if (typeof FunctionName !== 'string' || FunctionName === '')
    refuse('Parameters need a constant FunctionName');
  const other = Object.keys(others).filter((key) => key !== 'Payload' && key !== 'Payload.$');
  if (other.length > 0) refuse(`Parameters with ${other.join(', ')} are not emulated`);
  const { TimeoutSeconds: seconds } = state;
  if (typeof seconds !== 'number' || seconds < 1 || seconds > maxTimerSeconds) {
    refuse(
      `a Task needs TimeoutSeconds of 1 to ${maxTimerSeconds}: without, AWS waits three years and the library a minute`,
    );
  }
}

function checkRule(rule: Json, path: (value: unknown) => void, refuse: Refuse): void {
  const inner = [...list(rule.And), ...list(rule.Or), ...list([rule.Not].filter(isObject))];
  if (inner.length > 0) {
    only(rule, ['And', 'Or', 'Not', 'Next', 'Comment'], refuse);
    for (const one of inner) checkRule(one, path, refuse);
    return;
  }
  path(rule.Variable);
  const used = Object.keys(rule).filter(
    (key) => !['Variable', 'Next', 'Comment', 'QueryLanguage'].includes(key),
  );
  for (const key of used) {
    if (!operators.includes(key)) refuse(`${key} is not emulated${why[key] ? `: ${why[key]}` : ''}`);
    else if (key.endsWith('Path')) path(rule[key]);
    else if (key.startsWith('Is') && rule[key] !== true) refuse(`${key}: false never matches: use Not`);
  }
  if (used.length !== 1) refuse('a choice needs exactly one comparison');
}

function checkErrors(state: State, errors: unknown, refuse: Refuse): void {
  for (const error of Array.isArray(errors) ? errors : []) {
    if (String(error).startsWith('States.') && !errorNames.includes(error)) {
      refuse(`${error} in ErrorEquals is not emulated`);
    }
    if (error === 'States.TaskFailed' && state.Type !== 'Task') {
      refuse(`States.TaskFailed matches nothing in a ${state.Type}`);
    }
  }
}

/** One name below the root: deeper, AWS refuses where the library overwrites. */
function checkResultPath(path: unknown, refuse: Refuse): void {
  if (path === undefined || path === null) return;
  if (path === '$') refuse('ResultPath "$" is taken for a name: leave it out');
  else if (!/^\$\.[A-Za-z_]\w*$/.test(String(path))) refuse(`ResultPath ${path} is not of the form $.name`);
}

function checkPath(value: unknown, within: string | undefined, place: string, refuse: Refuse): void {
  const path = String(value);
  if (!onePath.test(path)) {
    refuse(`${path} is not a path to one value`);
  } else if (path.startsWith('$$')) {
    const known =
      contextPath.test(path) ||
      (executionInput.test(path) && within === undefined) ||
      (mapItem.test(path) && place === 'ItemSelector');
    if (!known) refuse(`${path} is not in the local context object${within ? ' here' : ''}`);
  }
}

function checkTemplate(value: unknown, expression: (text: unknown) => void, refuse: Refuse): void {
  if (Array.isArray(value)) for (const item of value) checkTemplate(item, expression, refuse);
  if (!isObject(value)) return;
  for (const [key, item] of Object.entries(value)) {
    if (/\.\$./.test(key)) refuse(`the key ${key} is renamed in the wrong place`);
    if (key.endsWith('.$')) expression(item);
    else checkTemplate(item, expression, refuse);
  }
}

function checkExpression(value: unknown, path: (value: unknown) => void, refuse: Refuse): void {
  const text = String(value);
  if (text.startsWith('$')) {
    path(text);
    return;
  }
  const bare = text.replaceAll(/'(\\.|[^'\\])*'/g, "''");
  for (const [name] of bare.matchAll(/[A-Za-z]\w*\.?\w*(?=\()/g)) {
    if (!intrinsics.includes(name)) refuse(`${name} is not emulated as AWS evaluates it`);
  }
  if (!bare.startsWith('States.')) refuse(`${text} is neither a path nor an intrinsic function`);
  if (text.includes('\\')) refuse(`${text}: backslashes are dropped`);
  for (const [given] of bare.matchAll(/\$[^\s,()]*/g)) path(given);
}

function only(value: Json, fields: string[], refuse: Refuse): void {
  for (const field of Object.keys(value)) {
    if (fields.includes(field)) continue;
    refuse(`${field} is not executed as AWS does${why[field] ? `: ${why[field]}` : ''}`);
  }
  if ('QueryLanguage' in value && value.QueryLanguage !== 'JSONPath') {
    refuse(`QueryLanguage ${value.QueryLanguage} is not evaluated: use JSONPath`);
  }
}

/** The machines within a Map or Parallel. */
export function innerMachines(state: State): States[] {
  if (state.Type === 'Map') return isObject(state.ItemProcessor) ? [state.ItemProcessor as States] : [];
  return state.Type === 'Parallel' ? (list(state.Branches) as States[]) : [];
}

const list = (value: unknown): Json[] => (Array.isArray(value) ? value.filter(isObject) : []);

const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
