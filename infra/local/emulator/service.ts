import { NormalizedSchema } from '@smithy/core/schema';

/** A shape as the SDK's clients export it (`CreateSecret$`, `DBInstanceNotFoundFault$`, …). */
export type Shape = Parameters<typeof NormalizedSchema.of>[0];

/** The caller's signature, as far as an emulator needs it; it is not verified. */
export interface Caller {
  readonly region: string;
}

export interface Operation {
  readonly name: string;
  readonly input: Shape;
  readonly output: Shape;
  /** The input members whose meaning is emulated. A request with any other is refused. */
  readonly models: readonly string[];
  run(input: unknown, caller: Caller): Promise<unknown> | unknown;
}

export interface Service {
  readonly protocol: 'awsJson' | 'awsQuery';
  /** awsJson: the prefix of `X-Amz-Target`. awsQuery: the service in the signature's scope. */
  readonly name: string;
  /** awsQuery only: the namespace of its XML. */
  readonly xmlNamespace: string;
  readonly operations: readonly Operation[];
}

/** One emulated operation: its exported schema, the input members it models, and what it does. */
export function operation<Input, Output>(
  schema: readonly [9, string, string, unknown, Shape | (() => Shape), Shape | (() => Shape)],
  models: readonly (keyof Input & string)[],
  run: (input: Input, caller: Caller) => Promise<Output> | Output,
): Operation {
  return {
    name: schema[2],
    input: schema[4] as Shape,
    output: schema[5] as Shape,
    models,
    run: (input, caller) => run(input as Input, caller),
  };
}

/** An error as AWS would answer it. */
export class AwsFault extends Error {
  readonly code: string;
  readonly status: number;
  constructor(code: string, message: string, status = 400) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

/** A modelled error, by the schema that its client exports: the client throws its typed exception. */
export function fault(schema: Shape, message: string): AwsFault {
  const shape = NormalizedSchema.of(schema);
  const traits = shape.getMergedTraits() as { awsQueryError?: [string, number]; httpError?: number };
  const [code, status] = traits.awsQueryError ?? [shape.getName()!, traits.httpError ?? 400];
  return new AwsFault(code, message, status);
}

/** What is not emulated fails loudly: a silent default here would be a surprise on AWS. */
export const notEmulated = (what: string): AwsFault =>
  new AwsFault('NotEmulated', `${what} is not emulated locally.`);
