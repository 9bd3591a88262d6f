"use strict";
// The OpenAPI description as a page: operations, their parameters, what goes in and what comes out.

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// A schema in a line, with the schemas that it names, each opened once on the way down.
function outline(schema, all, open = []) {
  if (schema === undefined) return "";
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    return open.includes(name) ? name : outline(all[name], all, [...open, name]);
  }
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return choices.map((choice) => outline(choice, all, open)).join(" | ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.type === "array") return `[${outline(schema.items ?? {}, all, open)}, …]`;
  if (!schema.properties) return schema.type ?? "any";
  const needed = schema.required ?? [];
  const fields = Object.entries(schema.properties).map(
    ([name, field]) => `${name}${needed.includes(name) ? "" : "?"}: ${outline(field, all, open)}`,
  );
  return `{${fields.join(", ")}}`;
}

function part(title, text) {
  return text ? [element("h3", { textContent: title }), element("pre", { textContent: text })] : [];
}

function operation(method, path, described, all) {
  const summary = element("summary", {}, element("code", { textContent: `${method.toUpperCase()} ${path}` }));
  const parameters = (described.parameters ?? []).map(
    (each) => `${each.name} (${each.in}${each.required ? ", required" : ""}): ${outline(each.schema, all)}`,
  );
  const body = outline(Object.values(described.requestBody?.content ?? {})[0]?.schema, all);
  const answers = Object.entries(described.responses).map(([status, answer]) => `${status}: ${answer.description}`);
  return element(
    "details",
    {},
    summary,
    element("p", { textContent: described.description ?? described.summary }),
    ...part("Parameters", parameters.join("\n")),
    ...part("Body", body),
    ...part("Answers", answers.join("\n")),
  );
}

async function show() {
  const described = await (await fetch("openapi.json")).json();
  const made = Object.entries(described.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, each]) => operation(method, path, each, described.components.schemas)),
  );
  document.getElementById("operations").replaceChildren(...made);
}

show().catch((error) => {
  document.getElementById("status").textContent = error.message;
});
