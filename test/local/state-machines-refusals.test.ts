import { expect, test } from 'vitest';
import { loadMachine, RefusedMachine } from '../../infra/local/state-machines/definition.ts';

const good = {
  Type: 'Task',
  Resource: 'arn:aws:states:::lambda:invoke',
  Parameters: { FunctionName: 'f', 'Payload.$': '$' },
  TimeoutSeconds: 60,
  End: true,
};
const one = (state: object, machine: object = {}) => ({ StartAt: 's', States: { s: state }, ...machine });
const map = (more: object, inner: object = good) => ({
  Type: 'Map',
  ItemProcessor: { StartAt: 'i', States: { i: inner } },
  End: true,
  ...more,
});
const choice = (rule: object) => ({
  StartAt: 's',
  States: { s: { Type: 'Choice', Choices: [{ ...rule, Next: 'end' }] }, end: { Type: 'Succeed' } },
});
const payload = (expression: string) => ({
  ...good,
  Parameters: { FunctionName: 'f', Payload: { list: [{ 'a.$': expression }] } },
});

test.for([
  ['QueryLanguage JSONata', one(good, { QueryLanguage: 'JSONata' })],
  ['QueryLanguage JSONata', one({ ...good, QueryLanguage: 'JSONata' })],
  ['Assign is not', one({ ...good, Assign: { x: 1 } })],
  ['Arguments is not', one({ ...good, Arguments: {} })],
  ['Output is not', one({ Type: 'Succeed', Output: '{% 1 %}' })],
  ['Condition is not', choice({ Condition: '{% true %}' })],
  [
    'Distributed Map',
    one({
      ...map({}),
      ItemProcessor: { ...map({}).ItemProcessor, ProcessorConfig: { Mode: 'DISTRIBUTED' } },
    }),
  ],
  ['ItemReader is not', one(map({ ItemReader: {} }))],
  ['ItemBatcher is not', one(map({ ItemBatcher: {} }))],
  ['ResultWriter is not', one(map({ ResultWriter: {} }))],
  ['ToleratedFailurePercentage is not', one(map({ ToleratedFailurePercentage: 5 }))],
  ['ToleratedFailureCount is not', one(map({ ToleratedFailureCount: 5 }))],
  ['use that', one(map({ Iterator: {} }))],
  ['a Map within s', one(map({}, map({}, { Type: 'Pass', End: true })))],
  [
    'Resource arn:aws:states:::lambda:invoke.waitForTaskToken',
    one({ ...good, Resource: 'arn:aws:states:::lambda:invoke.waitForTaskToken' }),
  ],
  [
    'Resource arn:aws:states:::aws-sdk:rds:createDBInstance',
    one({ ...good, Resource: 'arn:aws:states:::aws-sdk:rds:createDBInstance' }),
  ],
  ['HeartbeatSeconds is not', one({ ...good, HeartbeatSeconds: 5 })],
  ['Credentials is not', one({ ...good, Credentials: {} })],
  ['needs TimeoutSeconds', one({ ...good, TimeoutSeconds: undefined })],
  ['needs TimeoutSeconds', one({ ...good, TimeoutSeconds: 99_999_999 })],
  ['constant FunctionName', one({ ...good, Parameters: { 'FunctionName.$': '$.f' } })],
  ['InvocationType', one({ ...good, Parameters: { FunctionName: 'f', InvocationType: 'Event' } })],
  ['$$.State.Name is not', one(payload('$$.State.Name'))],
  ['$$.Task.Token is not', one(payload('$$.Task.Token'))],
  ['$$.Execution.StartTime is not', one(payload('$$.Execution.StartTime'))],
  ['$$.Execution.Input is not in the local context object here', one(map({}, payload('$$.Execution.Input')))],
  ['$$.Map.Item.Value is not in the local context object here', one(map({}, payload('$$.Map.Item.Value')))],
  ['$$.State.EnteredTime is not', one({ ...good, InputPath: '$$.State.EnteredTime' })],
  ['$.a[*] is not a path', one(payload('$.a[*]'))],
  ['$..a is not a path', one({ ...good, InputPath: '$..a' })],
  ['$.a[?(@.b)] is not a path', one(map({ ItemsPath: '$.a[?(@.b)]' }))],
  ['States.Format is not', one(payload("States.Format('{}', $.a)"))],
  ['States.JsonToString is not', one(payload('States.Array(States.JsonToString($.a))'))],
  ['$.a[*] is not a path', one(payload('States.ArrayLength($.a[*])'))],
  ['ResultPath "$"', one({ ...good, ResultPath: '$' })],
  ['ResultPath $.a.b', one({ ...good, ResultPath: '$.a.b' })],
  ['ResultPath $.a.b', one({ ...good, Catch: [{ ErrorEquals: ['E'], Next: 's', ResultPath: '$.a.b' }] })],
  ['States.Runtime in ErrorEquals', one({ ...good, Retry: [{ ErrorEquals: ['States.Runtime'] }] })],
  [
    'States.DataLimitExceeded in ErrorEquals',
    one({ ...good, Catch: [{ ErrorEquals: ['States.DataLimitExceeded'], Next: 's' }] }),
  ],
  ['States.TaskFailed matches nothing', one(map({ Retry: [{ ErrorEquals: ['States.TaskFailed'] }] }))],
  ['StringMatches is not', choice({ Variable: '$.a', StringMatches: 'a*' })],
  ['TimestampLessThan is not', choice({ Variable: '$.a', TimestampLessThan: '2030-01-01T00:00:00Z' })],
  ['IsPresent: false never', choice({ Not: { Variable: '$.a', IsPresent: false } })],
  ['Timestamp is not', one({ Type: 'Wait', Timestamp: '2030-01-01T00:00:00Z', End: true })],
  ['OutputPath is not', one({ Type: 'Wait', Seconds: 1, OutputPath: '$.a', End: true })],
  ['passed over', one({ Type: 'Pass', Result: false, End: true })],
  ['needs an Error', one({ Type: 'Fail' })],
  ['there is no state nowhere', one({ ...good, End: undefined, Next: 'nowhere' })],
  ['StartAt names no state', { ...one(good), StartAt: 'nowhere' }],
  ['have this name', { StartAt: 's', States: { s: map({}), i: good } }],
  ['Type Activity is not known', one({ Type: 'Activity' })],
] as [string, object][])('refused with file, state and reason: %s', ([reason, machine]) => {
  const load = () => loadMachine('stepfunctions/some.asl.json', JSON.stringify(machine), {});
  expect(load).toThrow(RefusedMachine);
  expect(load).toThrow(reason);
  expect(load).toThrow(/^stepfunctions\/some\.asl\.json: /);
});

