import type { Synthesized } from './synthesize.ts';

export interface Resource {
  readonly stack: string;
  readonly id: string;
  readonly type: string;
  // biome-ignore lint/suspicious/noExplicitAny: a template's properties are whatever their type has
  readonly properties: any;
  readonly deletionPolicy: string | undefined;
  /** Ids of what is made before it, where a template says so itself. */
  readonly dependsOn: readonly string[];
}

type Json = Record<string, unknown>;

interface Output {
  readonly Value: unknown;
  readonly Export?: { readonly Name: string };
}

const pseudo: Record<string, string> = {
  'AWS::Region': 'eu-west-1',
  'AWS::AccountId': '111122223333',
  'AWS::Partition': 'aws',
  'AWS::URLSuffix': 'amazonaws.com',
};

/** What is another in each stack: handed over as text, it would silently become the receiver's own. */
const ownPseudo = (name: string, stack: string): string | undefined => {
  if (name === 'AWS::StackName') return stack;
  if (name !== 'AWS::StackId') return undefined;
  return `arn:aws:cloudformation:eu-west-1:111122223333:stack/${stack}/id-of-${stack.toLowerCase()}`;
};

/** Everything that the stacks would make, with what CloudFormation fills in written out. */
export class Assembly {
  readonly resources: readonly Resource[];
  readonly #templates: Readonly<Record<string, Json>>;
  /** What a Ref or an attribute stands for: `Stack.Logical`, `Stack.Logical.Attribute` or a pseudo parameter; absent: its own name in brackets. */
  readonly #known: Readonly<Record<string, string>>;

  constructor({ stacks, template }: Synthesized, known: Readonly<Record<string, string>> = {}) {
    this.#known = known;
    this.#templates = Object.fromEntries(
      Object.entries(stacks).map(([key, { stackName }]) => [stackName, template(key as never).toJSON()]),
    );
    this.resources = Object.entries(this.#templates).flatMap(([stack, { Resources }]) =>
      Object.entries(Resources as Record<string, Json>).map(([id, resource]) => ({
        stack,
        id,
        type: resource.Type as string,
        properties: this.#resolve(resource.Properties ?? {}, stack),
        deletionPolicy: resource.DeletionPolicy as string | undefined,
        dependsOn: [(resource.DependsOn as string[] | string | undefined) ?? []].flat(),
      })),
    );
  }

  of(type: string): readonly Resource[] {
    return this.resources.filter((resource) => resource.type === type);
  }

  /** @throws Error unless exactly one is of this type and has such an id */
  only(type: string, id: RegExp): Resource {
    const found = this.of(type).filter((resource) => id.test(resource.id));
    if (found.length !== 1) throw new Error(`${found.length} resources ${type} ${id}`);
    return found[0]!;
  }

  /** Each argument of this intrinsic function, wherever a template has it. */
  calls(name: string): readonly unknown[] {
    const found: unknown[] = [];
    JSON.stringify(this.#templates, (key, value) => {
      if (key === name) found.push(value);
      return value;
    });
    return found;
  }

  outputs(): Readonly<Record<string, string>> {
    return Object.fromEntries(
      Object.entries(this.#templates).flatMap(([stack, { Outputs }]) =>
        Object.entries((Outputs ?? {}) as Record<string, { Value: unknown }>).map(([id, { Value }]) => [
          `${stack}.${id}`,
          String(this.#resolve(Value, stack)),
        ]),
      ),
    );
  }

  #resolve(value: unknown, stack: string): unknown {
    if (Array.isArray(value)) return value.map((item) => this.#resolve(item, stack));
    if (typeof value !== 'object' || value === null) return value;
    const [name, ...more] = Object.keys(value);
    const argument = (value as Json)[name!];
    if (more.length === 0 && name === 'Ref') return this.#reference(argument as string, stack);
    if (more.length > 0 || !name?.startsWith('Fn::'))
      return Object.fromEntries(
        Object.entries(value).map(([key, item]) => [key, this.#resolve(item, stack)]),
      );
    return this.#call(name, argument, stack);
  }

  #reference(name: string, stack: string): string {
    return (
      this.#known[name] ??
      pseudo[name] ??
      ownPseudo(name, stack) ??
      this.#known[`${stack}.${name}`] ??
      `<${name}>`
    );
  }

  #call(name: string, argument: unknown, stack: string): unknown {
    const inner = (item: unknown) => this.#resolve(item, stack);
    switch (name) {
      case 'Fn::GetAtt':
        return this.#reference((argument as string[]).join('.'), stack);
      case 'Fn::Join': {
        const [separator, parts] = argument as [string, unknown[]];
        return parts.map(inner).join(separator);
      }
      case 'Fn::Sub':
        return String(argument).replaceAll(/\$\{([^}]+)\}/g, (_, key: string) => this.#reference(key, stack));
      case 'Fn::Select': {
        const [index, list] = argument as [number, unknown];
        return (inner(list) as unknown[])[Number(index)] ?? `<${index}>`;
      }
      case 'Fn::Split': {
        const [separator, text] = argument as [string, unknown];
        // An ARN that only a deployment knows: as many parts as one has.
        const whole = String(inner(text));
        return whole.includes(separator) ? whole.split(separator) : Array(9).fill(whole);
      }
      case 'Fn::FindInMap': {
        const [map, ...keys] = argument as string[];
        let found: unknown = (this.#templates[stack]!.Mappings as Json)[map!];
        for (const key of keys) found = (found as Json)[inner(key) as string];
        return found;
      }
      case 'Fn::GetAZs':
        return ['a', 'b'];
      case 'Fn::GetStackOutput': {
        const { StackName, OutputName } = argument as Record<string, string>;
        const outputs = this.#templates[StackName!]!.Outputs as Record<string, { Value: unknown }>;
        return this.#resolve(outputs[OutputName!]!.Value, StackName!);
      }
      case 'Fn::ImportValue': {
        for (const [producer, { Outputs }] of Object.entries(this.#templates))
          for (const { Export, Value } of Object.values((Outputs ?? {}) as Record<string, Output>))
            if (Export?.Name === argument) return this.#resolve(Value, producer);
        throw new Error(`No stack exports ${argument}.`);
      }
      default:
        throw new Error(`The tests do not know ${name}.`);
    }
  }
}
