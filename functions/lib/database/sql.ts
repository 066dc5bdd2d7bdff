import { TenantryError } from '../errors.ts';

/**
 * A statement, or a piece of one, whose values can only be parameters. Made by the `sql` tag alone; it is
 * a node-postgres query config as it stands (`text` with `$1, $2, …`, and `values`).
 */
export class Sql {
  readonly text: string;
  readonly values: readonly unknown[];
  /** The text around the values: always one more than there are values. */
  readonly #parts: readonly string[];

  private constructor(parts: readonly string[], values: readonly unknown[]) {
    this.#parts = parts;
    this.values = values;
    this.text = parts.reduce((text, part, index) => `${text}$${index}${part}`);
  }

  static of(strings: readonly string[], interpolated: readonly unknown[]): Sql {
    const parts = [strings[0]!];
    const values: unknown[] = [];
    interpolated.forEach((value, index) => {
      const after = strings[index + 1]!;
      if (value instanceof Sql) {
        const spliced = [...value.#parts];
        spliced[0] = parts.pop()! + spliced[0]!;
        parts.push(...spliced);
        parts.push(parts.pop()! + after);
        values.push(...value.values);
      } else {
        parts.push(after);
        values.push(value);
      }
    });
    return new Sql(parts, values);
  }
}

/**
 * ``sql`select name from items where sku = ${sku}` ``. Every `${…}` becomes a parameter, an array too
 * (`= any(${skus})`); another `sql` fragment is spliced in, and its parameters are numbered on.
 */
export function sql(strings: TemplateStringsArray, ...values: readonly unknown[]): Sql {
  // `sql(text)` would be a way to pass text as a statement unseen, and only a template literal has `raw`.
  if (!Array.isArray(strings) || !Array.isArray(strings.raw)) {
    throw new TenantryError(
      'statement_refused',
      'sql is a template tag: write sql`select …`, not sql(text).',
    );
  }
  return Sql.of(strings, values);
}
