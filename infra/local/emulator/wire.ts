import { XmlShapeSerializer } from '@aws-sdk/core/protocols';
import { NormalizedSchema } from '@smithy/core/schema';
import { AwsFault, type Shape } from './service.ts';

/** Where the two protocols differ in writing the same input down. */
interface Format {
  memberKey(name: string, schema: NormalizedSchema): string;
  items(list: NormalizedSchema, value: unknown): unknown[] | undefined;
  /** `undefined`: not a value of this type. */
  scalar(schema: NormalizedSchema, value: unknown): unknown;
}

const json: Format = {
  memberKey: (name) => name,
  items: (_list, value) => (Array.isArray(value) ? value : undefined),
  scalar(schema, value) {
    if (schema.isStringSchema()) return typeof value === 'string' ? value : undefined;
    if (schema.isBooleanSchema()) return typeof value === 'boolean' ? value : undefined;
    if (schema.isNumericSchema()) return typeof value === 'number' ? value : undefined;
    if (schema.isTimestampSchema()) return typeof value === 'number' ? new Date(value * 1000) : undefined;
    if (schema.isBlobSchema()) return typeof value === 'string' ? Buffer.from(value, 'base64') : undefined;
    return undefined;
  },
};

const query: Format = {
  memberKey: (name, schema) => (schema.getMergedTraits().xmlName as string | undefined) ?? name,
  items(list, value) {
    if (value === '') return [];
    if (!isObject(value)) return undefined;
    const item = (list.getValueSchema().getMergedTraits().xmlName as string | undefined) ?? 'member';
    const numbered = list.getMergedTraits().xmlFlattened ? value : value[item];
    return isObject(numbered) ? Object.values(numbered) : undefined;
  },
  scalar(schema, value) {
    if (typeof value !== 'string') return undefined;
    if (schema.isStringSchema()) return value;
    if (schema.isBooleanSchema()) return value === 'true' ? true : value === 'false' ? false : undefined;
    if (schema.isNumericSchema())
      return value.trim() === '' || Number.isNaN(Number(value)) ? undefined : Number(value);
    if (schema.isTimestampSchema()) return Number.isNaN(Date.parse(value)) ? undefined : new Date(value);
    return undefined;
  },
};

export const readJson = (shape: Shape, body: string): Record<string, unknown> =>
  readStruct(json, NormalizedSchema.of(shape), parseJson(body), '');

export const readQuery = (shape: Shape, form: URLSearchParams): Record<string, unknown> =>
  readStruct(query, NormalizedSchema.of(shape), tree(form), '');

export const writeJson = (shape: Shape, value: unknown): string =>
  JSON.stringify(plain(NormalizedSchema.of(shape), value) ?? {});

/** The content of awsQuery's `<…Result>` element; empty for an operation without output. */
export function writeXml(shape: Shape, value: unknown): string {
  const schema = NormalizedSchema.of(shape);
  if (schema.isUnitSchema()) return '';
  const serializer = new XmlShapeSerializer({
    timestampFormat: { useTrait: true, default: 5 /* date-time */ },
    xmlNamespace: '',
    serviceNamespace: '',
    httpBindings: false,
  });
  serializer.write(schema, value);
  // The serializer names its root after the shape; the protocol names it after the operation.
  const written = String(serializer.flush());
  return written.endsWith('/>') ? '' : written.slice(written.indexOf('>') + 1, written.lastIndexOf('</'));
}

function readStruct(
  format: Format,
  schema: NormalizedSchema,
  value: unknown,
  path: string,
): Record<string, unknown> {
  if (!isObject(value)) throw malformed(path);
  const members = new Map<string, [string, NormalizedSchema]>();
  for (const [name, member] of schema.structIterator())
    members.set(format.memberKey(name, member), [name, member]);
  const result: Record<string, unknown> = {};
  for (const [key, given] of Object.entries(value)) {
    const member = members.get(key);
    if (member === undefined)
      throw new AwsFault('UnknownParameter', `${path}${key} is not a parameter of this operation.`);
    if (given !== null) result[member[0]] = read(format, member[1], given, `${path}${key}`);
  }
  return result;
}

function read(format: Format, schema: NormalizedSchema, value: unknown, path: string): unknown {
  if (schema.isStructSchema()) return readStruct(format, schema, value, `${path}.`);
  if (schema.isListSchema()) {
    const items = format.items(schema, value);
    if (items === undefined) throw malformed(path);
    return items.map((item, index) => read(format, schema.getValueSchema(), item, `${path}.${index + 1}`));
  }
  const scalar = format.scalar(schema, value);
  if (scalar === undefined) throw malformed(path);
  return scalar;
}

/** `Tags.Tag.1.Key=a` → `{Tags: {Tag: {1: {Key: 'a'}}}}`; integer keys keep their order. */
function tree(form: URLSearchParams): Record<string, unknown> {
  const root: Record<string, unknown> = Object.create(null);
  for (const [key, value] of form) {
    const path = key.split('.');
    const last = path.pop()!;
    let node = root;
    for (const part of path) {
      node[part] ??= Object.create(null);
      if (!isObject(node[part])) throw malformed(key);
      node = node[part];
    }
    if (last in node) throw malformed(key);
    node[last] = value;
  }
  return root;
}

function plain(schema: NormalizedSchema, value: unknown): unknown {
  if (value === undefined || value === null) return undefined;
  if (schema.isListSchema()) return (value as unknown[]).map((item) => plain(schema.getValueSchema(), item));
  if (schema.isMapSchema()) {
    const entries = Object.entries(value);
    return Object.fromEntries(entries.map(([key, item]) => [key, plain(schema.getValueSchema(), item)]));
  }
  if (schema.isStructSchema()) {
    const members = [...schema.structIterator()];
    return Object.fromEntries(
      members.map(([name, member]) => [name, plain(member, (value as Record<string, unknown>)[name])]),
    );
  }
  if (schema.isTimestampSchema()) return (value as Date).getTime() / 1000;
  if (schema.isBlobSchema()) return Buffer.from(value as Uint8Array).toString('base64');
  return value;
}

function parseJson(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    throw new AwsFault('SerializationException', 'The body is not JSON.');
  }
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const malformed = (path: string) =>
  new AwsFault('MalformedInput', `The value of ${path || 'the body'} has the wrong form.`);