test('what both execute alike is taken', () => {
  const all = {
    StartAt: 'map',
    States: {
      map: {
        ...map({ Next: 'choose' }),
        ItemSelector: {
          'item.$': '$$.Map.Item.Value',
          'execution.$': '$$.Execution.Id',
          'id.$': 'States.UUID()',
        },
        MaxConcurrencyPath: '$.slots',
        Retry: [{ ErrorEquals: ['States.ALL'], JitterStrategy: 'FULL' }],
      },
      choose: {
        Type: 'Choice',
        Choices: [
          {
            And: [
              { Variable: '$.a', IsPresent: true },
              { Variable: '$.a', NumericLessThanPath: '$.b' },
            ],
            Next: 'wait',
          },
          { Not: { Variable: '$$.Execution.Input.x', StringEquals: 'y' }, Next: 'fail' },
        ],
        Default: 'wait',
      },
      wait: { Type: 'Wait', SecondsPath: '$.seconds', Next: 'task' },
      task: {
        ...payload("States.MathAdd($.a, States.ArrayLength(States.Array('(', 2)))"),
        ResultPath: '$.x',
      },
      fail: { Type: 'Fail', ErrorPath: '$.e.Error', CausePath: '$.e.Cause' },
    },
  };
  expect(loadMachine('a/b.asl.json', JSON.stringify(all), {}).name).toBe('b');
});

const placeholder = `$${'{provision}'}`;

test('substitutions fill the file as CDK’s do, and a missing one is named', () => {
  const text = JSON.stringify(one({ ...good, Parameters: { FunctionName: placeholder, Payload: {} } }));
  const { definition } = loadMachine('a.asl.json', text, { provision: 'arn:"x"' });
  expect(definition.States.s!.Parameters).toEqual({ FunctionName: 'arn:"x"', Payload: {} });
  expect(() => loadMachine('a.asl.json', text, {})).toThrow(
    `a.asl.json: ${placeholder} has no substitution.`,
  );
});
