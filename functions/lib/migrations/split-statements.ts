/**
 * What matters for where a statement ends, as PostgreSQL's own lexer tells it: words (the `$` within one opens no quote, the
 * `e` at its end no text with escapes), quotes, comments, parentheses and semicolons. A doubled quote is two texts side by side.
 */
const token =
  /[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*|'|"|\$(?:[A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*)?\$|--|\/\*|[();]/g;

export interface SplitScript {
  /** Without comments, trimmed. Only good enough to look at how each begins: never executed. */
  readonly statements: readonly string[];
  /** The same without what is quoted, but for names that mean the same without quotes: what is left are words. */
  readonly bare: readonly string[];
  /** Where each stands in the text: from the end of the one before it to behind its semicolon; `begin` is its first word. */
  readonly places: readonly { readonly from: number; readonly to: number; readonly begin: number }[];
  /** Where a quote or comment begins that has no end. */
  readonly openAt: number | undefined;
}

export function splitStatements(sql: string): SplitScript {
  const statements: string[] = [];
  const bares: string[] = [];
  const places: { from: number; to: number; begin: number }[] = [];
  let openAt: number | undefined;
  let current = '';
  let bare = '';
  let begin: number | undefined;
  let depth = 0;
  /** Blocks of the SQL-standard body of a function, `begin atomic … end`, that are open: a `case` ends like one. */
  let blocks = 0;
  let word = { text: '', end: 0 };
  let from = 0;
  /** Text of the statement, up to there: a quote, or what is none. */
  const take = (to: number, isQuoted = false) => {
    const text = sql.slice(from, to);
    begin ??= /\S/.test(text) ? from + text.search(/\S/) : undefined;
    current += text;
    bare += isQuoted ? (/^"([a-z_][a-z\d_]*)"$/.exec(text)?.[1] ?? '') : text;
    from = to;
  };
  const add = (to: number) => {
    if (begin !== undefined) {
      statements.push(current.trim());
      bares.push(bare.trim());
      places.push({ from: places.at(-1)?.to ?? 0, to, begin });
    }
    current = '';
    bare = '';
    begin = undefined;
    depth = 0;
    blocks = 0;
  };
  token.lastIndex = 0;
  for (let match = token.exec(sql); match !== null; match = token.exec(sql)) {
    const [text] = match;
    if (text === ';') {
      take(match.index);
      if (depth > 0 || (blocks > 0 && makesFunction.test(bare))) continue;
      from = token.lastIndex;
      add(from);
    } else if (text === '(') depth += 1;
    else if (text === ')') depth = Math.max(0, depth - 1);
    else if (text === '--' || text === '/*') {
      take(match.index);
      const end = text === '--' ? endOfLine(sql, match.index) : endOfComment(sql, match.index);
      if (end === undefined) openAt ??= match.index;
      from = token.lastIndex = end ?? sql.length;
      // As PostgreSQL reads it: what stands on both sides of it are two words.
      current += ' ';
      bare += ' ';
    } else if (!isWord(text) || (/^e$/i.test(text) && sql[token.lastIndex] === "'")) {
      take(match.index);
      const end = isWord(text) ? endOfEscapes(sql, token.lastIndex + 1) : endOfQuote(sql, match.index, text);
      if (end === undefined) openAt ??= match.index;
      token.lastIndex = end ?? sql.length;
      take(token.lastIndex, true);
    } else {
      const [before, now] = [word, { text: text.toLowerCase(), end: token.lastIndex }];
      word = now;
      // A parameter or a column may have such a name too: those stand in parentheses, or elsewhere.
      if (depth > 0) continue;
      const isBody = before.text === 'begin' && sql.slice(before.end, match.index).trim() === '';
      if (blocks > 0) blocks += { case: 1, end: -1 }[now.text] ?? 0;
      else if (now.text === 'atomic' && isBody) blocks = 1;
    }
  }
  take(sql.length);
  add(sql.length);
  return { statements, bare: bares, places, openAt };
}

const makesFunction = /^\s*create\s+(or\s+replace\s+)?(function|procedure)\b/i;

const isWord = (text: string) => /^[\w\u0080-\uffff]/.test(text);

const endOfLine = (sql: string, start: number) => start + sql.slice(start).search(/[\n\r]|$/);

function endOfQuote(sql: string, start: number, quote: string): number | undefined {
  const end = sql.indexOf(quote, start + quote.length);
  return end < 0 ? undefined : end + quote.length;
}

/** Behind `E'`: a text that goes on on the next line is one with escapes too. */
function endOfEscapes(sql: string, start: number): number | undefined {
  const border = /\\[\s\S]|''|'/g;
  const goesOn = /[ \t\f\v]*(?:--[^\n\r]*)?[\n\r](?:[ \t\n\r\f\v]|--[^\n\r]*[\n\r])*'/y;
  border.lastIndex = start;
  for (let match = border.exec(sql); match !== null; match = border.exec(sql)) {
    if (match[0] !== "'") continue;
    goesOn.lastIndex = border.lastIndex;
    if (!goesOn.test(sql)) return border.lastIndex;
    border.lastIndex = goesOn.lastIndex;
  }
  return undefined;
}

function endOfComment(sql: string, start: number): number | undefined {
  const border = /\/\*|\*\//g;
  border.lastIndex = start;
  let depth = 0;
  for (let match = border.exec(sql); match !== null; match = border.exec(sql)) {
    depth += match[0] === '/*' ? 1 : -1;
    if (depth === 0) return border.lastIndex;
  }
  return undefined;
}

/** At the commas that stand in no parentheses; ends at a parenthesis that none has opened. */
export function splitList(text: string): string[] {
  const parts: string[] = [''];
  let depth = 0;
  for (const character of text) {
    if (character === ')' && depth-- === 0) break;
    if (character === '(') depth += 1;
    if (character === ',' && depth === 0) parts.push('');
    else parts[parts.length - 1] += character;
  }
  return parts.map((part) => part.trim());
}
