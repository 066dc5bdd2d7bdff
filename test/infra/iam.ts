import type { Assembly } from './assembly.ts';

interface Statement {
  readonly Effect: 'Allow' | 'Deny';
  readonly Action: string | string[];
  readonly Resource: string | string[];
  readonly Condition?: Record<string, Record<string, string | string[]>>;
}

/** What a request carries beside action and resource: `aws:RequestTag/…` and the like. */
export type Context = Readonly<Record<string, string | readonly string[]>>;

/** All that a role may do: in itself and by the policies attached to it. @throws Error when one of those can't be read here */
export function statementsOf(assembly: Assembly, role: { stack: string; id: string }): Statement[] {
  const here = `<${role.id}>`;
  const inline = assembly
    .of('AWS::IAM::Policy')
    .filter(({ stack, properties }) => stack === role.stack && properties.Roles.includes(here));
  const { ManagedPolicyArns = [], Policies = [] } = assembly.only(
    'AWS::IAM::Role',
    new RegExp(`^${role.id}$`),
  ).properties;
  const attached = (ManagedPolicyArns as string[]).map((arn) => {
    const policy = assembly.of('AWS::IAM::ManagedPolicy').find(({ id }) => arn === `<${id}>`);
    if (policy === undefined) throw new Error(`${role.id} has ${arn}, whose statements are AWS's to change.`);
    return policy;
  });
  const documents = [...inline, ...attached].map(({ properties }) => properties.PolicyDocument);
  return [
    ...documents,
    ...(Policies as { PolicyDocument: { Statement: Statement[] } }[]).map(
      ({ PolicyDocument }) => PolicyDocument,
    ),
  ].flatMap(({ Statement }) => Statement);
}

/** What the statements allow an action on, as they say it: with wildcards. */
export const allowedResources = (statements: readonly Statement[], action: string): string[] => [
  ...new Set(
    statements
      .filter(({ Effect, Action }) => Effect === 'Allow' && [Action].flat().includes(action))
      .flatMap(({ Resource }) => Resource),
  ),
];

/** As IAM decides it, for the operators that our policies use. @throws Error on one that it does not know */
export function isAllowed(
  statements: readonly Statement[],
  action: string,
  resource: string,
  context: Context = {},
): boolean {
  const matching = statements.filter(
    (statement) =>
      [statement.Action].flat().some((pattern) => like(pattern.toLowerCase(), action.toLowerCase())) &&
      [statement.Resource].flat().some((pattern) => like(pattern, resource)) &&
      holds(statement.Condition ?? {}, context),
  );
  return matching.length > 0 && matching.every(({ Effect }) => Effect === 'Allow');
}

/** As IAM matches: `*` and `?`. */
export const like = (pattern: string, text: string) =>
  new RegExp(
    `^${pattern
      .replaceAll(/[.+^${}()|[\]\\]/g, '\\$&')
      .replaceAll('*', '.*')
      .replaceAll('?', '.')}$`,
  ).test(text);

function holds(condition: NonNullable<Statement['Condition']>, context: Context): boolean {
  return Object.entries(condition).every(([operator, keys]) =>
    Object.entries(keys).every(([key, wanted]) => {
      const values = key in context ? [context[key]!].flat() : undefined;
      const patterns = [wanted].flat();
      const equals = (value: string) => patterns.includes(value);
      switch (operator) {
        case 'Null':
          return (values === undefined) === (patterns[0] === 'true');
        case 'Bool':
          return values?.some(equals) ?? false;
        case 'BoolIfExists':
          return values === undefined || values.some(equals);
        case 'StringEquals':
          return values?.some(equals) ?? false;
        case 'StringLike':
          return values?.some((value) => patterns.some((pattern) => like(pattern, value))) ?? false;
        case 'ForAllValues:StringEquals':
          return (values ?? []).every(equals);
        default:
          throw new Error(`The tests do not know the condition ${operator}.`);
      }
    }),
  );
}
