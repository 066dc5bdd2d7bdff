import Table from 'cli-table3';

/** Where a command writes: tables for people, one JSON value for programs. */
export interface Output {
  readonly json: boolean;
  /** The answer. */
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
  return {
    json,
    print: (text) => void process.stdout.write(`${text}\n`),
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

/** One row per thing. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const made = new Table({ head: [...head], style: plain, chars: dense });
  made.push(...rows.map((row) => [...row]));
  return made.toString();
}

/** One thing, a line per property; what is not there is left out. */
export function card(properties: Readonly<Record<string, string | number | null | undefined>>): string {
  const made = new Table({ style: plain, chars: dense });
  for (const [name, value] of Object.entries(properties))
    if (value !== null && value !== undefined) made.push({ [name]: String(value) });
  return made.toString();
}

export const json = (value: unknown) => JSON.stringify(value, undefined, 2);

export function duration(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1_000));
  if (seconds < 60) return `${seconds} s`;
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}
