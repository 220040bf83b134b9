// The form of a request, made from its JSON schema. A field's path is that of the API's errors: `rows.0.value`.

import { make, problem, words } from "./dom.js";

/** Return a schema with references followed, and null apart: `optional` is whether it accepts null. */
function plain(schema) {
  if (schema.$ref) return { ...plain(problem.schema.$defs[schema.$ref.split("/").pop()]), ...schema };
  const choices = schema.anyOf ?? [];
  const rest = choices.filter((one) => one.type !== "null");
  if (rest.length === 1) return { ...schema, ...plain(rest[0]), optional: rest.length < choices.length };
  return schema;
}

const PICKERS = { "date-time-local": ["datetime-local", { step: 1 }], date: ["date", {}], time: ["time", { step: 1 }] };

/** Return what a field accepts, in words. */
function bounds(schema) {
  if (schema.minimum !== undefined && schema.maximum !== undefined) return ` ${schema.minimum} to ${schema.maximum}.`;
  if (schema.minimum !== undefined) return ` At least ${schema.minimum}.`;
  return schema.maximum === undefined ? "" : ` At most ${schema.maximum}.`;
}

/** Return a field: `element`, `get()` (undefined if empty) and `set(value)`. */
function field(name, schema, path, required) {
  const kind = plain(schema);
  if (kind.type === "array" && plain(kind.items).type === "object") return list(name, kind, path);
  if (kind.type === "object" && kind.properties) return group(name, kind, path);
  const { input, get, set } = control(kind, path, required);
  const wrong = make("p", { class: "wrong", id: `wrong-${path}`, hidden: true });
  const note = (kind.description ?? "") + bounds(kind);
  input.setAttribute("aria-describedby", `hint-${path} wrong-${path}`);
  if (required) input.setAttribute("aria-required", "true");
  const label = make("label", { for: path }, words(name), required ? "" : make("span", { class: "quiet small" }, " optional"));
  return { element: make("div", { class: "field" }, label, make("p", { class: "hint", id: `hint-${path}` }, note), input, wrong), get, set };
}

/** Return the input of a value, and functions that read and write it. */
function control(kind, path, required) {
  const options = { id: path, name: path, autocomplete: "off" };
  if (kind.enum || kind.type === "boolean") {
    const values = kind.enum ?? [true, false];
    const free = !required && (kind.default === undefined || kind.default === null);
    const shown = free ? ["", ...values] : values;
    const input = make("select", options, shown.map((value) => make("option", { value: JSON.stringify(value) }, String(value))));
    const get = () => (input.value === '""' ? undefined : JSON.parse(input.value));
    return { input, get, set: (value) => { input.value = JSON.stringify(value ?? kind.default ?? shown[0]); } };
  }
  if (kind.type === "number" || kind.type === "integer") {
    const step = kind.multipleOf ?? (kind.type === "integer" ? 1 : "any");
    const input = make("input", { ...options, type: "number", step, min: kind.minimum, max: kind.maximum });
    const get = () => (input.validity.badInput ? "?" : input.value === "" ? undefined : Number(input.value));
    return { input, get, set: (value) => { input.value = value ?? ""; } };
  }
  if (kind.type === "string") {
    const [type, more] = PICKERS[kind.format] ?? ["text", { maxlength: kind.maxLength, list: `known-${path}` }];
    const input = make("input", { ...options, type, ...more });
    return { input, get: () => input.value || undefined, set: (value) => { input.value = value ?? ""; } };
  }
  const input = make("textarea", { ...options, rows: 2, spellcheck: "false" });
  const get = () => { try { return input.value ? JSON.parse(input.value) : undefined; } catch { return input.value; } };
  return { input, get, set: (value) => { input.value = value === undefined || value === null ? "" : JSON.stringify(value); } };
}

