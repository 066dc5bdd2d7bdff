import Table from 'cli-table3';

/** Where a command writes: tables for people, one JSON value for programs. */
export interface Output {
  readonly json: boolean;
  /** What was asked for: one JSON value for programs, a text for people. */
  answer(value: unknown, text: string): void;
  /** One line of an answer that has no end. */
  print(text: string): void;
  /** Beside it: progress, hints. */
  note(text: string): void;
  /** Replaces the last such line where there is a terminal; elsewhere a line of its own, when it says something new. */
  progress(text: string, isNews: boolean): void;
  endProgress(): void;
}

export function createOutput(json: boolean): Output {
  const isTerminal = process.stderr.isTTY && !json;
  let shown = false;
  const endProgress = () => {
    if (shown) process.stderr.write('\n');
    shown = false;
  };
  const print = (text: string) => void process.stdout.write(`${text}\n`);
  return {
    json,
    answer: (value, text) => print(json ? JSON.stringify(value, undefined, 2) : text),
    print,
    note(text) {
      endProgress();
      if (!json) process.stderr.write(`${text}\n`);
    },
    progress(text, isNews) {
      if (isTerminal) {
        // What goes on in the next line would stay there.
        process.stderr.write(`\r\u001b[2K${text.slice(0, (process.stderr.columns || 80) - 1)}`);
        shown = true;
      } else if (isNews) process.stderr.write(`${text}\n`);
    },
    endProgress,
  };
}

const plain = { head: [], border: [] };
/** No lines between rows: more of them fit on a screen. */
const dense = { mid: '', 'left-mid': '', 'mid-mid': '', 'right-mid': '' };

/** One row per thing; where a terminal is narrower, its widest columns go over several lines. */
export function table(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  columns = process.stdout.columns,
): string {
  const widths = fitting([head, ...rows], columns);
  const made = new Table({ head: [...head], style: plain, chars: dense });
  made.push(...rows.map((row) => row.map((cell, column) => wrapped(cell, widths[column]!))));
  return made.toString();
}

/** One thing, a line per property; what is not there is left out. */
export function card(
  properties: Readonly<Record<string, string | number | null | undefined>>,
  columns = process.stdout.columns,
): string {
  const rows = Object.entries(properties)
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([name, value]) => [name, String(value)] as const);
  const [, width] = fitting(rows, columns);
  const made = new Table({ style: plain, chars: dense });
  made.push(...rows.map(([name, value]) => ({ [name]: wrapped(value, width!) })));
  return made.toString();
}

/** Narrower than this no column gets: what would be left is not worth reading. */
const narrowest = 16;

/** What each column may take of a terminal's width. */
function fitting(rows: readonly (readonly string[])[], columns: number | undefined): number[] {
  const widths: number[] = [];
  for (const row of rows)
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 1, ...cell.split('\n').map(({ length }) => length));
    });
  // Beside its text each has a border and two spaces.
  let excess = widths.reduce((sum, width) => sum + width + 3, 1) - (columns || Number.POSITIVE_INFINITY);
  while (excess-- > 0 && Math.max(...widths) > narrowest) widths[widths.indexOf(Math.max(...widths))]! -= 1;
  return widths;
}

/** In lines, between words where that is possible. */
const wrapped = (text: string, width: number): string =>
  text.replace(new RegExp(`(?!.{0,${width}}$)(?:(.{1,${width}}) |(.{${width}}))`, 'gmu'), '$1$2\n');

export function duration(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1_000));
  if (seconds < 60) return `${seconds} s`;
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}
