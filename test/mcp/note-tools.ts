import { z } from 'zod';
import { defineTool, sql, type Tool } from '../../functions/lib/mcp/tool.ts';

/** Tools of the tests' own, over the tests' own table: what the adopting team does to its tools breaks nothing here. */
const readOnly = { readOnlyHint: true } as const;
const notes = z.object({ notes: z.array(z.string()), next: z.string().optional() });

const addNote = defineTool({
  name: 'add_note',
  title: 'Add a note',
  description: 'Adds a note.',
  input: z.object({ body: z.string().min(1).max(200) }),
  output: z.object({ added: z.boolean() }),
  scopes: ['notes:write'],
  annotations: { readOnlyHint: false },
  async run({ body }, { db }) {
    await db.query(sql`insert into notes (body) values (${body})`);
    return { added: true };
  },
});

const listNotes = defineTool({
  name: 'list_notes',
  title: 'List notes',
  description: 'Lists notes.',
  input: z.object({ limit: z.int().min(1).max(5_000).default(100), after: z.string().optional() }),
  output: notes,
  scopes: ['notes:read'],
  annotations: readOnly,
  async run({ limit, after }, { db, cursor }) {
    const from = after === undefined ? '' : (cursor.open(after) as string);
    const { rows } = await db.query<{ body: string }>(
      sql`select body from notes where body > ${from} order by body limit ${limit}`,
    );
    const last = rows.at(-1);
    return { notes: rows.map(({ body }) => body), ...(last && { next: cursor.seal(last.body) }) };
  },
});

/** One statement that the caller chooses: stands for whatever a tool can run into. */
const runStatement = defineTool({
  name: 'run_statement',
  title: 'Run a statement',
  description: 'Runs a statement in a READ ONLY transaction.',
  input: z.object({ statement: z.string() }),
  output: z.object({ rows: z.int() }),
  scopes: ['notes:read'],
  annotations: readOnly,
  async run({ statement }, { db }) {
    return { rows: (await db.query(statement)).rows.length };
  },
});

export const tools: readonly Tool[] = [addNote, listNotes, runStatement];