/** Return the fields of an object. */
function group(name, kind, path, title = words(name)) {
  const parts = fieldsOf(kind, path);
  const body = make("div", { class: "grid" }, Object.values(parts).map((part) => part.element));
  return { element: make("fieldset", {}, make("legend", {}, title), body), get: () => read(parts), set: (value) => write(parts, value) };
}

/** Return a list of objects; each is a group of fields that can be added and removed. */
function list(name, kind, path) {
  const items = make("div");
  const wrong = make("p", { class: "wrong", id: `wrong-${path}`, hidden: true });
  const most = kind.maxItems ?? 100;
  const example = problem.example[name];
  let parts = [];
  const draw = (values) => {
    parts = values.map((value, i) => {
      const part = group(name, plain(kind.items), `${path}.${i}`, values.length > 1 ? `${words(name)} ${i + 1}` : words(name));
      part.set(value);
      part.element.append(make("p", {}, make("button", { type: "button", click: () => { draw(now().filter((_, k) => k !== i)); add.focus(); } },
        values.length > 1 ? `Remove ${name} ${i + 1}` : `Remove ${name}`)));
      return part;
    });
    items.replaceChildren(...parts.map((part) => part.element));
    add.hidden = values.length >= most;
    add.textContent = values.length ? `Add another (at most ${most})` : `Add ${name}`;
    items.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const now = () => parts.map((part) => part.get());
  const more = () => { draw([...now(), parts.length ? parts.at(-1).get() : example?.[0] ?? {}]); items.querySelectorAll("fieldset")[parts.length - 1].querySelector("input, select")?.focus(); };
  const add = make("button", { type: "button", id: path, "aria-describedby": `hint-${path} wrong-${path}`, click: more });
  draw([]);
  const head = make("p", { class: "hint", id: `hint-${path}` }, make("strong", {}, words(name)), " optional. ", kind.description ?? "");
  return {
    element: make("div", { class: "field" }, head, items, add, wrong),
    get: () => (parts.length ? now() : undefined),
    set: (value) => draw(value ?? []),
  };
}

function fieldsOf(kind, path) {
  const required = new Set(kind.required ?? []);
  return Object.fromEntries(Object.entries(kind.properties).map(([name, schema]) =>
    [name, field(name, schema, path ? `${path}.${name}` : name, required.has(name))]));
}

const read = (parts) => Object.fromEntries(Object.entries(parts).map(([name, part]) => [name, part.get()]).filter(([, value]) => value !== undefined));
const write = (parts, value) => { for (const [name, part] of Object.entries(parts)) part.set(value?.[name]); };

/** Put the form of the problem's request into an element; return functions that read and write the request. */
export function build(container) {
  const parts = fieldsOf(plain(problem.schema), "");
  container.replaceChildren(...Object.values(parts).map((part) => part.element));
  return { read: () => read(parts), write: (value) => write(parts, value) };
}

/** Offer the values that the model knows for the text fields of the same name. */
export function suggest(vocabularies) {
  for (const [name, values] of Object.entries(vocabularies)) {
    const input = document.getElementById(name);
    if (!input?.hasAttribute("list") || document.getElementById(`known-${name}`)) continue;
    input.after(make("datalist", { id: `known-${name}` }, values.map((value) => make("option", { value }))));
  }
}

/** Show the API's errors at their fields; return those that belong to no field. Without errors, remove the former ones. */
export function mark(errors) {
  for (const note of document.querySelectorAll(".wrong")) {
    note.hidden = true;
    document.getElementById(note.id.slice("wrong-".length))?.removeAttribute("aria-invalid");
  }
  const elsewhere = [];
  let first = null;
  for (const { field: path, message } of errors) {
    const note = document.getElementById(`wrong-${path}`);
    if (!note) { elsewhere.push(`${path}: ${message}`); continue; }
    note.textContent = message;
    note.hidden = false;
    const input = document.getElementById(path);
    input?.setAttribute("aria-invalid", "true");
    first ??= input;
  }
  first?.focus();
  return elsewhere;
}
